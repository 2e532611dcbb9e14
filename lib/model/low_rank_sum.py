"""The arithmetic of a merge: W = round(W0 + sum of s·BA over all adapters), one matrix after the other.

Products and sums are in float64, where the order of summation moves nothing that the result could show. A
16-bit weight is the sum as the nearest fp32 number, rounded to its type; any other is the sum, rounded. So the
result is that of a plain `(W0.double() + update.double()).to(dtype)`, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from lib.model.adapter_files import LowRankUpdate, misfit
from lib.model.checkpoint_layout import Matrix, ParameterMerge
from lib.model.merge_proof import Tally
from lib.model.weight_files import StoredTensor, read_bytes, read_into, write_from

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
# Weights at a time. Their buffers stay in a core's cache: larger blocks ran at half the speed.
BLOCK = 2**18
BYTES_PER_BLOCK_WEIGHT = 8 + 3 * 8 + 2 * 8


@dataclass(frozen=True)
class Factors:
    """The update of one parameter, of all adapters together: for expert e it is left[e] @ right[e], with the
    ranks of all adapters side by side. float64; scaling is in `left`."""

    down: tuple[torch.Tensor, ...]
    up: tuple[torch.Tensor, ...]
    scaling: tuple[float, ...]
    transposed: bool

    def of_expert(self, expert: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(rows, ranks) and (ranks, columns) of this expert's update as it lies on disk."""
        left = torch.cat(
            [s * up[expert].double() for s, up in zip(self.scaling, self.up, strict=True)], dim=1
        )
        right = torch.cat([down[expert].double() for down in self.down])
        return (right.T.contiguous(), left.T.contiguous()) if self.transposed else (left, right)


def read_factors(merge: ParameterMerge) -> Factors:
    """The factors of all updates of one parameter, expert by expert.

    Raises InputError when one of them is not finite, or is zero throughout: then that target never learned.
    """
    down, up = [], []
    for update in merge.updates:
        a, b = _read_tensor(update.down), _read_tensor(update.up)
        _refuse_dead(update, a, b)
        down.append(a.reshape(merge.experts, update.rank, update.inputs))
        up.append(b.reshape(update.outputs, update.rank, merge.experts).permute(2, 0, 1).contiguous())
    scaling = tuple(update.scaling for update in merge.updates)
    return Factors(tuple(down), tuple(up), scaling, merge.transposed)


def _read_tensor(stored: StoredTensor) -> torch.Tensor:
    return torch.frombuffer(read_bytes(stored), dtype=DTYPES[stored.dtype]).reshape(stored.shape)


def _refuse_dead(update: LowRankUpdate, a: torch.Tensor, b: torch.Tensor) -> None:
    for name, factor in ((update.down.name, a), (update.up.name, b)):
        size = factor.double().abs().sum().item()
        if not math.isfinite(size):
            raise misfit(update.adapter, f"{name} has values that are not finite")
        if not size:
            raise misfit(update.adapter, f"{name} is zero: {update.parameter} was never trained")


def working_bytes(merge: ParameterMerge) -> int:
    """Most memory that merging this parameter takes, all its experts' factors included."""
    factors = sum(2 * (update.down.length + 2 * update.up.length) for update in merge.updates)
    ranks = sum(update.rank for update in merge.updates)
    sides = sum(max(update.inputs + update.outputs for update in merge.updates) for _ in range(2))
    widest = max(matrix.columns for matrix in merge.matrices)
    return factors + 2 * 8 * ranks * sides + BYTES_PER_BLOCK_WEIGHT * max(BLOCK, widest)


class Workspace:
    """Buffers for one block of one matrix, used again for the next: fresh memory costs more than the sums."""

    def __init__(self, matrix: Matrix) -> None:
        self.dtype = DTYPES[matrix.tensor.dtype]
        self.columns = matrix.columns
        self.rows = max(1, BLOCK // matrix.columns)
        # The type in which the exact sum is stated before it is rounded.
        wide = torch.float32 if self.dtype.itemsize == 2 else torch.float64
        shape = (self.rows, self.columns)
        self.before = torch.empty(shape, dtype=self.dtype)
        self.after = torch.empty(shape, dtype=self.dtype)
        self.exact = torch.empty(shape, dtype=torch.float64)
        self.sum, self.error, self.update = (torch.empty(shape, dtype=wide) for _ in range(3))

    def fits(self, matrix: Matrix) -> bool:
        return (self.columns, self.dtype) == (matrix.columns, DTYPES[matrix.tensor.dtype])


def merge_matrix(matrix: Matrix, factors: Factors, source: int, target: int, space: Workspace) -> Tally:
    """Read the matrix from the open file `source`, add its update, write it to the same place of `target`.

    A matrix whose update is zero (an expert that no token of the training reached) is written as it was.
    """
    left, right = factors.of_expert(matrix.expert)
    left = left[matrix.first_row : matrix.first_row + matrix.rows]
    intended = _squared_norm(left, right)
    total = Tally(intended=intended)
    for rows, offset in _blocks(matrix, space.rows):
        count = rows.stop - rows.start
        read_into(source, _bytes_of(space.before[:count]), offset)
        if intended:
            total += _add(space, count, left[rows], right)
        write_from(target, _bytes_of((space.after if intended else space.before)[:count]), offset)
    return total


def _blocks(matrix: Matrix, height: int) -> Iterator[tuple[slice, int]]:
    """Slices of rows, each with its first byte in the file."""
    for first in range(0, matrix.rows, height):
        last = min(first + height, matrix.rows)
        yield slice(first, last), matrix.offset + first * (matrix.bytes // matrix.rows)


def _bytes_of(block: torch.Tensor) -> memoryview:
    return memoryview(block.view(torch.uint8).numpy()).cast("B")


def _squared_norm(left: torch.Tensor, right: torch.Tensor) -> float:
    """|left @ right|^2 from two small products: the trace of (left'left)(right right')."""
    return max((left.T @ left * (right @ right.T)).sum().item(), 0.0)


def _add(space: Workspace, count: int, left: torch.Tensor, right: torch.Tensor) -> Tally:
    """`after` = round(`before` + left @ right) in the first `count` rows. What the rounding did is measured on
    the way: R - D = after - sum, D = sum - before."""
    before, after = space.before[:count], space.after[:count]
    exact, total = space.exact[:count], space.sum[:count]
    error, update = space.error[:count], space.update[:count]
    exact.copy_(before).addmm_(left, right)
    total.copy_(exact)
    after.copy_(total)
    error.copy_(after).sub_(total)
    update.copy_(before)
    torch.sub(total, update, out=update)
    flat, intended = error.view(-1), update.view(-1)
    changed = not torch.equal(before.view(torch.uint8), after.view(torch.uint8))
    return Tally(0.0, torch.dot(flat, flat).item(), torch.dot(flat, intended).item(), changed)
