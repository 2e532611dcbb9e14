"""What holds around `infer.py` while it answers: failures are explained, and it is watched."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager
from pathlib import Path

from lib.commands.failing import explained
from lib.inference.assistant import say
from lib.inference.source import ModelSource
from lib.training.watchdog.watchdog import Watch, watching

LESS_MEMORY = (
    "--batch-size (rows at a time, of --input)",
    "--max-new-tokens",
    "--quantization nf4 (the base in four bits)",
)


def answering_explained(options: argparse.Namespace) -> AbstractContextManager[None]:
    """A traceback goes into a file beside the answers, or into the working folder, where nothing is taken
    away."""
    output: Path | None = options.output
    log = Path(f"{output}.failure.log") if output else Path("infer_failure.log")
    return explained("infer.py failed", log, lambda: LESS_MEMORY, replaces=output is not None)


def answering_watched(options: argparse.Namespace, source: ModelSource) -> AbstractContextManager[None]:
    """As a stage is watched; stdout has the answers alone."""
    folder = options.output.parent if options.output else Path()
    return watching(Watch(folder, source.habits.stall_seconds, source.habits.stall_stops, say=say))
