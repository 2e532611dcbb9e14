"""The chunked loss of a head against all logits at once, in fp64 and by torch's own cross entropy."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from lib.model import head_loss
from lib.model.head_loss import head_losses
from lib.model.output_head import OutputHead

TOKENS, HIDDEN, VOCABULARY = 37, 24, 501


@pytest.fixture(params=["one chunk", "many chunks"])
def _chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 7 rows at most (fp32), strips of 3 in them."""
    if request.param == "many chunks":
        monkeypatch.setattr(head_loss, "CHUNK_BYTES", {"cpu": 7 * VOCABULARY * 4})
        monkeypatch.setattr(head_loss, "STRIP_BYTES", {"cpu": 3 * VOCABULARY * 4})


def make_head(dtype: torch.dtype = torch.float32, *, bias: bool = False, **options: Any) -> OutputHead:
    torch.manual_seed(3)
    layer = nn.Linear(HIDDEN, VOCABULARY, bias=bias).requires_grad_(False)
    layer.weight.normal_()
    return OutputHead(layer.to(dtype), VOCABULARY, **options)


def batch(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states, targets, and an upstream gradient that differs from token to token."""
    generator = torch.Generator().manual_seed(5)
    hidden = torch.randn(TOKENS, HIDDEN, generator=generator).to(dtype).requires_grad_()
    return hidden, torch.randint(VOCABULARY, (TOKENS,), generator=generator), torch.rand(TOKENS) + 0.5


def reference(
    head: OutputHead, hidden: torch.Tensor, targets: torch.Tensor, upstream: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses and gradient of the hidden states from all logits, in fp64."""
    states = hidden.detach().double().requires_grad_()
    bias = head.layer.bias
    raw = states @ head.layer.weight.double().T + (0 if bias is None else bias.double())
    losses = cross_entropy(head.transform(raw), targets, reduction="none")
    losses.backward(upstream.double())
    assert states.grad is not None
    return losses.detach(), states.grad


def distance(found: torch.Tensor | None, right: torch.Tensor) -> float:
    assert found is not None
    return float((found.double() - right.double()).norm() / right.double().norm())


HEADS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bias": {"bias": True},
    "scaled": {"scale": 0.25},
    "capped": {"softcap": 3.0},
    "all": {"bias": True, "scale": 1.7, "softcap": 5.0},
}


@pytest.mark.usefixtures("_chunks")
@pytest.mark.parametrize("options", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_losses_and_gradient_are_those_of_all_logits(
    options: dict[str, Any], dtype: torch.dtype, tolerance: float
) -> None:
    head = make_head(dtype, **options)
    hidden, targets, upstream = batch(dtype)
    losses, correct = head_losses(hidden, head, targets)
    losses.backward(upstream)
    right_losses, right_gradient = reference(head, hidden, targets, upstream)
    assert losses.dtype == torch.float32
    assert hidden.grad is not None
    assert hidden.grad.dtype == dtype
    assert distance(losses.detach(), right_losses) < tolerance
    assert distance(hidden.grad, right_gradient) < tolerance
    assert correct.dtype == torch.bool
    assert not correct.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_chunk_gives_the_numbers_of_cross_entropy(dtype: torch.dtype) -> None:
    """The same products and the same softmax; what is left is fp32 rounding of the last scaling."""
    head = make_head(dtype)
    hidden, targets, _ = batch(dtype)
    head_losses(hidden, head, targets)[0].sum().backward()
    states = hidden.detach().clone().requires_grad_()
    cross_entropy(head.layer(states).float(), targets, reduction="sum").backward()
    assert distance(hidden.grad, states.grad) < 1e-7


def test_a_token_is_correct_when_no_other_was_more_likely() -> None:
    head = make_head()
    hidden, targets, _ = batch()
    likeliest = head.layer(hidden).argmax(-1)
    targets[::2] = likeliest[::2]
    _, correct = head_losses(hidden, head, targets)
    assert torch.equal(correct, targets == likeliest)


def test_a_confident_token_keeps_its_small_gradient_in_bf16() -> None:
    """Softmax minus 1 is taken in fp32: rounded before, 0.999 would be 1 and leave nothing."""
    head = make_head(torch.bfloat16)
    hidden, targets, upstream = batch(torch.bfloat16)
    with torch.no_grad():
        own = head.layer.weight[targets].float()
        hidden.copy_(own / own.norm(dim=1, keepdim=True) * 5.5)
    losses, _ = head_losses(hidden, head, targets)
    losses.backward(upstream)
    assert losses.median() < 0.05
    assert distance(hidden.grad, reference(head, hidden, targets, upstream)[1]) < 2e-2


def test_without_a_gradient_none_is_formed(monkeypatch: pytest.MonkeyPatch) -> None:
    products = []
    multiply = torch.mm
    monkeypatch.setattr(torch, "mm", lambda *a, **k: products.append(1) or multiply(*a, **k))
    hidden, targets, _ = batch()
    head_losses(hidden.detach(), make_head(), targets)
    assert len(products) == 1


@pytest.mark.parametrize("trained", [True, False])
def test_no_token_gives_no_loss_and_a_gradient_of_zero(trained: bool) -> None:
    head = make_head()
    head.layer.requires_grad_(trained)
    hidden, targets, _ = batch()
    losses, _ = head_losses(hidden[:0], head, targets[:0])
    losses.sum().backward()
    assert losses.shape == (0,)
    assert hidden.grad is not None
    assert not hidden.grad.any()


def low_rank(layer: nn.Linear) -> nn.Module:
    """The layer under PEFT's wrapper, with factors that are not zero."""
    from peft import LoraConfig, inject_adapter_in_model

    model = inject_adapter_in_model(LoraConfig(r=4, target_modules=["head"]), nn.ModuleDict({"head": layer}))
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)
    return model["head"]


@pytest.mark.usefixtures("_chunks")
@pytest.mark.parametrize(
    "kind", [lambda layer: layer.requires_grad_(True), low_rank], ids=["trained", "lora"]
)
def test_a_head_that_learns_gets_its_gradient_too(kind: Callable[[nn.Linear], nn.Module]) -> None:
    plain = make_head(bias=True)
    head = OutputHead(kind(plain.layer), VOCABULARY, scale=0.5)
    hidden, targets, upstream = batch()
    head_losses(hidden, head, targets)[0].backward(upstream)
    ours = {name: p.grad.clone() for name, p in head.layer.named_parameters() if p.grad is not None}
    assert ours.keys() == {name for name, p in head.layer.named_parameters() if p.requires_grad}
    head.layer.zero_grad()
    states = hidden.detach().clone().requires_grad_()
    cross_entropy(head.layer(states) * 0.5, targets, reduction="none").backward(upstream)
    assert distance(hidden.grad, states.grad) < 1e-6
    for name, parameter in head.layer.named_parameters():
        if parameter.requires_grad:
            assert distance(ours[name], parameter.grad) < 1e-6


def test_all_logits_are_never_there_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_loss, "CHUNK_BYTES", {"cpu": 8 * VOCABULARY * 4})
    largest = []
    create = torch.empty

    def empty(*size: Any, **options: Any) -> torch.Tensor:
        made = create(*size, **options)
        largest.append(made.numel())
        return made

    hidden, targets, _ = batch()
    head = make_head()
    monkeypatch.setattr(torch, "empty", empty)
    head_losses(hidden, head, targets)
    assert max(largest) == 8 * VOCABULARY
