"""What a person sees when a command fails while it runs: the remedy first, the traceback in a file."""

from __future__ import annotations

import gc
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile

from lib.failures.explain import Explanation, explain
from lib.files import write_text
from lib.lineage.curriculum import SurveyedStage
from lib.model.architecture import read_architecture
from lib.model.base_files import base_folder
from lib.settings import EvaluationSettings, InputError, RunError, StageSettings
from lib.settings.errors import without_password
from lib.training.processes.worker_words import Told, is_heard, leave, say_last
from lib.training.sizing.devices import device_memory
from lib.training.sizing.savings import savings_lines
from lib.training.sizing.world import World

FAILURE_LOG = "failure.log"


def failures_explained(stage: SurveyedStage, world: World) -> AbstractContextManager[None]:
    """`explained` for a stage that is trained: the log is in its folder."""
    advice = partial(memory_advice, stage, world)
    log = stage.settings.stage_dir / _log_name(world)
    return explained(f"stage {stage.settings.stage} failed", log, advice)


def evaluation_explained(settings: StageSettings, number: int, world: World) -> AbstractContextManager[None]:
    """`explained` for the evaluation of a finished stage, or of the base as stage 0."""
    log = Path(f"{settings.output}_stage{number}") / f"evaluation_{_log_name(world)}"
    return explained(f"evaluating stage {number} failed", log, partial(answering_advice, settings.evaluation))


@contextmanager
def explained(
    headline: str, log: Path, advice: Callable[[], Sequence[str]] = list, *, replaces: bool = True
) -> Iterator[None]:
    """A failure of the block that the table knows is said with its remedy, its traceback goes into `log`, and
    the command ends with 1. An unknown one keeps its traceback on the screen. `advice` says what to lower
    where memory is short. Success takes an old log away where it `replaces` what failed.

    Errors that say themselves what to do and interrupts pass. Of several processes the first one to fail
    speaks, once.
    """
    try:
        yield
    except (InputError, RunError):
        raise
    except Exception as error:
        # A failed import may have left names without their module: as text nothing can go wrong with it.
        trace = without_password("".join(traceback.format_exception(error)))
        explanation = explain(error)
        if explanation is None and not is_heard():
            leave(trace)
            raise
        told = _told(headline, explanation, error, trace, log, advice) if explanation else trace
        follows = explanation is not None and explanation.failure.follows
        say_last(told, follows=follows)
        raise Told(told, follows=follows) from None
    if replaces:
        with suppress(OSError):  # it may stand in a folder that is only read
            log.unlink(missing_ok=True)


def _told(
    headline: str,
    found: Explanation,
    error: Exception,
    trace: str,
    log: Path,
    advice: Callable[[], Sequence[str]],
) -> str:
    lower: Sequence[str] = ()
    if found.failure.about_memory:
        traceback.clear_frames(error.__traceback__)  # what they hold is what is short
        gc.collect()
        lower = advice()
    return "\n".join([*found.lines(headline, lower), *_kept(log, trace)])


def memory_advice(stage: SurveyedStage, world: World) -> list[str]:
    """What to lower, and what it would save; empty where the base's sizes are not known."""
    folder = base_folder(stage.settings.model)
    architecture = read_architecture(folder) if folder else None
    usable = device_memory(processes=world.processes, gpus=world.gpus).usable
    return savings_lines(stage.settings, architecture, world, usable)


def answering_advice(evaluation: EvaluationSettings) -> list[str]:
    """The same where answers are generated and nothing is trained."""
    return [
        f"SFT_GEN_EVAL_BATCH_SIZE={max(evaluation.batch_size // 2, 1)} (answers take longer)",
        f"SFT_GEN_EVAL_MAX_NEW_TOKENS={max(evaluation.max_new_tokens // 2, 1)} (longer answers are cut off)",
        "SFT_QUANTIZATION=nf4 (the base in four bits)",
    ]


def _kept(log: Path, trace: str) -> list[str]:
    """Where the traceback is; the traceback itself where no disk takes it."""
    head = f"{datetime.now(UTC).isoformat(timespec='seconds')}  {' '.join(sys.argv)}\n\n"
    text = without_password(head) + trace
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        write_text(log, text)
    except OSError as error:
        return _kept_elsewhere(log, text, error.strerror or str(error))
    return [f"    log:      {log}"]


def _kept_elsewhere(log: Path, text: str, why: str) -> list[str]:
    """Its own folder is often what the failure is about: full, or not to be written."""
    try:
        with NamedTemporaryFile(
            "w", prefix=f"{log.stem}_", suffix=".log", delete=False, encoding="utf-8"
        ) as file:
            file.write(text)
    except OSError:
        return [f"    log:      not written ({why}); the traceback:", text]
    return [f"    log:      {file.name} ({log}: {why})"]


def _log_name(world: World) -> str:
    rank = os.environ.get("RANK", "0")
    return FAILURE_LOG if world.processes == 1 else FAILURE_LOG.replace(".", f"_rank{rank}.")
