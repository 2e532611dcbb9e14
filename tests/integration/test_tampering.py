"""What was changed behind the trainer's back is detected and named."""

import json
import shutil
from pathlib import Path

import pytest
from tiny_curriculum import Curriculum


@pytest.fixture
def copied(trained: Curriculum, tiny_base: Path, tmp_path: Path) -> Curriculum:
    """A trained curriculum over a base of its own."""
    curriculum = trained.copy_to(tmp_path / "copied")
    shutil.copytree(tiny_base, tmp_path / "base")
    for stage in (1, 2, 3):
        curriculum.set(stage, SFT_BASE_MODEL=tmp_path / "base")
    return curriculum


def base(curriculum: Curriculum) -> Path:
    return curriculum.folder.parent / "base"


def flip_a_bit_in_the_middle(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_the_same_base_elsewhere_is_the_same(copied: Curriculum) -> None:
    assert [line.split()[2] for line in copied.status()] == ["complete"] * 3


def test_an_adapter(copied: Curriculum) -> None:
    flip_a_bit_in_the_middle(copied.stage_dir(1) / "adapter_model.safetensors")
    first, second, _ = copied.status()
    assert first.startswith("stage 1  stale        its adapter file is not the one that was recorded")
    assert second.startswith("stage 2  stale        stage 1 was retrained")


def test_the_scaling_of_an_adapter(copied: Curriculum) -> None:
    path = copied.stage_dir(1) / "adapter_config.json"
    path.write_text(path.read_text().replace('"lora_alpha": 8', '"lora_alpha": 80'))
    first, second, _ = copied.status()
    assert "its adapter_config.json is not the one that was recorded" in first
    assert "stage 1 was retrained" in second


def test_a_shard_of_the_base(copied: Curriculum) -> None:
    flip_a_bit_in_the_middle(base(copied) / "model.safetensors")
    for line in copied.status():
        assert line[9:].startswith("stale        the base model changed")
    refusal = copied.export("--stage", 3, "--to", copied.folder.parent / "model")
    assert refusal.returncode == 2
    assert refusal.stderr.count("the base model changed") == 3


def test_a_shard_of_a_merged_base(copied: Curriculum) -> None:
    copied.train(2, "--evaluate-only")  # a copy is not what was written: built again
    shard = copied.merged_base(2) / "model.safetensors"
    whole = shard.read_bytes()
    flip_a_bit_in_the_middle(shard)
    assert "built again: model.safetensors changed" in copied.train(2, "--evaluate-only")
    assert shard.read_bytes() == whole


def test_the_record(copied: Curriculum) -> None:
    path = copied.stage_dir(2) / "stage.json"
    content = json.loads(path.read_text())
    content["evaluation"]["after"]["metrics"]["gen_parse_rate"] = 0.99
    path.write_text(json.dumps(content))
    assert "its stage.json was changed by hand" in copied.status()[1]
    path.write_text(path.read_text()[:200])
    assert "its stage.json is damaged" in copied.status()[1]
    refusal = copied.command("--stage", 3, "--force")
    assert refusal.returncode == 2
    assert "its stage.json is damaged" in refusal.stderr


def test_the_template_of_the_base_and_the_one_beside_an_adapter(copied: Curriculum) -> None:
    (copied.stage_dir(3) / "chat_template.jinja").write_text("{{ messages }}")
    assert "its chat_template.jinja is not the one that was recorded" in copied.status()[2]
    template = base(copied) / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_end|>\\n", "<|im_end|>"))
    for line in copied.status():
        assert line[9:].startswith("stale        the chat template changed")


def test_the_tokenizer(copied: Curriculum) -> None:
    path = base(copied) / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token": "<|endoftext|>"}))
    assert copied.status()[0].startswith("stage 1  stale        the tokenizer changed")


@pytest.fixture
def retemplated(trained: Curriculum, tmp_path: Path) -> Curriculum:
    """The same curriculum, its last stage with a template that strips what stands before `</think>`."""
    curriculum = trained.copy_to(tmp_path / "retemplated")
    template = (curriculum.stage_dir(2) / "chat_template.jinja").read_text()
    stripping = template.replace("message['content']", "message['content'].split('</think>')[-1]")
    assert stripping != template
    (curriculum.folder / "stripping.jinja").write_text(stripping)
    curriculum.set(3, SFT_CHAT_TEMPLATE="stripping.jinja")
    return curriculum


def test_a_child_that_writes_otherwise_than_its_parent_is_refused(retemplated: Curriculum) -> None:
    before = retemplated.left_behind()
    for arguments in (["--stage", 3], ["--stage", 3, "--plan"]):
        refusal = retemplated.command(*arguments)
        assert refusal.returncode == 2
        assert "Traceback" not in refusal.stderr
        for part in (
            "stage3.env: SFT_CHAT_TEMPLATE",
            "what is written for a <think> block in the last answer",
            "a <think> block in an earlier answer: stripped",
            "what stage 2 was trained with: kept",
            "SFT_ALLOW_TEMPLATE_CHANGE=1",
        ):
            assert part in refusal.stderr
    assert retemplated.left_behind() == before


def test_a_change_that_is_meant_is_trained_and_recorded(retemplated: Curriculum) -> None:
    retemplated.set(3, SFT_ALLOW_TEMPLATE_CHANGE=1)
    retemplated.train(3)
    record = retemplated.record(3)
    assert record["chat"]["thinking"]["in the last answer"] == "stripped"
    assert record["chat"]["sha256"] != retemplated.record(2)["chat"]["sha256"]
    assert [notice for notice in record["notices"] if "SFT_ALLOW_TEMPLATE_CHANGE=1" in notice]
    assert retemplated.status()[2].startswith("stage 3  complete")
