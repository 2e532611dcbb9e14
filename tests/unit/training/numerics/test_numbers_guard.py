"""The guard in the real trainer: a token whose embedding is not a number spoils its batch."""

import json
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from lib.data.chat.encoded import EncodedRow
from lib.data.order.order import TrainingOrder
from lib.data.order.schedule import Schedule
from lib.data.reading.labels import Label
from lib.settings import RunError, StageSettings
from lib.training.numerics.numbers import Numbers, Verdict
from lib.training.numerics.zero_norm import watch_zero

BROKEN_TOKEN, BROKEN_ROW = 60, 5
STEPS = 6


def row(number: int) -> EncodedRow:
    ids = torch.randint(3, 60, (12,), generator=torch.Generator().manual_seed(number)).tolist()
    if number == BROKEN_ROW:
        ids[6] = BROKEN_TOKEN
    return EncodedRow(f"s#{number}", "s", (Label("task", "t"),), "ok", ids, [False] * 4 + [True] * 8, 8)


ROWS = tuple(row(number) for number in range(12))


class Watched(TrainerCallback):
    """The adapter after every step, the rates, and the tokens of every pass."""

    def __init__(self) -> None:
        self.weights: list[torch.Tensor] = []

    def on_step_end(self, *call: Any, model: Any, **_: Any) -> None:
        self.weights.append(torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad]))


MakeTrainer = Callable[..., tuple[Any, Watched]]


@pytest.fixture
def make_trainer(tiny_model: Callable[..., Path], stage: Callable[..., StageSettings]) -> MakeTrainer:
    """make_trainer(**keys): a trainer of six steps over twelve rows, as `fit` builds it."""
    from lib.model.adapter import attach_lora
    from lib.model.base import ComputeChoice, StageBase, load_base, load_tokenizer
    from lib.model.targets import find_targets
    from lib.training.batches import choose_batch_form
    from lib.training.processes.process_group import Processes
    from lib.training.sizing.world import World
    from lib.training.trainer import build_trainer

    def make(broken: bool = True, sizes: dict[str, Any] | None = None, **keys: Any) -> tuple[Any, Watched]:
        folder = tiny_model("qwen3_moe", **(sizes or {}))
        batch = {"SFT_PER_DEVICE_TRAIN_BS": 1, "SFT_GRAD_ACCUM": 2, "SFT_MAX_STEPS": STEPS, "SFT_LR": "1e-2"}
        cadence = {
            "SFT_LOGGING_STEPS": 1,
            "SFT_WARMUP_RATIO": 0,
            "SFT_LORA_DROPOUT": 0,
            "SFT_SAVE_STEPS": STEPS,
        }
        settings = stage(SFT_BASE_MODEL=folder, **(batch | cadence | keys))
        base = StageBase(str(folder), "", str(folder), merged=False, reused=False, seconds=0.0)
        model = load_base(base, ComputeChoice(torch.float32, "sdpa", ""), on_gpu=False)
        form = choose_batch_form(model, ROWS, packing=False)
        if broken:
            model.get_input_embeddings().weight.data[BROKEN_TOKEN] = math.nan
        model, _ = attach_lora(
            model, find_targets(model, settings.lora.target_modules), settings.lora, seed=1
        )
        schedule = Schedule.of(TrainingOrder(len(ROWS), settings.seed), settings.training, 1)
        packs = tuple((i,) for i in range(len(ROWS)))
        data: Any = SimpleNamespace(train=ROWS, packs=packs, order=schedule.order, schedule=schedule)
        processes = Processes(settings, World(1, 0), torch.float32, evaluates=False)
        watched = Watched()
        tokenizer = load_tokenizer(settings.model)
        trainer = build_trainer(model, tokenizer, data, (), settings, processes, form, [watched], None)
        return trainer, watched

    return make


def broken_step(trainer: Any) -> int:
    order = trainer.guard.bad_batches._data.order.epoch(0)
    return order.index(BROKEN_ROW) // 2 + 1


def written(trainer: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in trainer.guard.bad_batches.path.read_text().splitlines()]


