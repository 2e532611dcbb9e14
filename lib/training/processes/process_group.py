"""The processes of a run seen from one of them: who is first, who speaks, who writes."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from lib.heartbeat import phase
from lib.settings import StageSettings
from lib.training.machines.alone import ALONE, Alone
from lib.training.processes.signals import StopSignals
from lib.training.sizing.world import World

if TYPE_CHECKING:
    import torch
    from trl import SFTConfig

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Processes:
    """Joins the process group (by way of transformers' own arguments) and answers the rank questions."""

    def __init__(
        self,
        settings: StageSettings,
        world: World,
        dtype: torch.dtype,
        *,
        evaluates: bool,
        signals: StopSignals | None = None,
        machines: Alone = ALONE,
    ) -> None:
        from lib.training.arguments import trainer_arguments
        from lib.training.processes.operators import compile_operators
        from lib.training.processes.waiting import bound_waiting

        gc.collect()  # the model of an earlier stage, which only circles hold
        self.world = world
        self.machines = machines
        self.signals = signals or StopSignals()
        if world.shards(settings.training):
            compile_operators(machines.say, on_gpu=world.gpus > 0)
        with phase("join processes"):
            self.arguments: SFTConfig = trainer_arguments(
                settings, world=world, dtype=dtype, evaluates=evaluates
            )
        bound_waiting(settings.training.ddp_timeout)

    @property
    def rank(self) -> int:
        return int(self.arguments.process_index)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def say(self, *lines: str) -> None:
        """Print on rank 0."""
        if self.is_main:
            for line in lines:
                print(line, flush=True)

    def gather(self, items: list[T]) -> list[T]:
        """The lists of all processes as one, the same on every process, in the order of ranks."""
        from accelerate.utils import gather_object

        gathered: list[T] = gather_object(items)
        return gathered

    def on_main(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R | None:
        """Run `work` on rank 0 while the others wait; its result there, None elsewhere."""
        result = work(*args, **kwargs) if self.is_main else None
        self.arguments.distributed_state.wait_for_everyone()
        return result
