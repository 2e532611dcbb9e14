"""Which rows every expert computes: the (token, choice) pairs of a batch, sorted by expert once."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakValueDictionary

import torch


@dataclass(frozen=True, eq=False)
class Routing:
    """One row is one token at one of its experts; rows stand sorted by expert.

    Padding rows, if any, belong to token 0 with weight 0: they compute something finite that no sum sees.
    """

    chosen: torch.Tensor
    """(tokens, k): the experts of every token."""
    slots: torch.Tensor
    """(rows,): position of the row in `chosen` flattened; one past the end for a padding row."""
    ends: torch.Tensor
    """(experts,): where the rows of each expert end."""

    @property
    def tokens(self) -> torch.Tensor:
        """(rows,): the token of every row."""
        padding = self.slots == self.chosen.numel()
        return (self.slots // self.chosen.shape[1]).masked_fill_(padding, 0)

    @property
    def experts(self) -> torch.Tensor:
        """(rows,): the expert of every row."""
        rows = torch.arange(len(self.slots), device=self.slots.device)
        return torch.searchsorted(self.ends, rows, right=True)

    def by_choice(self, rows: torch.Tensor) -> torch.Tensor:
        """(rows, 1) back in the places of `chosen`."""
        places = rows.new_zeros(self.chosen.numel() + 1)
        return places.index_copy(0, self.slots, rows.squeeze(1))[:-1].view(self.chosen.shape)

    def sizes(self) -> list[int]:
        """Rows of every expert, on the host."""
        ends = self.ends.tolist()
        return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def sort_by_expert(chosen: torch.Tensor, experts: int, *, padded: bool) -> Routing:
    """Sort the rows of `chosen` (tokens, k) by expert; `padded` rounds the rows of an expert up."""
    sorted_experts, order = torch.sort(chosen.reshape(-1), stable=True)
    numbers = torch.arange(experts, device=chosen.device, dtype=chosen.dtype)
    ends = torch.searchsorted(sorted_experts, numbers, right=True)
    routing = Routing(chosen, order, ends)
    return _pad(routing) if padded else routing


def _pad(routing: Routing) -> Routing:
    counts = torch.tensor(routing.sizes())
    sizes = torch.tensor([rounded_up(count) for count in counts.tolist()])
    ends = sizes.cumsum(0)
    shifts = ends - sizes - (counts.cumsum(0) - counts)
    total = routing.slots.numel()
    slots = torch.full((int(ends[-1]),), total, dtype=routing.slots.dtype)
    slots[torch.arange(total) + shifts.repeat_interleave(counts)] = routing.slots
    return Routing(routing.chosen, slots, ends)


def rounded_up(count: int) -> int:
    """The next of at most eight sizes per doubling, none below eight.

    On the CPU a bf16 product is compiled anew for every number of rows; random routing would go on
    compiling for ever.
    """
    step = max(8, 1 << max(0, (count - 1).bit_length() - 4))
    return -(-count // step) * step


class RoutingMemory:
    """Routings by the number of their call, as long as the backward still needs them.

    Under gradient checkpointing the forward runs twice, and rounding may let the router choose otherwise
    the second time. Checkpointing restores the random state, so that the recomputed call draws the same
    number and finds the routing of the first.
    """

    def __init__(self) -> None:
        self._kept: WeakValueDictionary[int, Routing] = WeakValueDictionary()

    def recall(self, call: int) -> Routing | None:
        """The routing of the first forward of `call`; None when this is the first."""
        # Only a recompute runs inside a backward; torch has no public name for the question.
        recomputing = torch._C._current_graph_task_id() != -1
        return self._kept.get(call) if recomputing else None

    def keep(self, call: int, routing: Routing) -> None:
        self._kept[call] = routing


def weights_for(routing: Routing, chosen: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """`weights`, which belong to `chosen`, in the order of `routing.chosen`.

    An expert that is missing from `chosen` takes the weight at its own position: the router was in a near
    tie between the two. Done in every forward, although only a recomputed one can differ: checkpointing
    demands that both keep the same tensors.
    """
    same = routing.chosen.unsqueeze(2) == chosen.unsqueeze(1)
    own = torch.arange(chosen.shape[1], device=chosen.device).expand_as(chosen)
    moved = same.any(2) & (routing.chosen != chosen)
    return weights.gather(1, torch.where(moved, same.int().argmax(2), own))
