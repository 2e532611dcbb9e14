"""Where a process stands among those of a run, as torchrun's and DeepSpeed's launchers say it."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Place:
    rank: int
    processes: int
    local_rank: int
    host: str = field(default_factory=socket.gethostname)

    @classmethod
    def of(cls, environ: Mapping[str, str] = os.environ) -> Place:
        """From RANK, WORLD_SIZE and LOCAL_RANK."""
        return cls(int(environ["RANK"]), int(environ["WORLD_SIZE"]), int(environ["LOCAL_RANK"]))

    @property
    def leads(self) -> bool:
        """Whether it is the first process of its machine."""
        return self.local_rank == 0

    @property
    def name(self) -> str:
        return f"rank {self.rank} on {self.host}"
