"""How long a process waits for the others in a collective.

transformers states `ddp_timeout` to the first group of GPUs alone. A CPU's has torch's half hour, and so have
the groups that DeepSpeed makes later; ten minutes under NCCL.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


def bound_waiting(seconds: int) -> None:
    """Of all groups that there are."""
    if dist.is_available() and dist.is_initialized():
        c10d = dist.distributed_c10d
        for group in list(c10d._world.pg_map):
            c10d._set_pg_timeout(timedelta(seconds=seconds), group)


class BoundWaiting(TrainerCallback):
    """DeepSpeed has made its groups when training begins."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        bound_waiting(args.ddp_timeout)
