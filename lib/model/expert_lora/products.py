"""Products of rows that stand sorted by expert with the matrix of their expert.

Two ways that compute the same: on a GPU all experts in one grouped product; on a CPU one expert after the
other, in runs of experts whose rows stay in the cache from the first product to the last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Protocol

import torch
from torch.nn.functional import grouped_mm

from lib.model.expert_lora.routing import Routing

RUN_VALUES = 1 << 21
"""Of the widest activation of a run. Measured (docs/log.md): longer runs save calls, shorter ones cache."""
Matrices = Sequence[torch.Tensor]
"""What a block of rows meets: a matrix for each of its experts, or one stack of all."""


class Block(Protocol):
    """Some rows, and the experts that they belong to."""

    def pieces(
        self, rows: Sequence[torch.Tensor], matrices: Sequence[Matrices]
    ) -> Iterable[tuple[torch.Tensor, ...]]:
        """The block in pieces that are multiplied at once: of every `rows`, then of every `matrices`."""

    def product(self, x: torch.Tensor, matrix: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """out = x @ matrix."""

    def add_product(self, out: torch.Tensor, x: torch.Tensor, matrix: torch.Tensor, scale: float) -> None:
        """out += scale · x @ matrix."""

    def outer(self, a: torch.Tensor, b: torch.Tensor, out: torch.Tensor, scale: float) -> None:
        """out = scale · aᵀ @ b, summed over the rows of each expert; what `out` held does not matter."""

    def by_row(self, vectors: Matrices) -> torch.Tensor:
        """(rows, width): the vector of each row's expert."""

    def sum_by_token(self, total: torch.Tensor, tokens: torch.Tensor, rows: torch.Tensor) -> None:
        """total[token] += rows, in the same order every time."""


class Products(Protocol):
    """How the rows of a batch are cut into blocks."""

    blocks: Sequence[Block]

    def rank(self, rank: int) -> int:
        """The rank that factors of `rank` are filled up to with zeros."""

    def rows(self, tensor: torch.Tensor) -> Sequence[torch.Tensor]:
        """Views of (rows, …), one a block."""

    def matrices(self, stack: torch.Tensor) -> Sequence[Matrices]:
        """Views of (experts, …), those of one block after the other."""

    def gradient_like(self, stack: torch.Tensor) -> torch.Tensor:
        """Of its shape and strides; `outer` fills in what belongs to experts with rows, the rest is 0."""


