"""A stage on two machines at once, started by the example scripts of docs/several-machines."""

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from machines import Machine
from tiny_curriculum import Curriculum
from train_command import ROOT

EXAMPLES = ROOT / "docs/several-machines"
LIMIT_SECONDS = 240


@dataclass(frozen=True)
class Ended:
    """A command of one machine when it is over."""

    code: int
    said: str
    seconds: float
    """Since it was started."""


class Run:
    """The same command on both machines."""

    def __init__(self, commands: Sequence[Any]) -> None:
        self.commands = commands
        self.began = time.monotonic()

    def ended(self) -> list[Ended]:
        ended = []
        for command in self.commands:
            said, _ = command.communicate(timeout=LIMIT_SECONDS)
            ended.append(Ended(command.returncode, said, time.monotonic() - self.began))
        return ended

    def done(self) -> list[str]:
        """What each said; all must have succeeded."""
        ended = self.ended()
        assert [each.code for each in ended] == [0, 0], "\n----\n".join(each.said for each in ended)
        return [each.said for each in ended]


@contextmanager
def started(
    pair: Sequence[Machine],
    folder: Path,
    *arguments: object,
    script: str = "torchrun.sh",
    own: Mapping[int, Mapping[str, str]] = {},
    **environ: str,
) -> Iterator[Run]:
    """train.py on both machines by an example script; what is left of it ends with the block. `own` is the
    environment of single machines, `environ` that of both."""
    common = {"MACHINES": "2", "FIRST": "node0", "PROCESSES": "1", "PYTHON": sys.executable, **environ}
    commands = [
        machine.begun(
            ["sh", EXAMPLES / script, *arguments],
            folder,
            **{**common, "MACHINE": str(machine.number), **own.get(machine.number, {})},
        )
        for machine in pair
    ]
    try:
        yield Run(commands)
    finally:
        for command in commands:
            with suppress(ProcessLookupError):
                os.killpg(command.pid, signal.SIGKILL)
            command.communicate()


def worker(rank: int, folder: Path) -> int:
    """Process id of a rank of the run in `folder`."""
    for status in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            environ = status.read_bytes().split(b"\0")
            if f"RANK={rank}".encode() in environ and (status.parent / "cwd").resolve() == folder:
                return int(status.parent.name)
    raise AssertionError(f"no rank {rank} in {folder}")


def digest(curriculum: Curriculum, stage: int = 1) -> str:
    return sha256((curriculum.stage_dir(stage) / "adapter_model.safetensors").read_bytes()).hexdigest()


def losses(curriculum: Curriculum, stage: int = 1) -> list[float]:
    history = curriculum.record(stage)["training"]["history"]
    return [entry["loss"] for entry in history if "loss" in entry]
