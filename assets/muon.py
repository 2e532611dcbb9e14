"""Muon: momentum whose matrices are orthogonalised (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).

torch's own Muon takes only matrices; a fused expert weight `[experts, out, in]` is a stack of them.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalised(update: torch.Tensor, iterations: int = 5) -> torch.Tensor:
    """Roughly the nearest semi-orthogonal matrices, by a quintic Newton-Schulz iteration."""
    wide = update.size(-2) <= update.size(-1)
    x = update if wide else update.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.mT


class StackedMuon(torch.optim.Optimizer):
    """Muon over the last two axes of parameters; the processes share the iterations."""

    def __init__(
        self, parameters: Iterable[torch.Tensor], lr: float, momentum: float, weight_decay: float
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update from gradients that are equal on every process."""
        for group in self.param_groups:
            directions = [self.direction(parameter, group["momentum"]) for parameter in group["params"]]
            for parameter, update in zip(group["params"], shared_orthogonalised(directions), strict=True):
                # Keeps the update's size per entry independent of the shape.
                scale = max(1.0, parameter.size(-2) / parameter.size(-1)) ** 0.5
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"] * scale)

    def direction(self, parameter: torch.Tensor, momentum: float) -> torch.Tensor:
        """Nesterov momentum."""
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None, "every matrix, unused experts' too, takes part in the loss"
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        velocity = state["momentum"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(velocity, momentum)


def shared_orthogonalised(directions: list[torch.Tensor]) -> list[torch.Tensor]:
    """Each process orthogonalises every n-th of the largest, then of the smaller; a sum hands all to all."""
    by_size = sorted(range(len(directions)), key=lambda i: directions[i].numel(), reverse=True)
    mine = set(by_size[dist.get_rank() :: dist.get_world_size()])
    parts = [
        orthogonalised(direction) if i in mine else torch.zeros_like(direction)
        for i, direction in enumerate(directions)
    ]
    flat = torch.cat([part.flatten() for part in parts])
    dist.all_reduce(flat)
    pieces = flat.split([part.numel() for part in parts])
    return [piece.view_as(part) for piece, part in zip(pieces, parts, strict=True)]
