"""Whether what is to be trained can be: one micro-batch forward and backward, a step, and once more.

LoRA's B is zero at the start, so A has no gradient in the first pass: B is judged there, and A in the second
pass, when a step has moved B. Afterwards the model is as it was: weights, mode and random state.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from lib.data.chat.encoded import IGNORED
from lib.model.adapter import ADAPTER, kind_of
from lib.training.loss import LabelledLoss
from lib.training.random_state import untouched_random_state

STEP = 1e-2
"""Learning rate of the probe's own step: large enough to show in bf16 logits."""
COMPARED_TOKENS = 64
Reach = Literal["ok", "frozen", "none", "zero", "not finite"]


@dataclass(frozen=True)
class Gradient:
    """What reached one adapted layer or tensor. `norm` is that of B in the first pass."""

    layer: str
    """`model.layers.0.self_attn.q_proj`."""
    target: str
    """As it was declared: `q_proj`, `gate_up_proj`."""
    kind: str
    """attention, experts, router, dense_mlp or other."""
    reach: Reach
    norm: float = 0.0


@dataclass(frozen=True)
class Probe:
    """What a micro-batch did. Without a learned token nothing was computed."""

    rows: int
    tokens: int
    learned: int
    losses: tuple[float, ...]
    """Per learned token, before and after the step."""
    gradients: tuple[Gradient, ...]
    logits_change: float
    """Largest difference that the step made to any logit of the first tokens."""
    seconds: Mapping[str, float]
    """By phase, in order."""

    @property
    def warm_seconds(self) -> float:
        """Of a forward and a backward pass once everything has run before."""
        return self.seconds.get("forward again", 0.0) + self.seconds.get("backward again", 0.0)


def probe(model: PeftModel, batch: Mapping[str, Any], *, rows: int, dtype: torch.dtype) -> Probe:
    """Try `batch`, as the collator makes it from so many rows, on a model with a new adapter. `dtype` is the
    number type that the stage computes in."""
    placed = {name: x.to(model.device) if torch.is_tensor(x) else x for name, x in batch.items()}
    tokens = placed["input_ids"].numel()
    learned = int((placed["labels"][:, 1:] != IGNORED).sum())
    if not learned:
        return Probe(rows, tokens, 0, (), (), 0.0, {})
    seconds: dict[str, float] = {}
    with untouched_random_state(), _left_as_it_was(model):
        loss = LabelledLoss(model)
        compared = placed["input_ids"][:1, :COMPARED_TOKENS]
        before = _logits(model, compared, dtype)
        first = _pass(loss, placed, dtype, seconds, ("first forward", "first backward"))
        after_first = _judged(model, "lora_B")
        with _timed(seconds, "first optimizer step"):
            _step(model)
        after = _logits(model, compared, dtype)
        second = _pass(loss, placed, dtype, seconds, ("forward again", "backward again"))
        after_second = _judged(model, "lora_A")
    gradients = tuple(
        b if b.reach != "ok" else replace(b, reach=a.reach)
        for b, a in zip(after_first, after_second, strict=True)
    )
    change = float((after - before).abs().max())
    return Probe(rows, tokens, learned, (first, second), gradients, change, seconds)


def _pass(
    loss: LabelledLoss,
    batch: Mapping[str, Any],
    dtype: torch.dtype,
    seconds: dict[str, float],
    phases: tuple[str, str],
) -> float:
    """Forward and backward; the loss per learned token."""
    with _timed(seconds, phases[0]), _computing_in(loss.device, dtype):
        value = loss(**batch).losses.mean()
    with _timed(seconds, phases[1]):
        value.backward()
    return float(value.detach())


def _judged(model: PeftModel, half: str) -> list[Gradient]:
    """The gradients of one half of every LoRA, A or B."""
    found = []
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLayer) and ADAPTER in getattr(layer, half):
            weight = getattr(layer, half)[ADAPTER].weight
            plain = name.removeprefix("base_model.model.").replace(".base_layer", "")
            target = getattr(layer, "parameter_name", "") or plain.rpartition(".")[2]
            reach, norm = _reach(weight)
            kind = kind_of(f"{name}.{half}.")
            found.append(Gradient(plain, target, kind, reach, norm))
    return found


def _reach(weight: torch.Tensor) -> tuple[Reach, float]:
    if not weight.requires_grad:
        return "frozen", 0.0
    if weight.grad is None:
        return "none", 0.0
    norm = float(weight.grad.float().norm())
    if not torch.isfinite(weight.grad).all():
        return "not finite", norm
    return ("ok" if norm > 0 else "zero"), norm


def _step(model: PeftModel) -> None:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    torch.optim.AdamW(trained, lr=STEP, weight_decay=0.0).step()
    for parameter in trained:
        parameter.grad = None


def _logits(model: PeftModel, ids: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """(tokens, vocabulary) in fp32, without dropout."""
    model.eval()
    with torch.no_grad(), _computing_in(model.device, dtype):
        logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits[0].float()
    model.train()
    return logits


@contextmanager
def _left_as_it_was(model: PeftModel) -> Iterator[None]:
    """In training mode inside; afterwards weights and mode are as before, and no gradient is left."""
    training = model.training
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    kept = [parameter.detach().to("cpu", copy=True) for parameter in trained]
    model.train()
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(trained, kept, strict=True):
                parameter.copy_(value)
                parameter.grad = None
        model.train(training)


def _computing_in(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """As the trainer does: products in half precision where the stage computes in it."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    _wait_for_device()
    started = time.monotonic()
    yield
    _wait_for_device()
    seconds[phase] = time.monotonic() - started


def _wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
