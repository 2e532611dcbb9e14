"""One run of a stage at a time: `running.json` in its folder is locked by the process that trains it."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lib.files import held_file, is_held, read_json
from lib.lineage.record import RUNNING
from lib.settings import InputError, Problem, StageSettings

if TYPE_CHECKING:
    from lib.training.processes.process_group import Processes


@contextmanager
def hold_stage(settings: StageSettings, processes: Processes) -> Iterator[None]:
    """The stage's folder, for this run alone while the block lasts. Raises InputError when another run has
    it; a run that died has nothing."""
    folder = settings.stage_dir
    with ExitStack() as held:
        if processes.machines.keeps_files:
            folder.mkdir(parents=True, exist_ok=True)
            held.callback(_remove_if_empty, folder)
            note = {"pid": os.getpid(), "host": socket.gethostname()}
            try:
                held.enter_context(held_file(folder / RUNNING, json.dumps(note) + "\n"))
            except BlockingIOError as error:
                raise InputError(running_problems(settings)) from error
        yield


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def running_elsewhere(stage_dir: Path) -> str:
    """Who is training this stage now, other than this process; empty when nobody is."""
    if not is_held(stage_dir / RUNNING):
        return ""
    try:
        note = read_json(stage_dir / RUNNING)
        pid, host = int(note["pid"]), str(note["host"])
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
    if host != socket.gethostname():
        return f"process {pid} on {host}"
    return "" if pid == os.getpid() else f"process {pid}"


def running_problems(settings: StageSettings) -> list[Problem]:
    """What is wrong when somebody is training the stage."""
    who = running_elsewhere(settings.stage_dir)
    if not who:
        return []
    return [
        Problem(
            where=str(settings.stage_dir),
            key=f"stage {settings.stage}",
            value=f"{who} is training it",
            expected="one run of a stage at a time",
            remedy=f"wait for it or stop it (kill {who.split()[-1]}), or choose another SFT_OUT_LORA_DIR"
            if who.split()[-1].isdigit()
            else "wait for it or stop it there, or choose another SFT_OUT_LORA_DIR",
        )
    ]
