"""The check of a whole stage, in this process: verdicts, table, JSON, exit code; it leaves nothing behind."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib.preflight import check
from lib.preflight.trainability import Probed
from lib.training.sizing.world import World

SOUND = {
    "settings", "output folder", "packages", "earlier stages", "torch", "DeepSpeed", "memory", "disk",
    "MLflow", "base model", "data", "chat template", "end token", "padding", "context length",
    "number type", "attention", "targets",
}  # fmt: skip
States = Callable[..., dict[str, str]]


def test_a_sound_stage(states: States, curriculum: Any) -> None:
    before = sorted(curriculum.root.rglob("*"))
    assert states() == dict.fromkeys(SOUND, "ok")
    assert [path for path in sorted(curriculum.root.rglob("*")) if path not in before] == [
        curriculum.stages / "stage1.env"
    ]


def test_settings_that_are_wrong(states: States) -> None:
    assert states(SFT_LR="fast", SFT_EPOCHSS=1) == {"settings": "failed"}
    assert "Did you mean SFT_EPOCHS?" in str(states.checked.to_json())


@pytest.mark.parametrize(
    ("name", "keys", "says"),
    [
        ("output folder", {"SFT_OUT_LORA_DIR": "{root}/rows.jsonl/out"}, "is not a folder"),
        ("base model", {"SFT_BASE_MODEL": "./nowhere"}, "a model folder that exists"),
        ("data", {"SFT_DATASET_ID": "./absent.jsonl"}, "exists"),
        ("data", {"SFT_MAX_SEQ_LEN": 8}, "SFT_MAX_SEQ_LEN"),
        ("data", {"SFT_OUTPUT_MARKERS": "answer", "SFT_OUTPUT_LEARN_MODE": "after_marker"}, None),
        ("chat template", {"SFT_CHAT_TEMPLATE": "qwen3_instruct"}, "a bundled template"),
        ("targets", {"SFT_LORA_TARGET_MODULES": "q_proj,banana_proj"}, "banana_proj"),
        ("attention", {"SFT_ATTENTION": "flash_attention_2"}, "there is no CUDA device"),
    ],
)
def test_what_keeps_a_stage_from_running(
    states: States, curriculum: Any, name: str, keys: dict[str, Any], says: str | None
) -> None:
    found = states(**{key: str(value).format(root=curriculum.root) for key, value in keys.items()})
    if says is None:
        assert found[name] == "ok"
        return
    assert found[name] == "failed"
    assert says in states.says[name]


def test_the_first_failures_do_not_hide_the_others(states: States, tmp_path: Path) -> None:
    own = tmp_path / "own.json"
    own.write_text(json.dumps({"train_batch_size": 64}))
    found = states(
        SFT_DATASET_ID="./absent.jsonl",
        SFT_CHAT_TEMPLATE="qwen3_instruct",
        SFT_LORA_TARGET_MODULES="banana_proj",
        SFT_DEEPSPEED_CONFIG=own,
        MLFLOW_TRACKING_URI="file:./mlruns",
    )
    failed = {name for name, state in found.items() if state == "failed"}
    assert failed == {"data", "chat template", "targets", "DeepSpeed"}
    assert found["MLflow"] == "warning"


def test_data_that_may_not_be_read_does_not_hide_the_others(
    states: States, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "rows.jsonl")

    monkeypatch.setattr(check, "plan_rows", closed)
    found = states(SFT_ATTENTION="flash_attention_2")
    assert set(found) == SOUND
    assert {name for name, state in found.items() if state == "failed"} == {"data", "attention"}
    assert "Permission denied: 'rows.jsonl'" in states.says["data"]


def test_a_tokenizer_without_an_end_token(states: States, curriculum: Any) -> None:
    path = curriculum.base / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config.pop("eos_token")
    path.write_text(json.dumps(config))
    (curriculum.base / "chat_template.jinja").write_text(
        "{%- for m in messages %}{{- m.role + ': ' + m.content + '\\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- 'assistant: ' }}{%- endif %}"
    )
    assert states()["end token"] == "failed"
    assert "never learns to stop" in states.says["end token"]


def test_a_tokenizer_that_is_larger_than_the_model(states: States, curriculum: Any) -> None:
    path = curriculum.base / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "vocab_size": 40}))
    assert states()["tokenizer"] == "warning"


@pytest.mark.parametrize(
    ("positions", "family", "state"),
    [(512, "qwen3_moe", "ok"), (16, "qwen3_moe", "warning"), (16, "gpt2", "failed")],
)
def test_rows_longer_than_the_models_positions(
    states: States, curriculum: Any, positions: int, family: str, state: str
) -> None:
    path = curriculum.base / "config.json"
    config = {**json.loads(path.read_text()), "max_position_embeddings": positions, "model_type": family}
    path.write_text(json.dumps({**config, "n_positions": positions}))
    keys = {"SFT_LORA_TARGET_MODULES": "all-linear"} if family == "gpt2" else {}
    assert states(**keys)["context length"] == state
    assert f"{positions}" in states.says["context length"]


def test_later_stages_are_checked_without_the_adapters_of_earlier_ones(
    states: States, curriculum: Any
) -> None:
    curriculum.stage(1)
    assert states(2)["earlier stages"] == "failed"
    assert "python train.py --stage 1 first" in states.says["earlier stages"]
    assert states(2, chosen=(1, 2))["earlier stages"] == "ok"
    assert "stage 1 trained first by this command" in states.says["earlier stages"]
    curriculum.train(1)
    states(2, chosen=(1, 2))
    assert states.says["earlier stages"] == "stage 1 in order | "


def test_another_template_than_that_of_the_stage_below(states: States, curriculum: Any) -> None:
    curriculum.stage(1)
    curriculum.train(1)
    assert states(2, SFT_CHAT_TEMPLATE="alpaca")["chat template"] == "failed"
    found = states(2, SFT_CHAT_TEMPLATE="alpaca", SFT_ALLOW_TEMPLATE_CHANGE=1)
    assert found["chat template"] == "warning"


def test_what_has_to_be_downloaded_is_asked_for_and_offline_is_said(
    states: States, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    found = states(SFT_BASE_MODEL="owner/absent-model")
    assert found["base model"] == "failed"
    assert "HF_HUB_OFFLINE" in states.says["base model"]
    assert found["targets"] == "warning"


def test_the_whole_check_with_its_probe(
    checked: Callable[..., int], curriculum: Any, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    curriculum.stage(1)
    before = sorted(curriculum.root.rglob("*"))
    assert checked("--stage", "1", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["ok"]
    states = {verdict["name"]: verdict["state"] for verdict in found["verdicts"]}
    assert {"gradient: attention", "gradient: experts", "a step", "end token learned", "time"} <= set(states)
    assert set(states.values()) == {"ok"}
    assert found["census"]["experts"] > found["census"]["router"] == 0
    assert list(found["seconds"])[:2] == ["load", "attach"]
    assert found["projected_seconds"] > 0
    assert sorted(curriculum.root.rglob("*")) == before


def test_the_table_and_the_exit_code(
    checked: Callable[..., int], curriculum: Any, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    curriculum.stage(1)
    curriculum.stage(2, SFT_LORA_TARGET_MODULES="banana_proj")
    assert checked("--stage", "all", chosen=(1, 2)) == 2
    shown = capsys.readouterr().out
    first, second = shown.split("Stage 2")
    assert "gradient: experts" in first
    assert "remedy: correct or remove the names that the model does not have" in " ".join(second.split())
    assert "left out: something above has to be mended first" in second
    assert "1 failed, 1 warning" in second


def test_later_stages_are_probed_on_the_stage0_base(
    checked: Callable[..., int], curriculum: Any, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    curriculum.stage(1)
    curriculum.stage(2)
    assert checked("--stage", "all", "--json", chosen=(1, 2)) == 0
    _, second = json.loads(capsys.readouterr().out)
    (base,) = [verdict for verdict in second["verdicts"] if verdict["name"] == "base"]
    assert base["state"] == "warning"
    assert "the adapters of stage 1 are not merged yet" in base["found"]


def test_damaged_weights_are_explained(
    checked: Callable[..., int], curriculum: Any, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    curriculum.stage(1)
    path = weights / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    assert checked("--stage", "1", "--json") == 2
    (found,) = json.loads(capsys.readouterr().out)
    last = found["verdicts"][-1]
    assert (last["name"], last["state"]) == ("probe", "failed")
    assert "fetch it again" in last["remedy"]


def test_an_unknown_failure_of_the_probe_keeps_its_traceback(
    checked: Callable[..., int], curriculum: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lib.preflight import check

    def broken(subject: Any) -> Probed:
        raise KeyError("an error of our own")

    monkeypatch.setattr(check, "probe_stage", broken)
    curriculum.stage(1)
    with pytest.raises(KeyError):
        checked("--stage", "1")


def test_several_processes_are_checked_as_several(states: States) -> None:
    assert states(world=World(2, 0))["DeepSpeed"] == "ok"
    assert states.says["DeepSpeed"].startswith("2 processes on CPU, DeepSpeed ZeRO-2")
