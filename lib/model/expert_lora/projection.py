"""One of the two projections of a block of experts: frozen weights with low-rank factors beside them.

The factors are those that are trained and those of earlier stages, either of which may be missing. Their
ranks stand side by side, the frozen ones first, so that one product does for both; only dropout, which acts
on the trained ones alone, takes them apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from lib.model.expert_lora.dropout import Mask
from lib.model.expert_lora.products import Block, Matrices, Products
from lib.model.frozen_factors import FrozenFactors


@dataclass(frozen=True)
class FrozenProjection:
    """y = xW (+ bias), what the product of the trained factors beside it is multiplied by, and the factors of
    earlier stages."""

    weight: torch.Tensor
    """(experts, in, out), a view of the base's own tensor."""
    bias: torch.Tensor | None
    """(experts, out)."""
    scaling: float
    earlier: FrozenFactors | None = None


class LoraProjection:
    """The factors in the order and dtype that products need, and gradients of the trained ones in PEFT's.

    PEFT stores A as (experts·rank, in) and B as (out, rank·experts). An expert's part of B lies scattered:
    it is gathered once per pass. `trained` is A and B, or nothing. `keep_rate` is the share of the branch's
    input that dropout leaves.

    The scaling goes into the products of rank r, which take a factor for nothing; beside frozen ranks, which
    have theirs multiplied in, it goes into A.
    """

    def __init__(
        self,
        frozen: FrozenProjection,
        trained: Sequence[torch.Tensor],
        products: Products,
        keep_rate: float,
    ) -> None:
        self._frozen, self._products = frozen, products
        self._scaling = frozen.scaling / keep_rate
        self._dtypes = [factor.dtype for factor in trained]
        experts, self.inputs, self.outputs = frozen.weight.shape
        self._rank = len(trained[0]) // experts if trained else 0
        filled_rank = products.rank(self._rank)
        self._split = frozen.earlier.rank if frozen.earlier else 0
        self.rank = self._split + filled_rank
        self._scale = 1.0 if frozen.earlier else self._scaling
        if frozen.earlier:
            self._a, b = frozen.earlier.with_room(filled_rank)
            self._b = b.transpose(0, 1)
            if trained:
                self._fill_room(*trained)
        elif trained:
            a, b = trained
            dtype = frozen.weight.dtype
            stacked = a.to(dtype).view(experts, self._rank, -1)
            gathered = b.to(dtype).t().contiguous().view(self._rank, experts, -1)
            self._a = _filled_up(stacked, 1, self.rank)
            self._b = _filled_up(gathered, 0, self.rank).transpose(0, 1)
        else:
            self._a = frozen.weight.new_empty(experts, 0, self.inputs)
            self._b = frozen.weight.new_empty(experts, 0, self.outputs)

    def _fill_room(self, a: torch.Tensor, b: torch.Tensor) -> None:
        ranks = slice(self._split, self._split + self._rank)
        torch.mul(a.view(len(self._a), self._rank, -1), self._scaling, out=self._a[:, ranks])
        self._b.transpose(0, 1)[ranks].view(-1, self.outputs).copy_(b.t())

    def blocks(self) -> Iterator[ForwardBlock]:
        matrices, bias = self._products.matrices, self._frozen.bias
        weights = matrices(self._frozen.weight)
        biases: Sequence[Matrices | None] = matrices(bias) if bias is not None else [None] * len(weights)
        each = zip(
            self._products.blocks, weights, biases, matrices(self._a.mT), matrices(self._b), strict=True
        )
        return (ForwardBlock(self._split, self._scale, *parts) for parts in each)

    def backward_blocks(self) -> Iterator[BackwardBlock]:
        """When all have collected, `gradients` are complete."""
        matrices, bias = self._products.matrices, self._frozen.bias
        weights = matrices(self._frozen.weight.mT)
        biases: Sequence[Matrices | None] = matrices(bias) if bias is not None else [None] * len(weights)
        trained = self._a[:, self._split :], self._b[:, self._split :]
        self._grad_a, self._grad_b = map(self._products.gradient_like, trained)
        stacks = (self._a, self._b.mT, self._grad_a, self._grad_b)
        each = zip(self._products.blocks, weights, biases, *map(matrices, stacks), strict=True)
        return (BackwardBlock(self._split, self._scale, self._scaling, *parts) for parts in each)

    def gradients(self) -> tuple[torch.Tensor, ...]:
        """Of the trained A and B as PEFT stores them, in their own dtype; none when none are trained."""
        if not self._rank:
            return ()
        a = self._grad_a[:, : self._rank].reshape(-1, self.inputs)
        b = self._grad_b[:, : self._rank].transpose(0, 1).reshape(-1, self.outputs).t().contiguous()
        return a.to(self._dtypes[0]), b.to(self._dtypes[1])


