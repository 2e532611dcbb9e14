from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lib.data.chat.encoded import EncodedRow
from lib.data.order.order import TrainingOrder
from lib.data.order.packing import rows_alone
from lib.settings import StageSettings
from lib.training.trainer import FitResult, _final_eval


def row(ids: list[int], supervised: list[bool]) -> EncodedRow:
    return EncodedRow("s#0", "s", (), "ok", ids, supervised, answer_tokens=1)


def trainer(log: list[dict[str, Any]], *, best: int | None, step: int, loads_best: bool) -> Any:
    evaluated: list[int] = []

    def evaluate() -> dict[str, Any]:
        evaluated.append(step)
        return {"eval_loss": 9.0, "eval_runtime": 1.0, "note": "text"}

    return SimpleNamespace(
        state=SimpleNamespace(best_global_step=best, global_step=step, log_history=log),
        args=SimpleNamespace(load_best_model_at_end=loads_best),
        evaluate=evaluate,
        evaluated=evaluated,
    )


LOG = [
    {"loss": 3.0, "step": 5},
    {"eval_loss": 2.0, "eval_runtime": 1.0, "step": 5},
    {"eval_loss": 2.5, "eval_runtime": 1.0, "step": 10},
]


def test_the_final_score_is_that_of_the_best_weights_when_they_are_loaded() -> None:
    kept = trainer(LOG, best=5, step=10, loads_best=True)
    assert _final_eval(kept)["eval_loss"] == 2.0
    last = trainer(LOG, best=5, step=10, loads_best=False)
    assert _final_eval(last)["eval_loss"] == 2.5
    assert kept.evaluated == last.evaluated == []


def test_weights_that_were_never_evaluated_are_evaluated_once() -> None:
    later = trainer(LOG, best=5, step=12, loads_best=False)
    assert _final_eval(later) == {"eval_loss": 9.0, "eval_runtime": 1.0}
    assert later.evaluated == [12]


def test_speed_of_a_run() -> None:
    result = FitResult(2, 1.0, 300, 1.5, {}, None, 2, None, 1, [])
    assert result.tokens_per_second == 200
    assert result.to_json()["tokens_per_second"] == 200
    assert FitResult(0, 0.0, 0, 0.0, {}, None, 0, None, 1, []).tokens_per_second == 0


@pytest.mark.filterwarnings("ignore")
def test_a_short_run_learns_and_says_what_it_did(
    tiny_model: Callable[..., Path], stage: Callable[..., StageSettings], capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from lib.model.adapter import attach_lora
    from lib.model.base import ComputeChoice, StageBase, load_base, load_tokenizer
    from lib.model.targets import find_targets
    from lib.training.batches import choose_batch_form
    from lib.training.processes.process_group import Processes
    from lib.training.sizing.world import World
    from lib.training.trainer import fit

    folder = tiny_model("qwen3_moe")
    keys = {"SFT_MAX_STEPS": 6, "SFT_LR": "2e-2", "SFT_LOGGING_STEPS": 1, "SFT_LORA_DROPOUT": 0}
    cadence = {"SFT_EVAL_STEPS": 3, "SFT_SAVE_STEPS": 3, "SFT_GRAD_ACCUM": 1, "SFT_WARMUP_RATIO": 0}
    settings = stage(SFT_BASE_MODEL=folder, **keys, **cadence)
    rows = tuple(row([4, 5, 6, 7 + i, 2], [False, False, True, True, True]) for i in range(4))
    data: Any = SimpleNamespace(train=rows * 3, packs=rows_alone(12), order=TrainingOrder(12, settings.seed))
    base = StageBase(str(folder), "", str(folder), merged=False, reused=False, seconds=0.0)
    model = load_base(base, ComputeChoice(torch.float32, "sdpa", ""), on_gpu=False)
    targets = find_targets(model, settings.lora.target_modules)
    form = choose_batch_form(model, rows, packing=False)
    peft_model, _ = attach_lora(model, targets, settings.lora, seed=1)
    frozen = {n: p.clone() for n, p in peft_model.named_parameters() if not p.requires_grad}
    processes = Processes(settings, World(1, 0), torch.float32, evaluates=True)
    assert processes.is_main
    assert processes.on_main(lambda x: x + 1, 1) == 2
    tokenizer = load_tokenizer(settings.model)
    result = fit(peft_model, tokenizer, data, rows[:2], settings, processes, form, callbacks=[])
    losses = [entry["loss"] for entry in result.history if "loss" in entry]
    assert len(losses) == result.steps == 6
    assert losses[-1] < losses[0] - 0.5
    assert result.best_step in {3, 6}
    assert result.final_eval["eval_loss"] == pytest.approx(result.best_metric)
    assert result.tokens == 6 * 2 * 5
    assert result.peak_memory_bytes > 10**6
    assert all(torch.equal(p, frozen[n]) for n, p in peft_model.named_parameters() if n in frozen)
    assert {p.name for p in settings.stage_dir.iterdir()} >= {"checkpoint-3", "checkpoint-6"}
    printed = capsys.readouterr().out
    assert "step     1/6  loss" in printed
    assert "step     3/6  eval_loss" in printed
