"""`python export.py`: an ordinary model, and one adapter, with the logits of base and all adapters."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from model_distance import SHARE_OF_EFFECT, distance, load, logits
from peft import PeftModel
from provoked import bound_by_permissions
from tiny_curriculum import Curriculum
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

FP32_ROUNDING = 1e-4


@pytest.fixture(scope="module")
def reference(trained: Curriculum, tiny_base: Path) -> PreTrainedModel:
    """Base + all three adapters in fp32, never rounded."""
    before = {name: weight.clone() for name, weight in load(tiny_base).state_dict().items()}
    total = {name: weight.clone() for name, weight in before.items()}
    for stage in (1, 2, 3):
        peft_model = PeftModel.from_pretrained(load(tiny_base), trained.stage_dir(stage))
        after = peft_model.merge_and_unload().state_dict()
        for name in total:
            total[name] += after[name] - before[name]
    model = load(tiny_base)
    model.load_state_dict(total)
    return model


@pytest.fixture(scope="module")
def model_folder(trained: Curriculum, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "my-model"
    said = trained.export.done("--stage", 3, "--to", folder)
    assert "exporting stages 1 to 3" in said
    assert str(folder) in said
    return folder


@pytest.fixture(scope="module")
def adapter_folder(trained: Curriculum, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "my-adapter"
    trained.export.done("--stage", 3, "--to", folder, "--adapter-only")
    return folder


def test_the_model_is_base_and_all_adapters_within_bf16_rounding(
    model_folder: Path, reference: PreTrainedModel, tiny_base: Path
) -> None:
    model = load(model_folder)
    assert distance(model, reference) < SHARE_OF_EFFECT * distance(load(tiny_base), reference)
    for name, weight in model.state_dict().items():
        exact = reference.state_dict()[name]
        assert ((weight - exact).abs() <= 2.0**-8 * exact.abs() + 1e-6).all(), name


def test_the_model_is_an_ordinary_folder(model_folder: Path, tiny_base: Path, trained: Curriculum) -> None:
    names = {path.name for path in model_folder.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "README.md"} <= names
    assert {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"} <= names
    assert not [name for name in names if "adapter" in name or name.endswith(".part")]
    assert "merge.json" not in names
    assert AutoModelForCausalLM.from_pretrained(model_folder, dtype="auto").dtype == torch.bfloat16
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    conversation = [{"role": "user", "content": "Write it as toml."}]
    text = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    as_trained = AutoTokenizer.from_pretrained(trained.stage_dir(3))
    assert text == as_trained.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    generation = json.loads((model_folder / "generation_config.json").read_text())
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in generation["eos_token_id"]
    assert sorted(path.name for path in model_folder.parent.iterdir()) == ["my-model"]


def test_the_card_says_where_it_comes_from_and_how_to_serve_it(
    model_folder: Path, adapter_folder: Path, tiny_base: Path, trained: Curriculum
) -> None:
    card = (model_folder / "README.md").read_text()
    assert card.startswith(f"---\nbase_model: {tiny_base}\n")
    for stage in (1, 2, 3):
        assert trained.record(stage)["adapter_sha256"] in card
    assert trained.record(3)["base"]["fingerprint"] in card
    for part in (
        "| toml.jsonl |",
        "gen_parse_rate",
        "Answers end with `<|im_end|>`",
        "in an earlier answer: kept",
    ):
        assert part in card
    assert "vllm serve ./my-model --served-model-name my-model" in card
    assert "convert_hf_to_gguf.py ./my-model --outfile my-model-bf16.gguf" in card
    other = (adapter_folder / "README.md").read_text()
    assert "One LoRA adapter of rank 12" in other
    assert "--max-lora-rank 16 --lora-modules my-adapter=./my-adapter" in other
    assert "None" not in card + other


def test_the_adapter_is_exact(adapter_folder: Path, reference: PreTrainedModel, tiny_base: Path) -> None:
    model = PeftModel.from_pretrained(load(tiny_base), adapter_folder)
    assert (logits(model) - logits(reference)).abs().max() < FP32_ROUNDING * logits(reference).abs().max()
    assert distance(load(tiny_base), reference) > 100 * distance(model, reference)
    assert AutoTokenizer.from_pretrained(adapter_folder).chat_template


def test_the_first_stage_alone(trained: Curriculum, tiny_base: Path, tmp_path: Path) -> None:
    trained.export.done("--stage", 1, "--to", tmp_path / "one")
    only = PeftModel.from_pretrained(load(tiny_base), trained.stage_dir(1))
    assert distance(load(tmp_path / "one"), only) < SHARE_OF_EFFECT * distance(load(tiny_base), only)


def test_stale_and_missing_stages_are_refused_together(trained: Curriculum, tmp_path: Path) -> None:
    curriculum = trained.copy_to(tmp_path / "changed")
    curriculum.set(1, SFT_LR=0.004)
    shutil.rmtree(curriculum.stage_dir(2))
    refusal = curriculum.export("--stage", 2, "--to", tmp_path / "model")
    assert refusal.returncode == 2
    for part in ("stage 1", "SFT_LR changed from 0.005 to 0.004", "stage 2", "missing", "--stage 1-2"):
        assert part in refusal.stderr
    assert "Traceback" not in refusal.stderr
    assert not (tmp_path / "model").exists()


def test_a_stage_without_a_file_is_refused(trained: Curriculum, tmp_path: Path) -> None:
    refusal = trained.export("--stage", 9, "--to", tmp_path / "model")
    assert refusal.returncode == 2
    assert "stage9.env" in refusal.stderr


def test_a_folder_that_holds_something_is_not_overwritten(
    trained: Curriculum, adapter_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "taken"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    for arguments in ([], ["--force"]):
        refusal = trained.export("--stage", 1, "--to", folder, "--adapter-only", *arguments)
        assert refusal.returncode == 2
        assert "--to" in refusal.stderr
        assert [path.name for path in folder.iterdir()] == ["thesis.tex"]

    model = tmp_path / "model"
    shutil.copytree(adapter_folder, model)
    (model / "left.txt").touch()
    assert trained.export("--stage", 1, "--to", model, "--adapter-only").returncode == 2
    trained.export.done("--stage", 1, "--to", model, "--adapter-only", "--force")
    assert "rank 4" in (model / "README.md").read_text()
    assert not (model / "left.txt").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "taken"]


@pytest.mark.parametrize("destination", [".", "out", "out/lora_stage1", "stages"])
def test_force_does_not_replace_the_curriculum_itself(trained: Curriculum, destination: str) -> None:
    refusal = trained.export("--stage", 1, "--to", destination, "--force")
    assert refusal.returncode == 2
    assert "--to" in refusal.stderr
    assert (trained.stage_dir(1) / "stage.json").is_file()


def test_what_may_not_be_read_or_written_is_explained(trained: Curriculum, tmp_path: Path) -> None:
    """The place of the model is input; an adapter that cannot be read is a failure with a log beside it."""
    curriculum, closed = trained.copy_to(tmp_path / "curriculum"), tmp_path / "closed"
    closed.mkdir(mode=0o555)

    def exported(to: Path) -> tuple[int, str]:
        options = {
            "preexec_fn": bound_by_permissions,
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.PIPE,
        }
        with curriculum.export.begun("--stage", 1, "--to", to, text=True, **options) as process:
            return process.wait(60), process.stderr.read()

    code, said = exported(closed / "model")
    assert code == 2, said
    assert f"expected: a folder in one that can be written; {closed} cannot" in said
    (curriculum.stage_dir(1) / "adapter_model.safetensors").chmod(0)
    code, said = exported(tmp_path / "model")
    assert code == 1, said
    assert said.startswith("export.py failed: not allowed\n    remedy:   change its owner or permissions")
    assert said.endswith(f"    log:      {tmp_path}/model.failure.log\n")
    assert "Traceback (most recent call last):" in (tmp_path / "model.failure.log").read_text()
    assert "Traceback" not in said


def test_an_interrupt_leaves_nothing(trained: Curriculum, tmp_path: Path) -> None:
    code, _, err = trained.export.interrupted("--stage", 3, "--to", tmp_path / "model", at="exporting")
    assert code == 130
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []
