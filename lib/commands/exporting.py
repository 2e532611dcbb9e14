"""What holds around `export.py` while it works: failures are explained, and it is watched."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager
from pathlib import Path

from lib.commands.failing import explained
from lib.settings import StageSettings
from lib.training.watchdog.watchdog import Watch, watching

LESS_MEMORY = (
    "--adapter-only (the adapters as one; the base is neither read nor written)",
    "fewer cores, each merges a matrix of its own: taskset -c 0 python export.py …",
)


def exporting_explained(options: argparse.Namespace) -> AbstractContextManager[None]:
    """The traceback goes into a file beside the model."""
    return explained("export.py failed", Path(f"{options.to}.failure.log"), lambda: LESS_MEMORY)


def exporting_watched(options: argparse.Namespace, settings: StageSettings) -> AbstractContextManager[None]:
    """As a stage is watched; `stalls.txt` lies beside the model, whose folder appears only when it is
    whole."""
    training = settings.training
    return watching(Watch(options.to.parent, training.stall_seconds, training.on_stall == "stop"))
