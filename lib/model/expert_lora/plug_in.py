"""Makes PEFT's wrappers of stacked experts compute the split form; everything else stays PEFT's.

The wrappers, their parameters and names are untouched: saving, loading, merging and disabling are PEFT's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora.layer import ParamWrapper
from torch import nn
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS, grouped_mm_experts_forward

from lib.model.expert_lora.gate import gate_of
from lib.model.expert_lora.kernel import ExpertCall, SplitExperts
from lib.model.expert_lora.products import choose_products
from lib.model.expert_lora.projection import FrozenProjection
from lib.model.expert_lora.routing import RoutingMemory, sort_by_expert, weights_for

IMPLEMENTATION = "split_lora"
"""Our name among transformers' implementations of experts (`set_experts_implementation`)."""
PROJECTIONS = {"gate_up_proj", "down_proj"}


def use_split_expert_lora(model: PeftModel) -> tuple[str, ...]:
    """Let every block whose gate_up and down carry a LoRA compute the split form.

    Returns one notice for each kind of block that goes on through PEFT's own forward, with the reason.
    """
    blocks = list(_wrapped_blocks(model))
    reasons = {reason: name for name, outer in blocks if (reason := _obstacle(outer))}
    if blocks and not reasons:
        ALL_EXPERTS_FUNCTIONS.register(IMPLEMENTATION, split_experts_forward)
        model.get_base_model().set_experts_implementation(IMPLEMENTATION)
        for _, outer in blocks:
            outer.forward = SplitForward(outer)
    return tuple(
        f"[WARNING] the LoRA of {name} (and its like) is computed by PEFT's own, slower forward: {reason}"
        for reason, name in reasons.items()
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
    family, found = type(experts).__name__, _by_parameter(outer).keys()
    if found != PROJECTIONS:
        return f"only {', '.join(sorted(found))} of {family} is adapted"
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
        self._gate_up, self._down = wrappers["gate_up_proj"], wrappers["down_proj"]
        self.wrappers = (self._gate_up, self._down)
        self._memory = RoutingMemory()

    def __call__(self, x: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        experts = self._outer.get_base_layer()
        adapter = self._adapter()
        if adapter is not None and experts.config._experts_implementation == IMPLEMENTATION:
            branch = LoraBranch(self._gate_up, self._down, adapter, self._memory)
            return experts(x, *args, lora=branch, **options)
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


class LoraBranch:
    """The adapter of one block, as a call needs it."""

    def __init__(
        self, gate_up: ParamWrapper, down: ParamWrapper, adapter: str, memory: RoutingMemory
    ) -> None:
        self.gate_up, self.down, self.adapter, self.memory = gate_up, down, adapter, memory

    @property
    def dropout(self) -> float:
        return dropout_of(self.down, self.adapter) if self.down.training else 0.0

    def factors(self) -> list[torch.Tensor]:
        """A and B of gate_up, A and B of down."""
        return [
            linear[self.adapter].weight
            for wrapper in (self.gate_up, self.down)
            for linear in (wrapper.lora_A, wrapper.lora_B)
        ]

    def frozen(self, wrapper: ParamWrapper) -> FrozenProjection:
        experts = wrapper.get_base_layer()
        weight = wrapper.get_param().detach()
        bias = getattr(experts, f"{wrapper.parameter_name}_bias").detach() if experts.has_bias else None
        by_input = weight if experts.is_transposed else weight.transpose(1, 2)
        return FrozenProjection(by_input, bias, wrapper.scaling[self.adapter])


def dropout_of(wrapper: ParamWrapper, adapter: str) -> float:
    """PEFT keeps an Identity where there is none."""
    layer = wrapper.lora_dropout[adapter]
    return layer.p if isinstance(layer, nn.Dropout) else 0.0


def split_experts_forward(
    experts: Any,
    hidden_states: torch.Tensor,
    top_k_index: torch.Tensor,
    top_k_weights: torch.Tensor,
    lora: LoraBranch | None = None,
) -> torch.Tensor:
    """The implementation that transformers calls; without an adapter it is its own grouped one.

    One number is drawn per call: it seeds the dropout and names the call, so that the forward which
    checkpointing repeats finds the routing of the first.
    """
    if lora is None:
        return grouped_mm_experts_forward(experts, hidden_states, top_k_index, top_k_weights)
    number = int(torch.randint(2**63 - 1, ()))
    weights = experts.gate_up_proj, experts.down_proj
    routing = lora.memory.recall(number)
    if routing is None:
        on_cpu_in_half = weights[0].device.type == "cpu" and weights[0].dtype != torch.float32
        routing = sort_by_expert(top_k_index, experts.num_experts, padded=on_cpu_in_half)
        lora.memory.keep(number, routing)
    call = ExpertCall(
        gate_up=lora.frozen(lora.gate_up),
        down=lora.frozen(lora.down),
        gate=gate_of(experts),
        routing=routing,
        products=choose_products(routing, *weights),
        dropout=lora.dropout,
        seed=number,
    )
    ordered = weights_for(routing, top_k_index, top_k_weights)
    return SplitExperts.apply(call, hidden_states, ordered, *lora.factors())
