"""Losses of evaluations that are no numbers: what is said, and that the real trainer never takes one for a
score."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lib.data.chat.encoded import EncodedRow
from lib.data.order.order import TrainingOrder
from lib.data.order.packing import rows_alone
from lib.settings import RunError, StageSettings
from lib.training.numerics.unmeasured import Unmeasured, not_finite

BROKEN_TOKEN, BROKEN_ROW = 60, 2


def row(number: int, *, broken: bool = False) -> EncodedRow:
    ids = [4, 5, 6 + number, BROKEN_TOKEN if broken else 9, 2]
    return EncodedRow(f"s#{number}", "s", (), "ok", ids, [False, False, True, True, True], 3)


TRAINED = tuple(row(number) for number in range(8))
ASKED = tuple(row(number, broken=number == BROKEN_ROW) for number in range(5))

Fit = Callable[..., Any]


@pytest.fixture
def fit_stage(tiny_model: Callable[..., Path], stage: Callable[..., StageSettings]) -> Fit:
    """fit_stage(generation, **keys): FitResult and folder of four steps with two evaluations, in which the
    embedding of one validation row is not a number."""
    import torch

    from lib.model.adapter import attach_lora
    from lib.model.base import ComputeChoice, StageBase, load_base, load_tokenizer
    from lib.model.targets import find_targets
    from lib.training.batches import choose_batch_form
    from lib.training.processes.process_group import Processes
    from lib.training.sizing.world import World
    from lib.training.trainer import fit

    def run(generation: Any = None, **keys: Any) -> tuple[Any, Path]:
        folder = tiny_model("qwen3_moe")
        steps = {"SFT_MAX_STEPS": 4, "SFT_EVAL_STEPS": 2, "SFT_SAVE_STEPS": 2, "SFT_LOGGING_STEPS": 1}
        batch = {"SFT_PER_DEVICE_TRAIN_BS": 2, "SFT_GRAD_ACCUM": 1, "SFT_PER_DEVICE_EVAL_BS": 2}
        settings = stage(SFT_BASE_MODEL=folder, SFT_EARLY_STOPPING_PATIENCE=1, **(steps | batch | keys))
        base = StageBase(str(folder), "", str(folder), merged=False, reused=False, seconds=0.0)
        model = load_base(base, ComputeChoice(torch.float32, "sdpa", ""), on_gpu=False)
        form = choose_batch_form(model, TRAINED, packing=False)
        model.get_input_embeddings().weight.data[BROKEN_TOKEN] = math.nan
        model, _ = attach_lora(
            model, find_targets(model, settings.lora.target_modules), settings.lora, seed=1
        )
        order, packs = TrainingOrder(len(TRAINED), settings.seed), rows_alone(len(TRAINED))
        data: Any = SimpleNamespace(train=TRAINED, packs=packs, order=order)
        processes = Processes(settings, World(1, 0), torch.float32, evaluates=True)
        tokenizer = load_tokenizer(settings.model)
        result = fit(
            model, tokenizer, data, ASKED, settings, processes, form, callbacks=[], generation=generation
        )
        return result, settings.stage_dir

    return run


def bad_batches(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "bad_batches.jsonl").read_text().splitlines()]


def strict(path: Path) -> Any:
    """JSON as its standard has it."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in {path}")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_what_is_said() -> None:
    losses = [("a#1", 2.0), ("a#2", math.nan), ("a#3", math.inf)]
    assert Unmeasured.of("evaluation at step 4", "eval_loss", 2.0, losses) is None
    wrong = Unmeasured.of("evaluation at step 4", "eval_loss", math.nan, losses)
    assert wrong is not None
    said = "evaluation at step 4: the eval_loss is not a number"
    assert wrong.line == f"[WARNING] {said}; left out, it is no score; rows a#2, a#3"
    assert str(RunError(wrong.problem("f.jsonl"))).startswith(said)
    assert "rows a#2, a#3 (all in f.jsonl)" in str(RunError(wrong.problem("f.jsonl")))
    assert not_finite("loss", -math.inf) == "the loss is infinite"


def test_by_default_the_run_ends_and_the_row_is_written_down(fit_stage: Fit, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="evaluation at step 2: the eval_loss is not a number") as stopped:
        fit_stage()
    assert f"rows s#{BROKEN_ROW} (all in " in str(stopped.value)
    assert "SFT_ON_NAN=skip" in str(stopped.value)
    (path,) = tmp_path.rglob("bad_batches.jsonl")
    (entry,) = bad_batches(path.parent)
    assert (entry["step"], entry["done"]) == (2, "stopped")
    ((found),) = entry["evaluation"]
    assert (found["row"], found["loss"]) == (f"s#{BROKEN_ROW}", "nan")


def test_left_out_it_is_never_the_best_nor_a_point_of_the_curve(
    fit_stage: Fit, capsys: pytest.CaptureFixture[str]
) -> None:
    result, folder = fit_stage(SFT_ON_NAN="skip")
    assert (result.steps, result.best_step, result.best_metric, result.kept_step) == (4, None, None, 4)
    assert "eval_loss" not in result.final_eval
    evaluated = [entry for entry in result.history if "eval_runtime" in entry]
    assert [entry["step"] for entry in evaluated] == [2, 4]
    assert not any("eval_loss" in entry for entry in evaluated)
    assert [entry["done"] for entry in bad_batches(folder)] == ["left out"] * 2
    assert capsys.readouterr().out.count("[WARNING] evaluation at step ") == 2
    (notice,) = result.notices
    assert "without a score, which is never the best: 2, step 2: the eval_loss is not a number; " in notice
    checked = [strict(path) for path in folder.rglob("*.json")]
    assert len(checked) > 4


def test_a_metric_that_says_nothing_of_some_answers_is_not_the_best(fit_stage: Fit) -> None:
    """Precision, where nothing was called positive. transformers would end the run."""
    metrics = iter(({"gen_samples": 4.0}, {"gen_samples": 4.0, "gen_leaf_f1": 0.0}))
    result, _ = fit_stage(
        lambda *_: next(metrics), SFT_ON_NAN="skip", SFT_BEST_METRIC="gen_leaf_f1", SFT_GEN_EVAL_EVERY=1
    )
    assert (result.best_step, result.best_metric) == (4, 0.0)
    assert any("gen_leaf_f1 says nothing of these answers" in notice for notice in result.notices)
