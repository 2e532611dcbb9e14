"""Three stages through the real command: what they leave behind, and what a second run does."""

import json
import math
from fnmatch import fnmatch

import pytest
from tiny_curriculum import STAGES, Curriculum
from train_command import SECRET

STEPS = {1: 4, 2: 5, 3: 4}
EVALUATED = {1: (2, 4), 2: (2, 4, 5), 3: (2, 4)}
CHECKPOINTS = {1: (2, 4), 2: (4, 5), 3: (2, 4)}
# Leaves a stage folder beside checkpoints.
FILES = {
    "README.md",
    "adapter_config.json",
    "adapter_model.safetensors",
    "chat_template.jinja",
    "evaluation_set.json",
    "report.html",
    "stage.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tracking.json",
}
MERGED_FILES = {
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "merge.json",
    "merge_proof.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}
# Rank 4 on four attention projections and on the experts of two layers, by hand: q and o 64x64, k and v
# 64x32; four experts with gate and up stacked (64 -> 64) and down (32 -> 64).
ATTENTION = 2 * 4 * (2 * (64 + 64) + 2 * (64 + 32))
EXPERTS = 2 * 4 * 4 * ((64 + 64) + (32 + 64))


def test_all_stages_leave_their_folders_and_nothing_else(trained: Curriculum) -> None:
    names = {path.name for path in (trained.folder / "out").iterdir()}
    assert names == {f"lora_stage{n}" for n in STAGES} | {f"lora_stage{n}_merged_base" for n in (2, 3)}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_leaves_exactly_the_documented_files(trained: Curriculum, stage: int) -> None:
    present = {path.name for path in trained.stage_dir(stage).iterdir()}
    checkpoints = {f"checkpoint-{step}" for step in CHECKPOINTS[stage]}
    evaluations = {f"gen_metrics_step{step}.json" for step in EVALUATED[stage]}
    assert present == FILES | checkpoints | evaluations


@pytest.mark.parametrize("stage", [2, 3])
def test_a_merged_base_is_an_ordinary_model_folder(trained: Curriculum, stage: int) -> None:
    assert {path.name for path in trained.merged_base(stage).iterdir()} == MERGED_FILES
    config = json.loads((trained.merged_base(stage) / "config.json").read_text())
    assert (config["model_type"], config["dtype"]) == ("qwen3_moe", "bfloat16")


@pytest.mark.parametrize("stage", STAGES)
def test_plain_peft_loads_every_adapter(trained: Curriculum, stage: int, tiny_base) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder = trained.merged_base(stage) if stage > 1 else tiny_base
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        without = base(ids).logits.clone()
        model = PeftModel.from_pretrained(base, trained.stage_dir(stage))
        assert (model(ids).logits - without).abs().max() > 1e-3
    assert sum(p.numel() for n, p in model.named_parameters() if "lora_" in n) == ATTENTION + EXPERTS


@pytest.mark.parametrize("stage", STAGES)
def test_the_record_holds_data_adapter_training_and_versions(trained: Curriculum, stage: int) -> None:
    record = trained.record(stage)
    assert record["stage"] == stage
    adapter = record["adapter"]
    assert (adapter["attention"], adapter["experts"], adapter["router"]) == (ATTENTION, EXPERTS, 0)
    assert adapter["trainable"] == ATTENTION + EXPERTS
    assert adapter["dtype"] == "bf16"
    assert record["training"]["steps"] == STEPS[stage]
    losses = [entry["loss"] for entry in record["training"]["history"] if "loss" in entry]
    assert len(losses) == STEPS[stage]
    assert all(0 < loss < math.log(512) + 1 for loss in losses)
    evaluated = [entry["eval_loss"] for entry in record["training"]["history"] if "eval_loss" in entry]
    assert len(evaluated) == len(CHECKPOINTS[1]) + (stage == 2)
    assert record["training"]["final_eval"]["eval_loss"] == min(evaluated) < evaluated[0]
    for library in ("python", "code", "torch", "transformers", "peft", "trl", "deepspeed", "mlflow"):
        assert record["versions"][library] not in ("", "not installed")


def test_the_ledger_of_the_mix_adds_up(trained: Curriculum) -> None:
    """Stage 2: 20 and 8 rows, 4 and 2 of them held out; weights 1 and 2 share 16 rows as 5 and 11; then the
    draws labelled toml are multiplied by 1.5."""
    ledger = trained.record(2)["data"]["ledger"]
    lines = {line["id"]: line for line in ledger["sources"]}
    assert [lines[name]["drawn"] for name in ("general.jsonl", "toml.jsonl")] == [5, 11]
    assert lines["toml.jsonl"]["upsampled"] == 17
    assert ledger["upsampled"] == sum(line["upsampled"] for line in lines.values())
    assert ledger["validation"] == 6
    labels = {line["value"]: line for line in ledger["labels"] if line["field"] == "format"}
    assert sum(line["drawn"] for line in labels.values()) == ledger["upsampled"]
    assert not ledger["estimated"]
    assert 0 < ledger["encoded"]["supervised"] < ledger["encoded"]["tokens"]


def test_the_record_names_base_and_parents(trained: Curriculum, tiny_base) -> None:
    records = {stage: trained.record(stage) for stage in STAGES}
    assert not records[1]["base"]["merged"]
    assert records[1]["parents"] == []
    for stage in (2, 3):
        assert records[stage]["base"]["merged"]
        assert records[stage]["base"]["stage0"] == str(tiny_base)
        assert [(parent["stage"], parent["adapter_sha256"]) for parent in records[stage]["parents"]] == [
            (earlier, records[earlier]["adapter_sha256"]) for earlier in range(1, stage)
        ]
    assert len({record["base"]["fingerprint"] for record in records.values()}) == 1
    assert len({record["base"]["key"] for record in records.values()}) == 3


def test_settings_of_a_stage_come_from_its_own_file(trained: Curriculum) -> None:
    """An earlier stage of the same command must leave no setting behind, in the environment for instance."""
    for stage in STAGES:
        origins = trained.record(stage)["origins"]
        given = {key: origin for key, origin in origins.items() if origin != "default"}
        assert {key for key, origin in given.items() if not fnmatch(origin, f"*stage{stage}.env:*")} == set()


def test_no_secret_is_written_anywhere(trained: Curriculum) -> None:
    """HF_TOKEN stands in every stage file and in the environment."""
    written = [path for name in ("out", "mlruns", "said.txt") for path in _files(trained, name)]
    assert len(written) > 50
    assert [path for path in written if SECRET.encode() in path.read_bytes()] == []


def _files(curriculum: Curriculum, name: str) -> list:
    top = curriculum.folder / name
    return [path for path in (top, *top.rglob("*")) if path.is_file()]


def test_no_unfinished_file_is_left(trained: Curriculum) -> None:
    assert [name for name in trained.left_behind() if name.endswith((".part", "running.json"))] == []


def test_generation_metrics_hold_scores_and_samples(trained: Curriculum) -> None:
    metrics = json.loads((trained.stage_dir(1) / "gen_metrics_step4.json").read_text())
    assert metrics["step"] == 4
    for when in ("before", "after"):
        scores = metrics[when]["metrics"]
        assert scores["gen_samples"] == 4
        assert {"heldout_loss", "gen_end_stop_rate", "gen_mean_new_tokens", "gen_parse_rate"} <= scores.keys()
    assert metrics["after"]["metrics"]["heldout_loss"] < metrics["before"]["metrics"]["heldout_loss"]
    assert [len(metrics[name]) for name in ("samples", "samples_before")] == [4, 4]
    for sample in metrics["samples"]:
        assert "Output:" in sample["reference"]
        assert sample["tokens"] <= 6


def test_the_model_card_says_what_the_adapter_is(trained: Curriculum) -> None:
    card = (trained.stage_dir(2) / "README.md").read_text()
    assert card.startswith("---\nbase_model: ")
    assert "library_name: peft" in card
    assert "the adapters of stage 1 merged" in card
    assert f"{EXPERTS:,} of them in experts" in card
    rows = {line["id"]: line["trained"] for line in trained.record(2)["data"]["ledger"]["sources"]}
    assert sum(rows.values()) == STEPS[2] * 2  # two rows a step
    for name, count in rows.items():
        assert f"| {name} | {count} |" in card
    assert "heldout_loss" in card


def test_status_says_complete_with_scores(trained: Curriculum) -> None:
    lines = trained.status()
    assert len(lines) == 3
    for stage, line in zip(STAGES, lines, strict=True):
        assert line.startswith(f"stage {stage}  complete")
        assert f"{STEPS[stage]} steps" in line
        assert "eval_loss" in line
        assert "heldout_loss" in line


def test_a_second_run_of_all_trains_nothing(trained: Curriculum) -> None:
    before = {name: (trained.folder / name).stat().st_mtime_ns for name in trained.left_behind()}
    said = trained.train("all")
    assert said.count("up to date, left alone") == 3
    assert "step " not in said
    assert {name: (trained.folder / name).stat().st_mtime_ns for name in trained.left_behind()} == before


def test_dropout_reaches_the_experts(trained: Curriculum) -> None:
    """Stage 1 asks for dropout; a notice would name what it does not act on."""
    assert not any("SFT_LORA_DROPOUT" in notice for notice in trained.record(1)["notices"])