def test_a_step_that_is_left_out_changes_nothing_but_the_count(
    make_trainer: MakeTrainer, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer, watched = make_trainer(SFT_ON_NAN="skip")
    clean, _ = make_trainer(broken=False)
    at = broken_step(trainer)
    assert 1 < at < STEPS
    assert clean.train().global_step == trainer.train().global_step == STEPS
    weights = watched.weights
    changed = [not torch.equal(a, b) for a, b in pairwise(weights)]
    assert changed == [step != at for step in range(2, STEPS + 1)]
    assert torch.isfinite(weights[-1]).all()
    # Optimizer: one step fewer than the others had.
    assert {int(s["step"]) for s in trainer.optimizer.state.values()} == {STEPS - 1}

    logged, expected = trainer.state.log_history, clean.state.log_history
    rates, wanted = ({e["step"]: e.get("learning_rate") for e in log[:-1]} for log in (logged, expected))
    assert {**rates, at: wanted[at]} == wanted  # the schedule goes on by steps
    assert "loss" not in logged[at - 1]
    assert all(math.isfinite(entry["loss"]) for entry in logged[:-1] if "loss" in entry)
    losses = [entry["loss"] for entry in logged[:-1] if "loss" in entry]
    assert logged[-1]["train_loss"] == pytest.approx(sum(losses) / len(losses))
    assert logged[-1]["skipped_steps"] == 1

    (entry,) = written(trainer)
    named = [row["row"] for found in entry["passes"] for row in found["rows"]]
    assert named == [f"s#{i}" for i in trainer.guard.bad_batches._data.order.epoch(0)[2 * at - 2 : 2 * at]]
    of_pass = {found["rows"][0]["row"]: found["loss"] for found in entry["passes"]}
    assert of_pass.pop(f"s#{BROKEN_ROW}") == "nan"
    assert all(math.isfinite(loss) for loss in of_pass.values())
    assert entry["passes"][0]["rows"][0] | {"row": ""} == {
        "row": "",
        "labels": {"task": "t"},
        "tokens": 12,
        "learned": 8,
    }
    assert (entry["step"], entry["done"], entry["loss"]) == (at, "left out", "nan")
    said = capsys.readouterr().out
    assert f"[WARNING] step {at}: the loss is not a number; left out; rows s#{BROKEN_ROW}, " in said
    (notice,) = trainer.guard.notices(STEPS)
    assert notice.startswith(f"[WARNING] 1 of {STEPS} steps were left out: step {at}")


def test_by_default_the_run_ends_before_the_weights_are_spoilt(make_trainer: MakeTrainer) -> None:
    trainer, watched = make_trainer()
    with pytest.raises(RunError, match="the loss is not a number") as stopped:
        trainer.train()
    at = broken_step(trainer)
    assert len(watched.weights) == at - 1
    now = torch.cat([p.detach().flatten() for p in trainer.model.parameters() if p.requires_grad])
    assert torch.equal(now, watched.weights[-1])
    said = str(stopped.value)
    assert said.startswith(f"step {at}: the loss is not a number")
    assert f"s#{BROKEN_ROW}" in said
    assert str(trainer.guard.bad_batches.path) in said
    assert "SFT_ON_NAN=skip" in said
    assert [entry["done"] for entry in written(trainer)] == ["stopped"]


def test_the_passes_of_a_step_are_those_that_are_trained(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step is called bad; what is written down is what the model was given."""
    trainer, _ = make_trainer(broken=False, SFT_PER_DEVICE_TRAIN_BS=3, SFT_GRAD_ACCUM=3)
    monkeypatch.setattr(Numbers, "judge", lambda *_: Verdict("a test", "train"))
    given: list[list[int]] = []
    train = trainer.training_step

    def watched(model: Any, inputs: dict[str, Any], *rest: Any) -> Any:
        given.append(inputs["input_ids"][0].tolist())
        return train(model, inputs, *rest)

    monkeypatch.setattr(trainer, "training_step", watched)
    trainer.train()
    by_id = {row.row_id: row.input_ids for row in ROWS}
    named = [
        [token for found in passed["rows"] for token in by_id[found["row"]]]
        for entry in written(trainer)
        for passed in entry["passes"]
    ]
    assert named == given
    assert [len(entry["passes"]) for entry in written(trainer)] == [3, 1] * 3


def test_a_spike_that_is_left_out_and_one_that_is_not(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdicts = {2: Verdict("a spike", "skip"), 4: Verdict("a spike", "train")}
    monkeypatch.setattr(Numbers, "judge", lambda self, step, *_: verdicts.get(step))
    trainer, watched = make_trainer(broken=False)
    trainer.train()
    weights = watched.weights
    assert torch.equal(weights[1], weights[0])
    assert not torch.equal(weights[3], weights[2])
    assert [entry["step"] for entry in written(trainer)] == [2, 4]
    assert "grad_norm" in trainer.state.log_history[1]  # finite, so it is known what it was


def test_what_was_seen_goes_into_checkpoints_and_comes_back(make_trainer: MakeTrainer) -> None:
    trainer, _ = make_trainer(SFT_ON_NAN="skip")
    trainer.train()
    checkpoint = Path(trainer.args.output_dir) / f"checkpoint-{STEPS}" / "trainer_state.json"
    state = json.loads(checkpoint.read_text())
    memory = state["stateful_callbacks"]["numbers"]
    assert len(memory["losses"]) == STEPS - 1
    assert [entry["step"] for entry in memory["bad"]] == [broken_step(trainer)]

    again, _ = make_trainer(SFT_ON_NAN="skip")
    path = again.guard.bad_batches.path
    path.write_text(path.read_text() + '{"step": 7}\n{"step": 9, "cut o')
    again.train(resume_from_checkpoint=str(checkpoint.parent))
    assert again.guard.numbers.memory == memory
    assert [entry["step"] for entry in written(again)] == [broken_step(trainer)]


def test_a_new_run_forgets_the_bad_batches_of_an_earlier_one(make_trainer: MakeTrainer) -> None:
    trainer, _ = make_trainer(broken=False, SFT_MAX_STEPS=1)
    path = trainer.guard.bad_batches.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"step": 1}\n')
    trainer.train()
    assert not path.exists()


def test_a_target_without_a_gradient_ends_the_run(make_trainer: MakeTrainer) -> None:
    """A router that chooses one expert and gives it the weight 1, whatever it computes."""
    keys = {"SFT_LORA_TARGET_MODULES": "q_proj,gate"}
    trainer, watched = make_trainer(
        broken=False, sizes={"num_experts_per_tok": 1, "norm_topk_prob": True}, **keys
    )
    with pytest.raises(RunError, match=r"no gradient for model\.layers\.\*\.mlp\.gate"):
        trainer.train()
    assert watched.weights == []


def test_one_adapter_without_a_gradient_is_a_notice(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, _ = make_trainer(broken=False)
    name, parameter = next((n, p) for n, p in trainer.model.named_parameters() if "q_proj.lora_B" in n)
    parameter.register_hook(torch.zeros_like)
    trainer.train()
    (notice,) = trainer.guard.notices(STEPS)
    assert notice.startswith("[WARNING] 1 of ")
    assert name.partition(".lora_B")[0].removeprefix("base_model.model.") in notice


def test_deepspeed_takes_a_refused_norm_for_an_overflow() -> None:
    asked: list[float] = []

    def refuses(norm: torch.Tensor) -> bool:
        asked.append(norm.item())
        return norm.item() > 2

    norms = iter((1.0, 3.0))
    optimizer = SimpleNamespace(
        dtype=torch.bfloat16, check_grad_overflow=False, scaled_global_norm=lambda: torch.tensor(next(norms))
    )
    watch_zero(optimizer, refuses)
    assert optimizer.check_grad_overflow
    assert [optimizer.scaled_global_norm().item() for _ in range(2)] == [1.0, math.inf]
    assert asked == [1.0, 3.0]
    watch_zero(torch.optim.SGD([torch.zeros(1)]), refuses)  # has no such norm
