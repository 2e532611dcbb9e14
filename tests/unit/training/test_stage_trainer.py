"""The real trainer: one optimizer step over the same eight rows, however they are cut into micro-batches."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from lib.data.chat.encoded import EncodedRow
from lib.data.order.order import TrainingOrder
from lib.data.order.packing import rows_alone
from lib.evaluation.generation import row_losses, token_loss
from lib.settings import StageSettings

# Labelled tokens of the rows: a mean over rows or micro-batches is far from the mean over tokens.
LABELLED = (1, 40, 2, 1, 25, 3, 1, 8)
CUTS = ((8, 1), (1, 8), (2, 4))


def row(number: int, labelled: int) -> EncodedRow:
    generator = torch.Generator().manual_seed(number)
    ids = torch.randint(3, 60, (labelled + 3 + number,), generator=generator).tolist()
    mask = [False] * (len(ids) - labelled) + [True] * labelled
    return EncodedRow(f"s#{number}", "s", (), "ok", ids, mask, answer_tokens=labelled)


ROWS = [row(number, labelled) for number, labelled in enumerate(LABELLED)]
TOKENS = sum(len(row.input_ids) for row in ROWS)


class Gradients(TrainerCallback):
    """What the optimizer is about to see."""

    def on_pre_optimizer_step(self, *call: Any, model: Any, **_: Any) -> None:
        self.seen = torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


MakeTrainer = Callable[..., Any]


@pytest.fixture
def make_trainer(tiny_model: Callable[..., Path], stage: Callable[..., StageSettings]) -> MakeTrainer:
    """make_trainer(rows, accumulated): the trainer of one step, as `fit` builds it."""
    from lib.model.adapter import attach_lora
    from lib.model.base import ComputeChoice, StageBase, load_base, load_tokenizer
    from lib.model.targets import find_targets
    from lib.training.batches import choose_batch_form
    from lib.training.processes.process_group import Processes
    from lib.training.sizing.world import World
    from lib.training.trainer import build_trainer

    def make(size: int, accumulated: int, *callbacks: TrainerCallback) -> Any:
        folder = tiny_model("qwen3_moe")
        keys = {"SFT_MAX_STEPS": 1, "SFT_LOGGING_STEPS": 1, "SFT_LORA_DROPOUT": 0, "SFT_MAX_GRAD_NORM": 1000}
        batch = {"SFT_PER_DEVICE_TRAIN_BS": size, "SFT_GRAD_ACCUM": accumulated}
        settings = stage(SFT_BASE_MODEL=folder, SFT_PER_DEVICE_EVAL_BS=3, **keys, **batch)
        base = StageBase(str(folder), "", str(folder), merged=False, reused=False, seconds=0.0)
        model = load_base(base, ComputeChoice(torch.float32, "sdpa", ""), on_gpu=False)
        form = choose_batch_form(model, ROWS, packing=False)
        targets = find_targets(model, settings.lora.target_modules)
        peft_model, _ = attach_lora(model, targets, settings.lora, seed=1)
        for name, parameter in peft_model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(2))
        processes = Processes(settings, World(1, 0), torch.float32, evaluates=True)
        tokenizer = load_tokenizer(settings.model)
        order, packs = TrainingOrder(len(ROWS), settings.seed), rows_alone(len(ROWS))
        data: Any = SimpleNamespace(train=ROWS, packs=packs, order=order)
        return build_trainer(peft_model, tokenizer, data, ROWS, settings, processes, form, callbacks, None)

    return make


def pairs() -> list[tuple[list[int], list[int]]]:
    return [(row.input_ids, row.targets()) for row in ROWS]


def test_micro_batches_weigh_by_their_tokens(make_trainer: MakeTrainer) -> None:
    expected = token_loss(row_losses(make_trainer(8, 1).model, pairs()))
    found = []
    for size, accumulated in CUTS:
        gradients = Gradients()
        trainer = make_trainer(size, accumulated, gradients)
        trainer.train()
        (entry,) = (entry for entry in trainer.state.log_history if "loss" in entry)
        assert entry["loss"] == pytest.approx(expected, rel=1e-5)
        assert entry["num_tokens"] == TOKENS
        assert 0 <= entry["mean_token_accuracy"] < 1
        found.append((gradients.seen, entry["mean_token_accuracy"]))
    for gradient, accuracy in found[1:]:
        assert (gradient - found[0][0]).norm() < 1e-5 * found[0][0].norm()
        assert accuracy == found[0][1]


def test_eval_loss_is_the_mean_over_tokens(make_trainer: MakeTrainer) -> None:
    """Batches of 3, 3 and 2 rows: their mean is another number."""
    trainer = make_trainer(8, 1)
    metrics = trainer.evaluate()
    assert metrics["eval_loss"] == pytest.approx(token_loss(row_losses(trainer.model, pairs())), rel=1e-6)
    assert 0 <= metrics["eval_mean_token_accuracy"] < 1


def test_an_evaluation_leaves_the_counts_of_training_alone(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(8, 1)
    trainer._sums += 7
    trainer.evaluate()
    assert trainer._sums.tolist() == [7] * 4


def test_the_log_keeps_to_known_names(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(2, 4)
    trainer.train()
    first, *_ = trainer.state.log_history
    assert first.keys() == {
        "loss", "grad_norm", "learning_rate", "num_tokens", "mean_token_accuracy", "epoch", "step",
    }  # fmt: skip


def test_a_model_that_must_make_all_its_logits_is_said_and_trains(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = make_trainer(2, 4)
    expected.train()
    assert "computed from all its logits" not in capsys.readouterr().out
    monkeypatch.setattr("lib.training.loss.output_head", lambda model: None)
    trainer = make_trainer(2, 4)
    trainer.train()
    assert capsys.readouterr().out.count("computed from all its logits at once") == 1
    losses = [t.state.log_history[0]["loss"] for t in (expected, trainer)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