class OneByOne:
    """Every block is a run of experts that have rows."""

    def __init__(self, routing: Routing, run_rows: int) -> None:
        self._sizes = routing.sizes()
        self._runs = list(_runs(self._sizes, run_rows))
        by_run = [[self._sizes[expert] for expert in run] for run in self._runs]
        self._rows = [sum(sizes) for sizes in by_run]
        self.blocks: Sequence[Block] = [RunOfExperts(sizes) for sizes in by_run]

    def rank(self, rank: int) -> int:
        return rank

    def rows(self, tensor: torch.Tensor) -> Sequence[torch.Tensor]:
        return tensor.split(self._rows)

    def matrices(self, stack: torch.Tensor) -> Sequence[Matrices]:
        single = stack.unbind(0)
        return [[single[expert] for expert in run] for run in self._runs]

    def gradient_like(self, stack: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(stack) if all(self._sizes) else torch.zeros_like(stack)


def _runs(sizes: Sequence[int], run_rows: int) -> Iterator[list[int]]:
    """Experts that have rows, in runs that end as soon as they reach `run_rows`."""
    run: list[int] = []
    for expert, size in enumerate(sizes):
        if size:
            run.append(expert)
        if sum(sizes[expert] for expert in run) >= run_rows:
            yield run
            run = []
    if run:
        yield run


class RunOfExperts:
    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes

    def pieces(
        self, rows: Sequence[torch.Tensor], matrices: Sequence[Matrices]
    ) -> Iterable[tuple[torch.Tensor, ...]]:
        """One expert after the other: its rows are still in the cache when they are multiplied again."""
        return zip(*(tensor.split(self.sizes) for tensor in rows), *matrices, strict=True)

    def product(self, x: torch.Tensor, matrix: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        return torch.mm(x, matrix, out=out)

    def add_product(self, out: torch.Tensor, x: torch.Tensor, matrix: torch.Tensor, scale: float) -> None:
        out.addmm_(x, matrix, alpha=scale)

    def outer(self, a: torch.Tensor, b: torch.Tensor, out: torch.Tensor, scale: float) -> None:
        out.addmm_(a.t(), b, beta=0, alpha=scale)

    def by_row(self, vectors: Matrices) -> torch.Tensor:
        sizes = torch.tensor(self.sizes, device=vectors[0].device)
        return torch.stack(list(vectors)).repeat_interleave(sizes, 0)

    def sum_by_token(self, total: torch.Tensor, tokens: torch.Tensor, rows: torch.Tensor) -> None:
        """On the CPU the order of such a sum is fixed; on a GPU it is where no token occurs twice."""
        total.index_add_(0, tokens, rows.to(total.dtype))


class Together:
    """One block of all rows."""

    def __init__(self, routing: Routing) -> None:
        self.blocks: Sequence[Block] = [AllExperts(routing)]

    def rank(self, rank: int) -> int:
        """Grouped products want strides of whole 16 bytes."""
        return -(-rank // 8) * 8

    def rows(self, tensor: torch.Tensor) -> Sequence[torch.Tensor]:
        return [tensor]

    def matrices(self, stack: torch.Tensor) -> Sequence[Matrices]:
        return [[stack]]

    def gradient_like(self, stack: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(stack)


class AllExperts:
    def __init__(self, routing: Routing) -> None:
        self._ends = routing.ends.to(torch.int32)
        self._hit = self._ends.diff(prepend=self._ends.new_zeros(1)).gt(0).view(-1, 1, 1)
        self._experts = routing.experts
        self._places = routing.slots.argsort()[: routing.chosen.numel()]  # padding comes last

    def pieces(
        self, rows: Sequence[torch.Tensor], matrices: Sequence[Matrices]
    ) -> Iterable[tuple[torch.Tensor, ...]]:
        return [(*rows, *(stack for (stack,) in matrices))]

    def product(self, x: torch.Tensor, matrix: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        return out.copy_(grouped_mm(x, matrix, offs=self._ends))

    def add_product(self, out: torch.Tensor, x: torch.Tensor, matrix: torch.Tensor, scale: float) -> None:
        out.add_(grouped_mm(x, matrix, offs=self._ends), alpha=scale)

    def outer(self, a: torch.Tensor, b: torch.Tensor, out: torch.Tensor, scale: float) -> None:
        """What a kernel leaves behind for an expert without rows is not promised to be 0."""
        sums = grouped_mm(a.t(), b, offs=self._ends)
        torch.mul(torch.where(self._hit, sums, 0), scale, out=out)

    def by_row(self, vectors: Matrices) -> torch.Tensor:
        return vectors[0].index_select(0, self._experts)

    def sum_by_token(self, total: torch.Tensor, tokens: torch.Tensor, rows: torch.Tensor) -> None:
        """A sum over each token's choices: adding by index has no fixed order on a GPU."""
        by_slot = rows.index_select(0, self._places)
        total.add_(by_slot.view(len(total), -1, total.shape[1]).sum(1, dtype=total.dtype))


def choose_products(routing: Routing, *weights: torch.Tensor) -> Products:
    """`weights` are the stacks that `routing` sends rows to."""
    device = weights[0].device
    if device.type == "cpu":
        widest = max(size for stack in weights for size in stack.shape[1:])
        half = -(-routing.chosen.numel() // 2)
        return OneByOne(routing, max(1, min(RUN_VALUES // widest, half)))
    sixteen_bytes = all(size * stack.itemsize % 16 == 0 for stack in weights for size in stack.shape[1:])
    if sixteen_bytes and grouped_products_are_right(device, weights[0].dtype):
        return Together(routing)
    return OneByOne(routing, run_rows=1)


@cache
def grouped_products_are_right(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this device multiplies groups as its plain product does, asked once.

    On some GPUs grouped products of transposed views were silently wrong (pytorch #186365), and not every
    dtype has them. All the layouts that the kernel uses are tried.
    """
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    x, y, stack = random(48, 64), random(48, 32), random(3, 32, 64)
    scattered = random(32, 3, 64).transpose(0, 1)
    ends = torch.tensor([16, 16, 48], dtype=torch.int32, device=device)
    pairs = [(x, stack.mT), (y, stack), (y, scattered), (x, scattered.mT)]
    try:
        found = [grouped_mm(rows, matrices, offs=ends) for rows, matrices in pairs]
        outer = grouped_mm(x.t(), y, offs=ends)[[0, 2]]
    except RuntimeError:
        return False
    wanted = [torch.cat([rows[:16] @ m[0], rows[16:] @ m[2]]) for rows, m in pairs]
    outer_wanted = torch.stack([x[:16].t() @ y[:16], x[16:].t() @ y[16:]])
    return all(map(_close, [*found, outer], [*wanted, outer_wanted]))


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one.float(), other.float(), rtol=0.05, atol=0.5)
