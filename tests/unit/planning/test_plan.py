import io
import json
import math
from typing import Any

import pytest
from rich.console import Console

from lib.data.chat.chat_format import ChatFormat
from lib.data.prepare import plan_rows
from lib.planning.estimates import readable_bytes
from lib.planning.plan import StagePlan, make_plan
from lib.planning.plan_text import print_plan
from lib.planning.stage_batch import with_batch
from lib.training.sizing.world import World

# Rank 16 on all targets of the base in two layers: attention of 32 x 32 and 32 x 16, four experts 16 wide.
TRAINABLE = 16 * 2 * (2 * (32 + 32) + 2 * (32 + 16) + 4 * ((32 + 32) + (16 + 32)))


def plan_of(curriculum: Any, number: int, *, chosen: tuple[int, ...] = (), **keywords: Any) -> StagePlan:
    options = {"world": World(1, 0), "runs_before": (), "forced": False} | keywords
    stage = with_batch(curriculum.surveyed(number, chosen=chosen or (number,)), options["world"])
    planned = plan_rows(stage.settings, ChatFormat.load(curriculum.base))
    return make_plan(stage, planned, **options)


def text_of(plan: StagePlan) -> str:
    out = io.StringIO()
    print_plan(plan, Console(file=out, width=200, highlight=False))
    return out.getvalue()


def test_a_plan_is_plain_json_with_all_that_would_run(curriculum: Any) -> None:
    curriculum.stage(1, SFT_EPOCHS=2, SFT_GRAD_ACCUM=4, SFT_LR="2e-4")
    plan = plan_of(curriculum, 1)
    shown = json.loads(json.dumps(plan.to_json()))
    assert (shown["stage"], shown["state"], shown["will_run"]) == (1, "missing", True)
    # 40 rows, 2 held out; 19 batches of 2; 5 updates an epoch.
    assert shown["steps"] == 2 * 5
    assert shown["tokens"] == 2 * shown["ledger"]["encoded"]["tokens"]
    assert shown["values"]["SFT_LR"] == "2e-4"
    assert shown["origins"]["SFT_LR"].endswith("stage1.env:7")
    assert shown["origins"]["SFT_SEED"] == "default"
    assert shown["base"]["here"] is True
    assert shown["base"]["architecture"] == "qwen3_moe, 2 layers, 4 experts, 2 per token"
    assert shown["base"]["trainable"] > 0
    assert set(shown["estimates"]) == {"memory", "disk", "time"}
    assert shown["world"] == "1 process on CPU, no sharding needed"
    assert shown["problems"] == []
    assert shown["parents"] == []


def test_the_merged_base_is_as_large_as_the_files_of_the_base(curriculum: Any) -> None:
    curriculum.stage(1)
    curriculum.stage(2)
    assert plan_of(curriculum, 1).estimates["disk"].arithmetic.startswith("merged base 0 B")
    curriculum.train(1)
    guessed = plan_of(curriculum, 2).estimates["disk"]
    (curriculum.base / "model.safetensors").write_bytes(bytes(123_456))
    curriculum.train(1)
    counted = plan_of(curriculum, 2).estimates["disk"]
    assert counted.arithmetic.startswith("merged base 123.5 kB")
    assert not guessed.arithmetic.startswith("merged base 0 B")
    assert counted.arithmetic.endswith(" free")


def test_stacked_stages_need_memory_and_no_disk(curriculum: Any) -> None:
    """Earlier adapters are taken to be as large as the present one."""
    curriculum.stage(1)
    curriculum.train(1)
    curriculum.stage(2, SFT_MERGE_MODE="stack")
    curriculum.stage(3, SFT_MERGE_MODE="stack")
    for number in (2, 3):
        plan = plan_of(curriculum, number, runs_before=(2,))
        assert plan.base["trainable"] == TRAINABLE
        assert plan.base["earlier_stages"] == "stacked"
        assert plan.estimates["disk"].arithmetic.startswith("merged base 0 B")
        beside = readable_bytes(4 * number * TRAINABLE)
        assert f"factors of earlier stages {beside} " in plan.estimates["memory"].arithmetic
        assert "  stacked  stage 1  " in text_of(plan)
    assert "factors of earlier" not in plan_of(curriculum, 1).estimates["memory"].arithmetic


