"""What earlier stages add to a weight, kept beside it in low-rank factors instead of being added into it.

Nothing of it is trained or saved: buffers that no state dict holds, on the device and in the number type of
the weight. A linear layer adds its branch in a hook, experts in the split form (`expert_lora`).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.functional import linear, pad

ATTRIBUTE = "earlier_stages"
# Grouped products want strides of whole 16 bytes.
RANKS_PER_STEP = 8


class FrozenFactors(nn.Module):
    """The sum of s·BA over the adapters of earlier stages for one weight, or for each expert of a stack.

    `a` is (experts, ranks, in), `b` is (ranks, experts, out) with the scaling multiplied in; the ranks of all
    stages stand one after the other, filled up with zeros to a multiple of eight. A weight that is no stack
    counts as one expert. Behind the first `rank` ranks there may be room for trained factors (`with_room`).
    """

    a: torch.Tensor
    b: torch.Tensor

    def __init__(self, a: torch.Tensor, b: torch.Tensor, *, weight: torch.Tensor, transposed: bool) -> None:
        """`transposed` is true for a weight that is kept as (in, out)."""
        super().__init__()
        self.rank = -(-a.shape[1] // RANKS_PER_STEP) * RANKS_PER_STEP
        self.folded = False
        """Whether they are in the weight at present, so that nothing is to be added beside it."""
        self._transposed, self._stacked = transposed, weight.ndim == 3
        missing = self.rank - a.shape[1]
        for name, factor, filling in (("a", a, (0, 0, 0, missing)), ("b", b, (0, 0, 0, 0, 0, missing))):
            self.register_buffer(name, pad(factor, filling).to(weight.device, weight.dtype), persistent=False)

    def update(self) -> torch.Tensor:
        """What they add to the weight, fp32, in its shape."""
        a, b = self.a[:, : self.rank].float(), self.b[: self.rank].float()
        update = torch.einsum("reo,eri->eio" if self._transposed else "reo,eri->eoi", b, a)
        return update if self._stacked else update[0]

    def with_room(self, ranks: int) -> tuple[torch.Tensor, torch.Tensor]:
        """a and b with `ranks` more ranks behind the frozen ones, at first zeros. The same memory every time:
        copying the frozen factors in every pass would cost as much as multiplying with them."""
        missing = self.rank + ranks - self.a.shape[1]
        if missing > 0:
            self.a, self.b = pad(self.a, (0, 0, 0, missing)), pad(self.b, (0, 0, 0, 0, 0, missing))
        return self.a[:, : self.rank + ranks], self.b[: self.rank + ranks]


def keep_beside(module: nn.Module, parameter: str, factors: FrozenFactors) -> None:
    """From now on `module` has `factors` beside its `parameter`. Experts must be told to compute them."""
    if ATTRIBUTE not in module._modules:
        module.register_module(ATTRIBUTE, nn.ModuleDict())
    module.get_submodule(ATTRIBUTE)[_key(parameter)] = factors  # type: ignore[operator]
    if parameter == "weight":
        module.register_forward_hook(_add_beside)


def beside(module: nn.Module, parameter: str) -> FrozenFactors | None:
    """The factors to compute beside a parameter; None where there are none, or while they are in the
    weight."""
    kept = module._modules.get(ATTRIBUTE)
    factors = kept[_key(parameter)] if kept is not None and _key(parameter) in kept else None  # type: ignore[index, operator]
    return None if factors is None or factors.folded else factors


def all_beside(model: nn.Module) -> Iterator[tuple[nn.Module, str, FrozenFactors]]:
    """(module, name of its parameter, factors beside it) throughout the model."""
    for module in model.modules():
        kept = module._modules.get(ATTRIBUTE)
        for key, factors in kept.items() if kept is not None else ():  # type: ignore[operator]
            yield module, key.removesuffix(_key("")), factors


def add_for_good(module: nn.Module, parameter: str, factors: FrozenFactors) -> None:
    """Add the update to the weight, rounded to its number type, where nothing can be computed beside it."""
    weight = module.get_parameter(parameter)
    weight.data = (weight.data.float() + factors.update()).to(weight.dtype)
    factors.folded = True


def _key(parameter: str) -> str:
    """Not the parameter's own name: PEFT would take a module called down_proj for a target."""
    return f"{parameter}_update"


def _add_beside(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
    """Forward hook of a linear layer: y + (xAᵀ)B."""
    factors = beside(layer, "weight")
    if factors is None:
        return output
    low = linear(inputs[0], factors.a[0])
    return torch.addmm(output.flatten(0, -2), low.flatten(0, -2), factors.b[:, 0]).view_as(output)