def _filled_up(stack: torch.Tensor, axis: int, rank: int) -> torch.Tensor:
    """`stack` with zeros up to `rank` along `axis`; itself when nothing is missing."""
    missing = rank - stack.shape[axis]
    return pad(stack, (0, 0) * (2 - axis) + (0, missing)) if missing else stack


@dataclass(frozen=True, slots=True)
class ForwardBlock:
    """The part of a projection that one block of rows meets: matrices of one expert, or stacks of all. The
    first `split` ranks are frozen."""

    split: int
    scale: float
    block: Block
    weight: Matrices
    bias: Matrices | None
    a_transposed: Matrices
    b: Matrices

    def __call__(
        self,
        x: torch.Tensor,
        kept: torch.Tensor,
        low: torch.Tensor,
        out: torch.Tensor,
        row_weight: torch.Tensor | None = None,
    ) -> None:
        """out = xW + s·low·B (+ bias) with low = kept·Aᵀ in the trained ranks, xAᵀ in the frozen ones; `kept`
        is x after dropout. Where x has been multiplied by a weight per row, the bias is multiplied by
        `row_weight`."""
        matrices = (self.weight, self.a_transposed, self.b)
        apart = self.split and kept is not x
        for x_e, kept_e, low_e, out_e, w, a, b in self.block.pieces((x, kept, low, out), matrices):
            self.block.product(x_e, w, out_e)
            if apart:
                self.block.product(x_e, a[..., : self.split], low_e[:, : self.split])
                self.block.product(kept_e, a[..., self.split :], low_e[:, self.split :])
            elif low.shape[1]:
                self.block.product(kept_e, a, low_e)
            if low.shape[1]:
                self.block.add_product(out_e, low_e, b, self.scale)
        if self.bias is not None:
            bias = self.block.by_row(self.bias)
            out += bias if row_weight is None else bias * row_weight


@dataclass(frozen=True, slots=True)
class BackwardBlock:
    """The same on the way back, with the places where the gradients of the trained A and B go."""

    split: int
    scale: float
    scale_a: float
    """Of A's gradient; it is not in A itself where `scale` is."""
    block: Block
    weight_transposed: Matrices
    bias: Matrices | None
    a: Matrices
    b_transposed: Matrices
    grad_a: Matrices
    grad_b: Matrices

    def back(
        self, gradient: torch.Tensor, low: torch.Tensor, kept: torch.Tensor, mask: Mask | None
    ) -> torch.Tensor:
        """`gradient` at y brought to x; the gradients of A and B are left in their places.

        `low` is what the forward left, `kept` is what is to multiply on the way to A, `mask` the dropout of
        the branch.
        """
        to_x = gradient.new_empty(len(gradient), self.weight_transposed[0].shape[-1])
        to_low = torch.empty_like(low)
        through = to_x if mask is None else torch.empty_like(to_x)
        rows = (gradient, low[:, self.split :], kept, to_x, to_low, to_low[:, self.split :], through)
        matrices = (self.weight_transposed, self.b_transposed, self.a, self.grad_a, self.grad_b)
        is_trained, pieces = low.shape[1] > self.split, self.block.pieces(rows, matrices)
        for g_e, low_e, kept_e, to_x_e, all_low_e, to_low_e, through_e, w, b, a, grad_a, grad_b in pieces:
            self.block.product(g_e, w, to_x_e)
            if low.shape[1]:
                self.block.product(g_e, b, all_low_e)
            if mask is None and low.shape[1]:
                self.block.add_product(to_x_e, all_low_e, a, self.scale)
            elif mask is not None:
                if self.split:
                    frozen = all_low_e[:, : self.split], a[..., : self.split, :]
                    self.block.add_product(to_x_e, *frozen, self.scale)
                self.block.product(to_low_e, a[..., self.split :, :], through_e)
            if is_trained:
                self.block.outer(low_e, g_e, grad_b, self.scale)
                self.block.outer(to_low_e, kept_e, grad_a, self.scale_a)
        return to_x if mask is None else to_x.add_(mask(through), alpha=self.scale)

    def add_along_bias(self, total: torch.Tensor, gradient: torch.Tensor) -> None:
        """total (rows, 1) += gradient · bias."""
        if self.bias is not None:
            total += torch.sum(gradient * self.block.by_row(self.bias), 1, True, dtype=total.dtype)
