"""How many processes train, and on what. Free of torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from lib.settings import InputError, TrainingSettings
from lib.training.sizing.cards import Card, parse_hardware
from lib.training.sizing.devices import count_gpus
from lib.training.sizing.sizes import counted


@dataclass(frozen=True)
class World:
    """The processes of a run: how many, on what, and whether DeepSpeed shards over them."""

    processes: int
    gpus: int
    machines: int = 1
    card: Card | None = None
    """GPUs of this kind are planned for, instead of what is here."""

    @property
    def distributed(self) -> bool:
        """More than one process or a GPU: there is a launcher, and something to shard over. One CPU process
        runs without either."""
        return self.processes > 1 or self.gpus > 0

    def shards(self, training: TrainingSettings) -> bool:
        """Whether DeepSpeed runs the stage; else it is plain data parallel, or one process alone."""
        return self.distributed and (training.zero_stage == "2" or training.deepspeed_config is not None)

    def line(self, training: TrainingSettings) -> str:
        gpus = self.gpus * self.machines
        kind = f"x {self.card.name}" if self.card else f"GPU{'s' * (gpus != 1)}"
        device = f"{gpus} {kind}" if gpus else "CPU"
        alone = "plain data parallel" if self.processes > 1 else "no sharding needed"
        spread = f" on {self.machines} machines" if self.machines > 1 else ""
        return f"  {counted(self.processes, 'process')} on {device}{spread}, " + (
            "DeepSpeed ZeRO-2" if self.shards(training) else alone
        )


def plan_world(
    nproc: int | None, environ: Mapping[str, str] = os.environ, *, hardware: str | None = None
) -> World:
    """World from `--nproc`, a launcher's WORLD_SIZE, or one process per visible GPU; of `hardware` that is
    planned for (`4xH100`) one per GPU.

    Raises InputError when `--nproc` is below 1 or above the number of GPUs there are.
    """
    gpus, card = parse_hardware(hardware) if hardware else (count_gpus(environ), None)
    if "WORLD_SIZE" in environ and not hardware:
        processes = int(environ["WORLD_SIZE"])
        return World(processes, gpus, -(-processes // processes_here(processes, environ)))
    if nproc is not None and (nproc < 1 or (gpus and nproc > gpus)):
        raise InputError.of(
            where="command line",
            key="--nproc",
            value=str(nproc),
            expected=f"a number from 1 to {gpus} (one process per GPU)" if gpus else "a number of at least 1",
            remedy="lower --nproc, or leave it out",
        )
    return World(nproc or max(gpus, 1), gpus, card=card)


def processes_here(processes: int, environ: Mapping[str, str] = os.environ) -> int:
    """Those of this machine, as torchrun or DeepSpeed's launcher says; where nobody does, all."""
    return int(environ.get("LOCAL_WORLD_SIZE") or environ.get("LOCAL_SIZE") or processes)
