"""Packages that only some settings need, and that are not installed everywhere."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import NamedTuple

from lib.settings import Problem, StageSettings


class Need(NamedTuple):
    key: str
    package: str


FOUR_BITS = Need("SFT_QUANTIZATION", "bitsandbytes")


def package_problems(settings: StageSettings) -> list[Problem]:
    """One for every setting that asks for a package which is not here."""
    return [
        problem
        for need in _needs(settings)
        for problem in missing_package(need, settings.origins[need.key], settings.values[need.key])
    ]


def missing_package(need: Need, where: str, value: str) -> list[Problem]:
    """The problem when the package is not installed, else nothing."""
    if importlib.util.find_spec(need.package):
        return []
    expected = f"the package {need.package}, which is not installed"
    remedy = f"pip install {need.package}, or leave {need.key} at its default"
    return [Problem(where=where, key=need.key, value=value, expected=expected, remedy=remedy)]


def _needs(settings: StageSettings) -> Iterator[Need]:
    if settings.model.quantization != "none":
        yield FOUR_BITS
    if settings.training.optimizer.endswith(("_8bit", "_32bit")):
        yield Need("SFT_OPTIM", "bitsandbytes")
    if settings.tracking.tensorboard:
        yield Need("SFT_TENSORBOARD", "tensorboard")
