"""What a person sees when a stage fails while it runs: the remedy first, the traceback in a file."""

from __future__ import annotations

import gc
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from lib.failures.explain import Explanation, explain
from lib.files import write_text
from lib.lineage.curriculum import SurveyedStage
from lib.model.architecture import read_architecture
from lib.model.base_files import base_folder
from lib.settings import InputError, RunError
from lib.settings.errors import without_password
from lib.training.processes.launch import World
from lib.training.processes.worker_words import Told, is_heard, say_last
from lib.training.sizing.devices import device_memory
from lib.training.sizing.savings import savings_lines

FAILURE_LOG = "failure.log"


@contextmanager
def failures_explained(stage: SurveyedStage, world: World) -> Iterator[None]:
    """A failure of the block that the table knows is said with its remedy, its traceback goes into the
    stage's folder, and the command ends with 1. An unknown one keeps its traceback on the screen.

    Errors that say themselves what to do and interrupts pass. Of several processes the first one to fail
    speaks, once.
    """
    log = stage.settings.stage_dir / _log_name(world)
    try:
        yield
    except (InputError, RunError):
        raise
    except Exception as error:
        # A failed import may have left names without their module: as text nothing can go wrong with it.
        trace = without_password("".join(traceback.format_exception(error)))
        explanation = explain(error)
        if explanation is None and not is_heard():
            raise
        text = _told(stage, world, explanation, error, trace, log) if explanation else trace
        follows = explanation is not None and explanation.failure.follows
        say_last(text, follows=follows)
        raise Told(text, follows=follows) from None
    log.unlink(missing_ok=True)


def _told(
    stage: SurveyedStage, world: World, found: Explanation, error: Exception, trace: str, log: Path
) -> str:
    advice: Sequence[str] = ()
    if found.failure.about_memory:
        traceback.clear_frames(error.__traceback__)  # what they hold is what is short
        gc.collect()
        advice = memory_advice(stage, world)
    lines = found.lines(f"stage {stage.settings.stage} failed", advice)
    return "\n".join([*lines, *_kept(log, trace)])


def memory_advice(stage: SurveyedStage, world: World) -> list[str]:
    """What to lower, and what it would save; empty where the base's sizes are not known."""
    folder = base_folder(stage.settings.model)
    architecture = read_architecture(folder) if folder else None
    usable = device_memory(processes=world.processes, gpus=world.gpus).usable
    return savings_lines(stage.settings, architecture, world, usable)


def _kept(log: Path, trace: str) -> list[str]:
    """Where the traceback is; the traceback itself where the disk does not take it."""
    head = f"{datetime.now(UTC).isoformat(timespec='seconds')}  {' '.join(sys.argv)}\n\n"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        write_text(log, without_password(head) + trace)
    except OSError as error:
        return [f"    log:      not written ({error.strerror}); the traceback:", trace]
    return [f"    log:      {log}"]


def _log_name(world: World) -> str:
    rank = os.environ.get("RANK", "0")
    return FAILURE_LOG if world.processes == 1 else FAILURE_LOG.replace(".", f"_rank{rank}.")
