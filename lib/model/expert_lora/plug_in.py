"""Makes PEFT's wrappers of stacked experts compute the split form; everything else stays PEFT's.

The wrappers, their parameters and names are untouched: saving, loading, merging and disabling are PEFT's own.
Blocks with factors of earlier stages beside their weights compute those in the same form, under an adapter or
without one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora.layer import ParamWrapper
from torch import nn
from transformers import PreTrainedModel
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS, grouped_mm_experts_forward

from lib.model.expert_lora.gate import gate_of
from lib.model.expert_lora.kernel import ExpertCall, SplitExperts
from lib.model.expert_lora.products import choose_products
from lib.model.expert_lora.projection import FrozenProjection
from lib.model.expert_lora.routing import RoutingMemory, sort_by_expert, weights_for
from lib.model.frozen_factors import add_for_good, all_beside, beside

IMPLEMENTATION = "split_lora"
"""Our name among transformers' implementations of experts (`set_experts_implementation`)."""
PROJECTIONS = ("gate_up_proj", "down_proj")


def use_split_expert_lora(model: PeftModel) -> tuple[str, ...]:
    """Let every block whose gate_up and down carry a LoRA compute the split form.

    Returns one notice for each kind of block that goes on through PEFT's own forward, with the reason.
    """
    blocks = list(_wrapped_blocks(model))
    reasons = {reason: name for name, outer in blocks if (reason := _obstacle(outer))}
    if blocks and not reasons:
        use_implementation(model.get_base_model())
        for _, outer in blocks:
            outer.forward = SplitForward(outer)
    added = _add_for_good(outer.get_base_layer() for _, outer in blocks) if reasons else ()
    return (
        *(
            f"[WARNING] the LoRA of {name} (and its like) is computed by PEFT's own, slower forward: {reason}"
            for reason, name in reasons.items()
        ),
        *added,
    )


def use_implementation(model: PreTrainedModel) -> None:
    """Let transformers call `split_experts_forward` for the experts of `model`."""
    ALL_EXPERTS_FUNCTIONS.register(IMPLEMENTATION, split_experts_forward)
    model.set_experts_implementation(IMPLEMENTATION)


def compute_beside(model: PreTrainedModel, blocks: Iterable[Any]) -> None:
    """Let `blocks`, which got factors of earlier stages beside their weights, compute them."""
    for experts in blocks:
        experts.routing_memory = RoutingMemory()
        experts.register_forward_pre_hook(_refuse_to_forget)
    use_implementation(model)


def _refuse_to_forget(experts: Any, _: Any) -> None:
    found = experts.config._experts_implementation
    if found != IMPLEMENTATION and _anything_beside(experts):
        raise RuntimeError(
            f"factors of earlier stages beside the weights of experts need the experts implementation "
            f"{IMPLEMENTATION!r}, found {found!r}"
        )


def _anything_beside(experts: nn.Module) -> bool:
    return any(beside(experts, parameter) is not None for parameter in PROJECTIONS)


def _add_for_good(blocks: Iterable[nn.Module]) -> tuple[str, ...]:
    """PEFT's forward knows nothing of factors beside the weights."""
    kept = [found for experts in blocks for found in all_beside(experts) if not found[2].folded]
    for module, parameter, factors in kept:
        add_for_good(module, parameter, factors)
    if not kept:
        return ()
    dtype = str(kept[0][0].get_parameter(kept[0][1]).dtype).removeprefix("torch.")
    return (
        f"[WARNING] what the earlier stages taught the experts is added to their weights in {dtype}, not "
        "kept beside them (SFT_MERGE_MODE=stack): PEFT's own forward cannot compute it there",
    )


def split_wrappers(model: nn.Module) -> set[ParamWrapper]:
    """The wrappers whose LoRA is computed in the split form."""
    forwards = [module.forward for module in model.modules() if isinstance(module, ParamWrapper)]
    return {w for forward in forwards if isinstance(forward, SplitForward) for w in forward.wrappers}


def _wrapped_blocks(model: nn.Module) -> Iterator[tuple[str, ParamWrapper]]:
    """(name, outermost wrapper) of every module with a wrapped stacked parameter."""
    inner = {module.base_layer for module in model.modules() if isinstance(module, ParamWrapper)}
    for name, module in model.named_modules():
        if isinstance(module, ParamWrapper) and module not in inner and module.num_experts > 1:
            yield name, module


def _by_parameter(outer: ParamWrapper) -> dict[str, ParamWrapper]:
    """The nested wrappers of one module, each under the parameter that it adapts."""
    wrappers = {}
    layer: Any = outer
    while isinstance(layer, ParamWrapper):
        wrappers[layer.parameter_name] = layer
        layer = layer.base_layer
    return wrappers


def _obstacle(outer: ParamWrapper) -> str | None:
    """Why this block cannot be computed in the split form; None when it can."""
    experts = outer.get_base_layer()
    found = _by_parameter(outer).keys()
    if found != set(PROJECTIONS):
        return f"only {', '.join(sorted(found))} of {type(experts).__name__} is adapted"
    return family_obstacle(experts)


def family_obstacle(experts: Any) -> str | None:
    """Why experts of this kind cannot be computed in the split form; None when they can."""
    family = type(experts).__name__
    # Set by transformers' decorator on every class that dispatches through its interface.
    if not getattr(experts, "has_gate", False):
        return f"{family} does not dispatch through transformers' interface for experts"
    if experts.has_post_expert_norm:
        return f"{family} normalises the output of every expert"
    if experts._is_expert_parallel:
        return f"{family} is spread over several devices"
    if not experts.gate_up_proj.is_floating_point():
        return f"the weights of {family} are quantised"
    return None


