"""The last words of a worker process: said once, by the command that started the workers.

Several ranks often fail of the same cause, and the first one takes the others with it. So a worker of
`run_workers` leaves what it has to say in the file that torch's elastic launcher gives it, and the launching
command prints what the first one said. Under a launcher of somebody else a worker speaks for itself; torchrun
says it again, under its own table of failures.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from lib.failures.explain import explain_words

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

OURS = "LORA_CURRICULUM_LAUNCHER"
"""Set for workers whose launcher is `run_workers`."""
ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
LATE = 5 * 10**9
"""Nanoseconds after the first failure from which on a kill is the launcher's own: it waits for 30 seconds."""


class Told(SystemExit):
    """Ends the command with 1; what there is to say of it was said. `follows` as in `say_last`."""

    def __init__(self, text: str, *, follows: bool = False) -> None:
        super().__init__(1)
        self.text, self.follows = text, follows

    def __str__(self) -> str:
        return self.text


def say_last(text: str, *, follows: bool = False, environ: Mapping[str, str] = os.environ) -> None:
    """What ends the command, on stderr; in a worker of ours left for the launching command instead.

    `follows` marks what only comes of another rank's failure.
    """
    left = leave(text, follows=follows, environ=environ)
    if not (left and is_heard(environ)):
        rank = environ.get("RANK")
        print(f"[rank {rank}] {text}" if rank else text, file=sys.stderr, flush=True)


def leave(text: str, *, follows: bool = False, environ: Mapping[str, str] = os.environ) -> bool:
    """For the launcher; whether it takes such words. torchrun shows them in the table that it ends with."""
    return ERROR_FILE in environ and _leave(environ[ERROR_FILE], text, follows)


def is_heard(environ: Mapping[str, str] = os.environ) -> bool:
    """True in a worker whose last words `run_workers` will say."""
    return OURS in environ and ERROR_FILE in environ


def _leave(path: str, text: str, follows: bool) -> bool:
    """In the form that torch reads (`ProcessFailure`), and what its times in whole seconds leave open."""
    known = {"py_callstack": text, "timestamp": str(int(time.time()))}
    note = {"message": text, "extraInfo": {**known, "at": time.time_ns(), "follows": follows}}
    try:
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"message": note}, file)
    except OSError:
        return False
    return True


def last_words(failures: Mapping[int, ProcessFailure]) -> tuple[str, int]:
    """What is to be said of workers that failed, by rank, and the exit code. The first failure counts that is
    not the consequence of another; one that was only asked to end has nothing to say."""
    first = min(map(_at, failures.values()))
    rank, failure = min(failures.items(), key=lambda item: _order(item[1], first))
    code = failure.exitcode if failure.exitcode > 0 else 1
    note: Any = failure.message
    if isinstance(note, dict):
        return f"{_of(rank, failures.values())}{note['message']}", code
    if failure.exitcode == -signal.SIGTERM:
        return "", 128 + signal.SIGTERM
    if failure.exitcode >= 0:
        return "", code  # it has said something itself, or was told to be silent
    explained = explain_words(note)
    headline = f"rank {rank} failed"
    return "\n".join(explained.lines(headline)) if explained else f"{headline}: {note}", code


def _order(failure: ProcessFailure, first: int) -> tuple[bool, bool, int]:
    """`first`: when the first one failed. The launcher asks the others to end, and kills them later."""
    asked = failure.exitcode == -signal.SIGTERM
    killed = failure.exitcode == -signal.SIGKILL and _at(failure) > first + LATE
    return asked or killed, bool(_told(failure).get("follows")), _at(failure)


def _at(failure: ProcessFailure) -> int:
    """Nanoseconds; of one that left no words to the second."""
    return int(_told(failure).get("at", failure.timestamp * 10**9))


def _told(failure: ProcessFailure) -> dict[str, Any]:
    note: Any = failure.message
    return note["extraInfo"] if isinstance(note, dict) else {}


def _of(rank: int, failures: Iterable[ProcessFailure]) -> str:
    """Which rank, where they did not all say the same; rank 0 speaks for all."""
    notes: list[Any] = [failure.message for failure in failures]
    said = {note["message"] for note in notes if isinstance(note, dict)}
    return f"[rank {rank}] " if rank and len(said) > 1 else ""
