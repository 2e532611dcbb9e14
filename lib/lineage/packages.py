"""Packages that only some settings need, and that are not installed everywhere."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import NamedTuple

from lib.settings import Problem, StageSettings


class Need(NamedTuple):
    key: str
    package: str


def package_problems(settings: StageSettings) -> list[Problem]:
    """One for every setting that asks for a package which is not here."""
    return [
        Problem(
            where=settings.origins[need.key],
            key=need.key,
            value=settings.values[need.key],
            expected=f"the package {need.package}, which is not installed",
            remedy=f"pip install {need.package}, or leave {need.key} at its default",
        )
        for need in _needs(settings)
        if importlib.util.find_spec(need.package) is None
    ]


def _needs(settings: StageSettings) -> Iterator[Need]:
    if settings.model.quantization != "none":
        yield Need("SFT_QUANTIZATION", "bitsandbytes")
    if settings.training.optimizer.endswith(("_8bit", "_32bit")):
        yield Need("SFT_OPTIM", "bitsandbytes")
    if settings.tracking.tensorboard:
        yield Need("SFT_TENSORBOARD", "tensorboard")
