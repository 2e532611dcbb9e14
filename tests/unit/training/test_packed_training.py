"""Whole training steps on the same rows: padded, without padding, packed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lib.data.chat.encoded import EncodedRow
from lib.data.order.order import TrainingOrder, grouped
from lib.data.order.packing import Pack, pack_rows, rows_alone
from lib.settings import StageSettings

CAPACITY = 24
LENGTHS = (9, 20, 3, 7, 2, 12, 16, 11)
KEYS = {
    "SFT_MAX_STEPS": 3,
    "SFT_LR": "5e-3",
    "SFT_LOGGING_STEPS": 1,
    "SFT_LORA_DROPOUT": 0,
    "SFT_WARMUP_RATIO": 0,
    "SFT_VAL_RATIO": 0,
}


def row(length: int, first: int) -> EncodedRow:
    ids = [(first + 7 * i) % 61 + 3 for i in range(length)]
    return EncodedRow(f"s#{first}", "s", (), "ok", ids, [i % 3 != 2 for i in range(length)], 1)


ROWS = tuple(row(length, 5 * i + 1) for i, length in enumerate(LENGTHS))
PACKS = pack_rows(LENGTHS, capacity=CAPACITY, seed=3)


@pytest.fixture
def trained(
    tiny_model: Callable[..., Path], stage: Callable[..., StageSettings]
) -> Callable[..., tuple[Any, dict[str, Any]]]:
    """trained(packs, padding_free=True, SFT_…=…): (what fit returned, the adapter)."""
    import torch

    from lib.model.adapter import attach_lora
    from lib.model.base import ComputeChoice, StageBase, load_base, load_tokenizer
    from lib.model.targets import find_targets
    from lib.training.batches import BatchForm, choose_batch_form
    from lib.training.processes.process_group import Processes
    from lib.training.sizing.world import World
    from lib.training.trainer import fit

    def train(packs: Sequence[Pack], *, padding_free: bool = True, **keys: Any) -> tuple[Any, dict[str, Any]]:
        folder = tiny_model("qwen3_moe")
        settings = stage(SFT_BASE_MODEL=folder, **(KEYS | keys))
        base = StageBase(str(folder), "", str(folder), merged=False, reused=False, seconds=0.0)
        model = load_base(base, ComputeChoice(torch.float32, "sdpa", ""), on_gpu=False)
        form = choose_batch_form(model, ROWS, packing=False) if padding_free else BatchForm(False, "")
        assert form.padding_free == padding_free
        targets = find_targets(model, settings.lora.target_modules)
        peft_model, _ = attach_lora(model, targets, settings.lora, seed=1)
        processes = Processes(settings, World(1, 0), torch.float32, evaluates=False)
        lengths = LENGTHS if settings.training.group_by_length else None
        order = TrainingOrder(len(packs), settings.seed, lengths=lengths, together=2)
        data: Any = SimpleNamespace(train=ROWS, packs=packs, order=order)
        result = fit(
            peft_model, load_tokenizer(settings.model), data, (), settings, processes, form, callbacks=[]
        )
        adapter = {name: p.detach() for name, p in peft_model.named_parameters() if p.requires_grad}
        return result, adapter

    return train


def losses(result: Any) -> list[float]:
    return [entry["loss"] for entry in result.history if "loss" in entry]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("batch", "accumulated"), [(len(PACKS), 1), (1, len(PACKS))])
def test_packed_rows_train_as_padded_ones(batch: int, accumulated: int, trained: Callable[..., Any]) -> None:
    """All rows in every step: the same mean over learned tokens, gradients, weights and token count."""
    assert 1 < len(PACKS) < len(ROWS)
    padded, of_padded = trained(
        rows_alone(8), padding_free=False, SFT_PER_DEVICE_TRAIN_BS=2, SFT_GRAD_ACCUM=4
    )
    packed, of_packed = trained(PACKS, SFT_PER_DEVICE_TRAIN_BS=batch, SFT_GRAD_ACCUM=accumulated)
    assert losses(packed) == pytest.approx(losses(padded), rel=1e-5)
    assert padded.steps == packed.steps == 3
    assert padded.tokens == packed.tokens == 3 * sum(LENGTHS)
    for name, wanted in of_padded.items():
        assert (of_packed[name] - wanted).norm() <= 1e-3 * wanted.norm() + 1e-5, name


@pytest.mark.filterwarnings("ignore")
def test_rows_without_padding_train_as_padded_ones(trained: Callable[..., Any]) -> None:
    """The same rows in the same micro-batches, in the same order."""
    batches = {"SFT_PER_DEVICE_TRAIN_BS": 2, "SFT_GRAD_ACCUM": 2}
    padded, of_padded = trained(rows_alone(8), padding_free=False, **batches)
    without, of_without = trained(rows_alone(8), **batches)
    assert losses(without) == pytest.approx(losses(padded), rel=1e-5)
    assert without.tokens == padded.tokens
    for name, wanted in of_padded.items():
        assert (of_without[name] - wanted).norm() <= 1e-3 * wanted.norm() + 1e-5, name


@pytest.mark.filterwarnings("ignore")
def test_rows_of_about_the_same_length_in_a_batch(trained: Callable[..., Any]) -> None:
    result, _ = trained(rows_alone(8), SFT_GROUP_BY_LENGTH=1, SFT_GRAD_ACCUM=1, SFT_MAX_STEPS=4, SFT_SEED=9)
    counts = [entry["num_tokens"] for entry in result.history if "num_tokens" in entry]
    steps = [later - earlier for earlier, later in zip([0, *counts], counts, strict=False)]
    order = [LENGTHS[i] for i in grouped(LENGTHS, 2, seed=9)]
    assert steps == [a + b for a, b in zip(order[::2], order[1::2], strict=True)]