class SplitForward:
    """Stands in for the forward of the outermost wrapper of one block.

    An attribute of the instance, rather than a subclass: PEFT recognises its wrappers by the name of their
    class, and no other ParamWrapper in the process is to change. Where the adapter is merged, disabled or
    one of several, PEFT's own forward runs.
    """

    def __init__(self, outer: ParamWrapper) -> None:
        self._outer = outer
        wrappers = _by_parameter(outer)
        self.wrappers = tuple(wrappers[name] for name in PROJECTIONS)
        self._memory = RoutingMemory()

    def __call__(self, x: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        experts = self._outer.get_base_layer()
        adapter = self._adapter()
        if adapter is not None and experts.config._experts_implementation == IMPLEMENTATION:
            branch = LowRankBranch(self.wrappers, adapter, self._memory)
            return experts(x, *args, branch=branch, **options)
        if adapter is not None and self._outer.training and dropout_of(self._outer, adapter):
            raise RuntimeError(
                f"dropout on stacked experts needs the experts implementation {IMPLEMENTATION!r}, "
                f"found {experts.config._experts_implementation!r}"
            )
        return ParamWrapper.forward(self._outer, x, *args, **options)

    def _adapter(self) -> str | None:
        """The one adapter that is active and not merged, if there is one."""
        active = [name for name in self._outer.active_adapters if name in self._outer.lora_A]
        off = self._outer.disable_adapters or self._outer.merged
        return active[0] if len(active) == 1 and not off else None


class LowRankBranch:
    """What a call computes beside the weights of one block: the trained adapter in `wrappers` (gate_up,
    down), if there is one, and the factors of earlier stages."""

    def __init__(self, wrappers: Sequence[ParamWrapper], adapter: str, memory: RoutingMemory) -> None:
        self._wrappers, self._adapter, self.memory = wrappers, adapter, memory

    @property
    def dropout(self) -> float:
        training = [wrapper for wrapper in self._wrappers if wrapper.training]
        return dropout_of(training[-1], self._adapter) if training else 0.0

    def factors(self) -> list[torch.Tensor]:
        """A and B of gate_up, A and B of down; empty without an adapter."""
        return [
            linear[self._adapter].weight
            for wrapper in self._wrappers
            for linear in (wrapper.lora_A, wrapper.lora_B)
        ]

    def projections(self, experts: Any) -> tuple[FrozenProjection, FrozenProjection]:
        scalings = [wrapper.scaling[self._adapter] for wrapper in self._wrappers] or [1.0, 1.0]
        gate_up, down = map(_frozen_projection, (experts, experts), PROJECTIONS, scalings)
        return gate_up, down


def _frozen_projection(experts: Any, parameter: str, scaling: float) -> FrozenProjection:
    weight = getattr(experts, parameter).detach()
    bias = getattr(experts, f"{parameter}_bias").detach() if experts.has_bias else None
    by_input = weight if experts.is_transposed else weight.transpose(1, 2)
    return FrozenProjection(by_input, bias, scaling, beside(experts, parameter))


def _without_adapter(experts: Any) -> LowRankBranch | None:
    """The branch of a call outside any adapter of ours; None where nothing is kept beside the weights."""
    if not _anything_beside(experts):
        return None
    if any(getattr(experts, parameter).requires_grad for parameter in PROJECTIONS):
        raise RuntimeError(
            "these experts have factors of earlier stages beside their weights; there neither the weights "
            "themselves nor several adapters at once can be trained"
        )
    return LowRankBranch((), "", experts.routing_memory)


def dropout_of(wrapper: ParamWrapper, adapter: str) -> float:
    """PEFT keeps an Identity where there is none."""
    layer = wrapper.lora_dropout[adapter]
    return layer.p if isinstance(layer, nn.Dropout) else 0.0


def split_experts_forward(
    experts: Any,
    hidden_states: torch.Tensor,
    top_k_index: torch.Tensor,
    top_k_weights: torch.Tensor,
    branch: LowRankBranch | None = None,
) -> torch.Tensor:
    """The implementation that transformers calls; with nothing beside the weights it is its own grouped one.

    One number is drawn per call: it seeds the dropout and names the call, so that the forward which
    checkpointing repeats finds the routing of the first.
    """
    branch = branch or _without_adapter(experts)
    if branch is None:
        return grouped_mm_experts_forward(experts, hidden_states, top_k_index, top_k_weights)
    number = int(torch.randint(2**63 - 1, ()))
    weights = experts.gate_up_proj, experts.down_proj
    routing = branch.memory.recall(number)
    if routing is None:
        on_cpu_in_half = weights[0].device.type == "cpu" and weights[0].dtype != torch.float32
        routing = sort_by_expert(top_k_index, experts.num_experts, padded=on_cpu_in_half)
        branch.memory.keep(number, routing)
    gate_up, down = branch.projections(experts)
    call = ExpertCall(
        gate_up=gate_up,
        down=down,
        gate=gate_of(experts),
        routing=routing,
        products=choose_products(routing, *weights),
        dropout=branch.dropout,
        seed=number,
    )
    ordered = weights_for(routing, top_k_index, top_k_weights)
    return SplitExperts.apply(call, hidden_states, ordered, *branch.factors())
