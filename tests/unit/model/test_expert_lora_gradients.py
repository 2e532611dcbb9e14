"""Output and gradients of the split form against PEFT's own forward in float64."""

import pytest
import torch
from peft.tuners.lora.layer import ParamWrapper
from torch.utils.checkpoint import checkpoint

from lib.model.expert_lora.products import OneByOne, Together, grouped_products_are_right
from lib.model.expert_lora.routing import Routing
from tests.unit.model.expert_blocks import ROUTINGS, as_peft, draw, errors, make_block, run

TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 1e-2}


def compare(block: ParamWrapper, routing: str, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(9)
    chosen = ROUTINGS[routing]()
    drawn = draw(chosen, dtype)
    found, wanted = run(block, chosen, drawn), run(as_peft(block), chosen, drawn, torch.float64)
    assert len(found) == 7
    assert max(errors(found, wanted).values()) < tolerance, errors(found, wanted)
    factors = {name: tensor.dtype for name, tensor in found.items() if "lora_" in name}
    assert set(factors.values()) == {torch.float32}
    assert found["output"].dtype == found["hidden"].dtype == found["weights"].dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("routing", ROUTINGS)
def test_every_gradient_is_that_of_float64(routing: str, dtype: torch.dtype, products: str) -> None:
    compare(make_block(dtype=dtype), routing, dtype, TOLERANCE[dtype])


@pytest.mark.parametrize("rank", [1, 3, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_any_rank(rank: int, dtype: torch.dtype, products: str) -> None:
    compare(make_block(rank=rank, dtype=dtype), "skewed", dtype, TOLERANCE[dtype])


@pytest.mark.parametrize("routing", ["random", "half the experts empty"])
def test_transposed_experts_with_biases_and_another_gate(routing: str, products: str) -> None:
    compare(make_block(family="gpt_oss"), routing, torch.float32, 1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_checkpointing_changes_no_bit(dtype: torch.dtype, dropout: float) -> None:
    block = make_block(dtype=dtype, dropout=dropout).train()
    chosen = ROUTINGS["skewed"]()
    drawn = draw(chosen, dtype)

    def checkpointed(*arguments: object) -> torch.Tensor:
        return checkpoint(*arguments, use_reentrant=False)  # type: ignore[no-any-return, arg-type]

    results = []
    for wrap in (None, checkpointed):
        torch.manual_seed(1)
        results.append(run(block, chosen, drawn, wrap=wrap))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_a_recomputation_that_would_route_otherwise_does_not() -> None:
    """The second time the router puts the choices in another order and swaps an expert of the first token."""
    block = make_block()
    first = ROUTINGS["random"]()
    second = first.flip(1)
    second[0, 0] = next(expert for expert in range(8) if expert not in first[0])
    weights_are_tied = torch.full(first.shape, 0.5)
    hidden, _, gradient = draw(first, torch.float32)
    drawn = hidden, weights_are_tied, gradient
    calls = iter([first, second])

    def routed(block: ParamWrapper, hidden: torch.Tensor, _: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return block(hidden, next(calls), w)

    def checkpointed(*arguments: object) -> torch.Tensor:
        return checkpoint(routed, *arguments, use_reentrant=False)  # type: ignore[no-any-return, arg-type]

    wanted, found = run(block, first, drawn), run(block, first, drawn, wrap=checkpointed)
    assert next(calls, None) is None  # it was computed twice
    for name in wanted.keys() - {"weights"}:
        assert torch.equal(found[name], wanted[name]), name
    assert torch.equal(found["weights"][1:], wanted["weights"][1:].flip(1))


def test_routings_are_forgotten_with_their_graph() -> None:
    block = make_block()
    chosen = ROUTINGS["random"]()
    hidden, weights, _ = draw(chosen, torch.float32)
    output = block(hidden, chosen, weights)
    memory = block.forward._memory._kept
    assert len(memory) == 1
    del output
    assert len(memory) == 0


def test_a_frozen_input_gets_no_gradient_and_the_factors_get_theirs() -> None:
    block = make_block()
    chosen = ROUTINGS["random"]()
    hidden, weights, gradient = draw(chosen, torch.float32)
    wanted = run(block, chosen, (hidden, weights, gradient))
    block.zero_grad()
    block(hidden, chosen, weights).backward(gradient)
    assert hidden.grad is None
    for name, parameter in block.named_parameters():
        if "lora_" in name:
            assert torch.equal(parameter.grad, wanted[name]), name


@pytest.mark.parametrize("rank", [4, 16])
def test_nothing_of_the_size_of_the_weights_is_kept(rank: int) -> None:
    """Neither saved for the backward nor held by any tensor that autograd knows of."""
    block = make_block(rank=rank)
    smallest = min(p.numel() for name, p in block.named_parameters() if "lora_" not in name)
    frozen = {p.data_ptr() for name, p in block.named_parameters() if "lora_" not in name}
    kept: list[torch.Tensor] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    chosen = ROUTINGS["random"]()[:8]
    hidden, weights, gradient = draw(chosen, torch.float32)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        block(hidden.requires_grad_(), chosen, weights.requires_grad_()).backward(gradient)
    assert kept
    assert not frozen & {tensor.data_ptr() for tensor in kept}
    activations = [tensor for tensor in kept if not isinstance(tensor, torch.nn.Parameter)]
    assert max(tensor.numel() for tensor in activations) < smallest / 4


def test_grouped_products_of_this_machine_are_right() -> None:
    grouped_products_are_right.cache_clear()
    assert grouped_products_are_right(torch.device("cpu"), torch.bfloat16)
    assert grouped_products_are_right(torch.device("cpu"), torch.float32)


def test_wrong_grouped_products_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on the GPUs where a transposed view was read as if it were not."""
    from lib.model.expert_lora import products

    def wrong(x: torch.Tensor, stack: torch.Tensor, *, offs: torch.Tensor) -> torch.Tensor:
        if stack.ndim == 3 and not stack.is_contiguous():
            stack = stack.mT.contiguous().view(stack.shape)
        return torch.nn.functional.grouped_mm(x, stack, offs=offs)

    grouped_products_are_right.cache_clear()
    monkeypatch.setattr(products, "grouped_mm", wrong)
    assert not grouped_products_are_right(torch.device("cpu"), torch.float32)
    grouped_products_are_right.cache_clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_what_the_memory_of_a_gradient_held_does_not_matter(dtype: torch.dtype) -> None:
    """It is allocated without being cleared."""
    ends = torch.tensor([16])
    routing = Routing(torch.zeros(16, 1, dtype=torch.int64), torch.arange(16), ends)
    a, b = torch.randn(16, 8).to(dtype), torch.randn(16, 24).to(dtype)
    for products in (OneByOne(routing, 1), Together(routing)):
        out = torch.full((1, 8, 24), float("nan"), dtype=dtype)
        (block,), (matrices,) = products.blocks, products.matrices(out)
        ((left, right, place),) = block.pieces((a, b), (matrices,))
        block.outer(left, right, place, 2.0)
        torch.testing.assert_close(out[0], 2 * (a.t() @ b), atol=0.1, rtol=0.02)
