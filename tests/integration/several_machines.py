"""A stage on two machines at once, started by the example scripts of docs/several-machines."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
    folders: Sequence[Path],
    *arguments: object,
    own: Sequence[dict[str, str]] = ({}, {}),
    **environ: str,
) -> Iterator[Run]:
    """train.py under torchrun on both machines, each in its folder; what is left of it ends with the block.
    `own` is the environment of each, `environ` that of both."""
    commands = [
        machine.begun(
            ["sh", EXAMPLES / "torchrun.sh", *arguments],
            folder,
            MACHINES="2",
            MACHINE=str(machine.number),
            FIRST=pair[0].name,
            PROCESSES="1",
            PYTHON=sys.executable,
            **{**environ, **mine},
        )
        for machine, folder, mine in zip(pair, folders, own, strict=True)
    ]
    try:
        yield Run(commands)
    finally:
        for command in commands:
            command.kill()


def digest(curriculum: Curriculum, stage: int = 1) -> str:
    return sha256((curriculum.stage_dir(stage) / "adapter_model.safetensors").read_bytes()).hexdigest()


def losses(curriculum: Curriculum, stage: int = 1) -> list[float]:
    history = curriculum.record(stage)["training"]["history"]
    return [entry["loss"] for entry in history if "loss" in entry]