def test_processes_share_the_steps(curriculum: Any) -> None:
    curriculum.stage(1, SFT_GRAD_ACCUM=1, SFT_PER_DEVICE_TRAIN_BS=1)
    assert plan_of(curriculum, 1).steps == 38
    assert plan_of(curriculum, 1, world=World(2, 0)).steps == 19


def test_packed_sequences_are_what_steps_count(curriculum: Any) -> None:
    curriculum.stage(1, SFT_PACKING=1, SFT_MAX_SEQ_LEN=256, SFT_GRAD_ACCUM=2, SFT_PER_DEVICE_TRAIN_BS=1)
    plan = plan_of(curriculum, 1, world=World(2, 0))
    assert plan.ledger is not None
    packed = plan.ledger["packed"]
    assert (packed["rows"], plan.batch["global_batch"]) == (38, 4)
    assert 4 < packed["packs"] < 20
    assert plan.steps == math.ceil(math.ceil(packed["packs"] / 2) / 2)
    assert plan.tokens == plan.ledger["encoded"]["tokens"]
    text = " ".join(text_of(plan).split())
    assert f"packing {packed['packs']} sequences of at most 256 tokens, " in text
    rows = 4 * 38 / packed["packs"]
    assert f"rows each; a step takes 4 of them, about {rows:.0f} rows" in text
    curriculum.stage(1)
    assert "packing" not in text_of(plan_of(curriculum, 1)).replace("SFT_PACKING", "")


def test_what_runs_and_what_is_left_alone(curriculum: Any) -> None:
    curriculum.stage(1)
    curriculum.train(1)
    assert not plan_of(curriculum, 1).will_run
    assert "up to date, will be left alone" in text_of(plan_of(curriculum, 1))
    assert plan_of(curriculum, 1, forced=True).will_run
    curriculum.stage(2)
    curriculum.train(2)
    assert not plan_of(curriculum, 2).will_run
    assert plan_of(curriculum, 2, runs_before=(1,)).will_run


def test_parents_with_their_state(curriculum: Any) -> None:
    for number in (1, 2, 3, 4):
        curriculum.stage(number)
    curriculum.train(1)
    curriculum.train(2)
    curriculum.stage(1, SFT_LR="7e-5")
    plan = plan_of(curriculum, 4, runs_before=(3,))
    assert [(parent["stage"], parent["state"]) for parent in plan.parents] == [
        (1, "stale"),
        (2, "stale"),
        (3, "trained first by this command"),
    ]
    assert [problem.key for problem in plan.problems] == ["stage 1", "stage 2"]
    text = text_of(plan)
    assert "SFT_LR changed from 1e-4 to 7e-5" in text
    (curriculum.folder(2) / "stage.json").unlink()
    assert plan_of(curriculum, 4).parents[1]["state"] == "no stage.json"
    assert plan_of(curriculum, 4).parents[2]["state"] == "missing"


def test_the_text_shows_mix_costs_and_where_settings_came_from(curriculum: Any) -> None:
    curriculum.stage(1, SFT_LR="2e-4")
    text = text_of(plan_of(curriculum, 1))
    for piece in ("will run", "rows.jsonl", "learned tokens", "task: json", "steps    3", "about", "2e-4"):
        assert piece in text, piece
    assert text.index("SFT_LR") < text.index("SFT_SEED")


