"""The arithmetic of a merge: W = round(W0 + sum of s·BA over all adapters), one matrix after the other.

Products and sums are in float64, where the order of summation moves nothing that the result could show. A
16-bit weight is the sum as the nearest fp32 number, rounded to its type; any other is the sum, rounded.
So the result is that of a plain `(W0.double() + update.double()).to(dtype)`, bit for bit.
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
BLOCK = 2**17
BYTES_PER_BLOCK_WEIGHT = 8 + 3 * 8 + 2 * 8


@dataclass(frozen=True)
class Factors:
    """The update of one parameter, of all adapters together: that of expert e, as it lies on disk, is
    left[e] @ right[e]. float64; `left` (experts, rows, ranks), `right` (experts, ranks, columns), with the
    ranks of all adapters side by side and their scaling multiplied in."""

    left: torch.Tensor
    right: torch.Tensor


def read_stacked(merge: ParameterMerge) -> tuple[torch.Tensor, torch.Tensor]:
    """B (experts, outputs, ranks), scaled, and A (experts, ranks, inputs) of all updates of one parameter,
    their ranks side by side; float64.

    Raises InputError when one of them is not finite, or is zero throughout: then that target never learned.
    """
    up = torch.cat([_read_up(update, merge.experts) for update in merge.updates], dim=2)
    return up, torch.cat([_read_down(update, merge.experts) for update in merge.updates], dim=1)


def read_factors(merge: ParameterMerge) -> Factors:
    """The factors of all updates of one parameter, as it lies on disk. Raises InputError as
    `read_stacked`."""
    left, right = read_stacked(merge)
    if merge.transposed:
        left, right = right.mT.contiguous(), left.mT.contiguous()
    return Factors(left, right)


def _read_up(update: LowRankUpdate, experts: int) -> torch.Tensor:
    """Scaled B, (experts, outputs, rank); in the file it is (outputs, rank x experts)."""
    factor = _read_living(update, update.up).reshape(update.outputs, update.rank, experts)
    return factor.permute(2, 0, 1) * update.scaling


def _read_down(update: LowRankUpdate, experts: int) -> torch.Tensor:
    """A, (experts, rank, inputs)."""
    return _read_living(update, update.down).reshape(experts, update.rank, update.inputs)


def _read_living(update: LowRankUpdate, stored: StoredTensor) -> torch.Tensor:
    values = torch.frombuffer(read_bytes(stored), dtype=DTYPES[stored.dtype]).double()
    size = torch.dot(values, values).item()
    if not math.isfinite(size):
        raise misfit(update.adapter, f"{stored.name} has values that are not finite")
    if not size:
        raise misfit(update.adapter, f"{stored.name} is zero: {update.parameter} was never trained")
    return values


def working_bytes(merge: ParameterMerge) -> int:
    """Most memory that merging this parameter takes: all factors, twice while they are put in order, and the
    buffers of one block."""
    values = sum(math.prod(f.shape) for update in merge.updates for f in (update.down, update.up))
    widest = max(matrix.columns for matrix in merge.matrices)
    return 2 * 8 * values + BYTES_PER_BLOCK_WEIGHT * max(BLOCK, widest)


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

    def differs(self, count: int) -> bool:
        """Whether any of the first `count` rows is other bits than before."""
        bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[self.dtype.itemsize]
        return not torch.equal(self.before[:count].view(bits), self.after[:count].view(bits))


def merge_matrix(matrix: Matrix, factors: Factors, source: int, target: int, space: Workspace) -> Tally:
    """Read the matrix from the open file `source`, add its update, write it to the same place of `target`.

    A matrix whose update is zero (an expert that no token of the training reached) is written as it was.
    """
    left = factors.left[matrix.expert, matrix.first_row : matrix.first_row + matrix.rows]
    right = factors.right[matrix.expert]
    intended = _squared_norm(left, right)
    total = Tally(intended=intended)
    for rows, offset in _blocks(matrix, space.rows):
        count = rows.stop - rows.start
        read_into(source, _bytes_of(space.before[:count]), offset)
        if intended:
            total += _add(space, count, left[rows], right)
            if not total.changed and space.differs(count):
                total += Tally(changed=True)
        write_from(target, _bytes_of((space.after if intended else space.before)[:count]), offset)
    return total


def _blocks(matrix: Matrix, height: int) -> Iterator[tuple[slice, int]]:
    """Slices of rows, each with its first byte in the file."""
    for first in range(0, matrix.rows, height):
        last = min(first + height, matrix.rows)
        yield slice(first, last), matrix.offset + first * (matrix.bytes // matrix.rows)


def _bytes_of(block: torch.Tensor) -> memoryview:
    return block.view(torch.uint8).numpy().data.cast("B")


def _squared_norm(left: torch.Tensor, right: torch.Tensor) -> float:
    """|left @ right|^2 from two small products: the trace of (left'left)(right right')."""
    return max((left.T @ left * (right @ right.T)).sum().item(), 0.0)


def _add(space: Workspace, count: int, left: torch.Tensor, right: torch.Tensor) -> Tally:
    """`after` = round(`before` + left @ right) in the first `count` rows. What the rounding did is measured
    on the way: R - D = after - sum, D = sum - before."""
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
    return Tally(error=torch.dot(flat, flat).item(), cross=torch.dot(flat, intended).item())
