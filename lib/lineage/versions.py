"""Which versions of libraries decide what a stage is, and which only deserve a word.

A stage is a set of files that later stages build on, so what counts is whether a version reads the files as
they were meant. PEFT's minor releases changed how the factors of stacked experts lie in the file (0.18 and
0.19 differ): the same bytes would be another update, without an error. A major release of transformers
changes which modules and parameters a model has, and with them what an adapter's names refer to. Either
makes a stage stale. torch, trl and minor releases of transformers change roundings and the training loop: a
stage trained again would come out a little different, the one that is there remains what it is. That is
said, not acted upon.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata

NOT_INSTALLED = "not installed"
# How many parts of the version decide.
DECISIVE = {"peft": 2, "transformers": 1}
SAID = {"torch": 2, "transformers": 2, "trl": 2}


def library_version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return NOT_INSTALLED


def decisive_versions() -> dict[str, str]:
    """Part of a stage's identity."""
    return {library: _shortened(library_version(library), parts) for library, parts in DECISIVE.items()}


def version_notice(recorded: Mapping[str, str]) -> str:
    """What computes otherwise than when the stage was trained; empty when nothing does."""
    found = [
        f"{library} {then}, now {now}"
        for library, parts in SAID.items()
        if (then := _shortened(recorded.get(library, NOT_INSTALLED), parts))
        != (now := _shortened(library_version(library), parts))
    ]
    return f"trained with {'; '.join(found)}" if found else ""


def _shortened(version: str, parts: int) -> str:
    return ".".join(version.split("+")[0].split(".")[:parts])