def test_a_mix_in_tokens_shows_what_was_given_beside_what_was_asked_for(curriculum: Any) -> None:
    curriculum.stage(1, SFT_MIX_UNIT="tokens", SFT_DATASET_MIX_TOTAL_SIZE=200)
    plan = plan_of(curriculum, 1)
    (line,) = plan.ledger["sources"]
    assert line["requested"] == 200
    assert abs(line["realised"] - 200) < 20
    text = text_of(plan)
    assert "mix, weights and requests in tokens" in text
    assert f"200.0 {line['realised']:.0f}" in " ".join(text.split())
    curriculum.stage(1)
    assert "realised" not in text_of(plan_of(curriculum, 1))


def test_a_measured_speed_beats_an_assumed_one(curriculum: Any) -> None:
    curriculum.stage(1)
    assert "assumed" in plan_of(curriculum, 1).estimates["time"].arithmetic
    curriculum.train(1)
    assert "measured 50 tokens/s" in plan_of(curriculum, 1).estimates["time"].arithmetic
    curriculum.stage(2)
    assert "measured 50 tokens/s" in plan_of(curriculum, 2).estimates["time"].arithmetic


@pytest.mark.parametrize("markup", ["[bold]x[/]", "[/nonsense]", "[red"])
def test_values_that_look_like_markup_are_shown_as_they_are(markup: str, curriculum: Any) -> None:
    curriculum.stage(1, SFT_OUTPUT_MARKERS=markup)
    assert markup in text_of(plan_of(curriculum, 1))


def test_without_base_and_data_the_plan_says_so(curriculum: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(curriculum.root / "cache"))
    curriculum.stage(1, SFT_BASE_MODEL="owner/model", SFT_DATASET_ID="owner/set")
    stage = with_batch(curriculum.surveyed(1), World(1, 0))
    plan = make_plan(stage, plan_rows(stage.settings, None), World(1, 0), runs_before=(), forced=False)
    assert (plan.steps, plan.estimates, plan.absent) == (None, {}, ("owner/set",))
    text = text_of(plan)
    assert "owner/set is not on this machine" in text
    assert "the run downloads it" in text


def test_quantised_loading_is_shown_and_what_it_does_not_reach(curriculum: Any) -> None:
    """The base of this curriculum has experts."""
    curriculum.stage(1, SFT_QUANTIZATION="nf4")
    curriculum.train(1)
    curriculum.stage(2, SFT_QUANTIZATION="nf4-double")
    plan = plan_of(curriculum, 2)
    shown = " ".join(text_of(plan).split())
    assert "loaded as nf4 with double quantisation" in shown
    assert "merged into the unquantised weights, quantised when they are loaded" in shown
    (warning,) = [notice for notice in plan.notices if "SFT_QUANTIZATION reaches" in notice]
    assert warning in shown
    assert plan.problems == ()
    curriculum.stage(2, SFT_QUANTIZATION="none")
    plain = plan_of(curriculum, 2)
    assert "nf4" not in text_of(plain).partition("settings")[0]
    assert not [notice for notice in plain.notices if "SFT_QUANTIZATION" in notice]


def test_the_plan_shows_the_batch_and_why(curriculum: Any) -> None:
    curriculum.stage(1, SFT_PER_DEVICE_TRAIN_BS="auto", SFT_GLOBAL_BATCH_SIZE=8, SFT_MAX_SEQ_LEN=64)
    plan = plan_of(curriculum, 1, world=World(2, 0))
    assert (plan.batch["rows"], plan.batch["passes"], plan.batch["global_batch"]) == (4, 1, 8)
    assert plan.values["SFT_PER_DEVICE_TRAIN_BS"] == "4"
    line = "  batch 4 rows x 1 pass x 2 processes = 8 rows a step; gradient checkpointing off; about "
    assert plan.batch["line"].startswith(line)
    assert plan.batch["line"] in text_of(plan)
    # The estimate under costs is for the longest row that there is, the choice for the longest allowed.
    assert (
        f"4 rows of {plan.ledger['encoded']['longest']} tokens: weights"
        in plan.estimates["memory"].arithmetic
    )
