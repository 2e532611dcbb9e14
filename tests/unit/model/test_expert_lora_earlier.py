"""Frozen factors of earlier stages in the split form: what adding them into the weights gives, for every way
of multiplying, the one for a GPU too."""

from typing import Any

import pytest
import torch
from peft.tuners.lora.layer import ParamWrapper

from lib.model.expert_lora.routing import RoutingMemory
from lib.model.frozen_factors import FrozenFactors, add_for_good, all_beside, beside, keep_beside
from tests.unit.model.expert_blocks import EXPERTS, ROUTINGS, as_peft, draw, errors, make_block, run

pytestmark = pytest.mark.usefixtures("products")
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 1e-2}
PROJECTIONS = ("gate_up_proj", "down_proj")
DTYPES = [torch.float32, torch.bfloat16]


def put_beside(experts: Any, rank: int, *parameters: str) -> None:
    """Random factors beside each parameter of the block."""
    experts.routing_memory = RoutingMemory()
    for parameter in parameters:
        weight = experts.get_parameter(parameter)
        shape = weight.shape[1:] if experts.is_transposed else weight.shape[:0:-1]
        a, b = torch.randn(EXPERTS, rank, shape[0]) * 0.2, torch.randn(rank, EXPERTS, shape[1]) * 0.2
        factors = FrozenFactors(a, b, weight=weight, transposed=experts.is_transposed)
        keep_beside(experts, parameter, factors)


def reference(block: ParamWrapper) -> ParamWrapper:
    """PEFT in float64 on weights with the factors added."""
    exact = as_peft(block)
    for module, parameter, factors in all_beside(exact):
        weight = module.get_parameter(parameter)
        weight.data = weight.data + factors.update().double()
        factors.folded = True
    return exact


def compare(block: ParamWrapper, routing: str, dtype: torch.dtype) -> None:
    torch.manual_seed(9)
    chosen = ROUTINGS[routing]()
    drawn = draw(chosen, dtype)
    found, wanted = run(block, chosen, drawn), run(reference(block), chosen, drawn, torch.float64)
    assert len(found) == 7
    assert max(errors(found, wanted).values()) < TOLERANCE[dtype], errors(found, wanted)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("routing", ROUTINGS)
def test_outputs_and_gradients(routing: str, dtype: torch.dtype) -> None:
    block = make_block(dtype=dtype)
    put_beside(block.get_base_layer(), 8, *PROJECTIONS)
    compare(block, routing, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("earlier", "trained"), [(1, 3), (24, 16), (9, 1)])
def test_any_ranks(earlier: int, trained: int, dtype: torch.dtype) -> None:
    block = make_block(rank=trained, dtype=dtype)
    put_beside(block.get_base_layer(), earlier, *PROJECTIONS)
    compare(block, "skewed", dtype)


@pytest.mark.parametrize("parameter", PROJECTIONS)
def test_beside_one_projection_alone(parameter: str) -> None:
    block = make_block()
    put_beside(block.get_base_layer(), 8, parameter)
    compare(block, "half the experts empty", torch.float32)


def test_transposed_experts_with_biases() -> None:
    block = make_block(family="gpt_oss")
    put_beside(block.get_base_layer(), 8, *PROJECTIONS)
    compare(block, "half the experts empty", torch.float32)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("parameters", [PROJECTIONS, PROJECTIONS[:1], PROJECTIONS[1:]])
def test_without_any_adapter(parameters: tuple[str, ...], dtype: torch.dtype) -> None:
    """Frozen factors alone, beside one projection or both: the gradient of what goes in."""
    block = make_block(dtype=dtype)
    put_beside(block.get_base_layer(), 8, *parameters)
    exact = reference(block)
    for wrapper in (block, block.base_layer, exact, exact.base_layer):
        wrapper.enable_adapters(False)
    torch.manual_seed(9)
    chosen = ROUTINGS["skewed"]()
    drawn = draw(chosen, dtype)
    found, wanted = run(block, chosen, drawn), run(exact, chosen, drawn, torch.float64)
    assert len(found) == 3
    assert max(errors(found, wanted).values()) < TOLERANCE[dtype], errors(found, wanted)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dropout_masks_the_trained_branch_alone(dtype: torch.dtype) -> None:
    """What dropout does to outputs and gradients beside frozen factors is what it does beside weights that
    hold them, masks drawn from the same seed."""
    block = make_block(dropout=0.4, dtype=dtype).train()
    put_beside(block.get_base_layer(), 8, *PROJECTIONS)
    chosen = ROUTINGS["random"]()
    drawn = draw(chosen, dtype)
    torch.manual_seed(3)
    found = run(block, chosen, drawn)
    for module, parameter, factors in all_beside(block):
        add_for_good(module, parameter, factors)
        assert beside(module, parameter) is None
    torch.manual_seed(3)
    wanted = run(block, chosen, drawn)
    assert max(errors(found, wanted).values()) < 3 * TOLERANCE[dtype], errors(found, wanted)


def test_frozen_factors_stay_as_they_are_and_the_room_beside_them_is_reused() -> None:
    block = make_block(rank=3)
    experts = block.get_base_layer()
    put_beside(experts, 5, *PROJECTIONS)
    before = [(factors.a.clone(), factors.b.clone()) for *_, factors in all_beside(experts)]
    chosen = ROUTINGS["random"]()
    drawn = draw(chosen, torch.float32)
    first = run(block, chosen, drawn)
    places = [factors.a.data_ptr() for *_, factors in all_beside(experts)]
    second = run(block, chosen, drawn)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert places == [factors.a.data_ptr() for *_, factors in all_beside(experts)]
    for (a, b), (*_, factors) in zip(before, all_beside(experts), strict=True):
        assert factors.rank == 8
        assert torch.equal(factors.a[:, :8], a)
        assert torch.equal(factors.b[:8], b)


def test_nothing_beside_the_experts_goes_with_training_the_experts_themselves() -> None:
    block = make_block()
    put_beside(block.get_base_layer(), 8, *PROJECTIONS)
    for parameter in block.get_base_layer().parameters():
        parameter.requires_grad_(True)
    for wrapper in (block, block.base_layer):
        wrapper.enable_adapters(False)
    with pytest.raises(RuntimeError, match="neither the weights themselves"):
        block(torch.randn(40, 32), ROUTINGS["random"](), torch.rand(40, 2))
