"""What a run must know to go on, beyond what transformers keeps: `session.json` in a checkpoint."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from lib.files import read_json

STATE = "trainer_state.json"
"""transformers' own."""
SESSION = "session.json"


@dataclass(frozen=True)
class Session:
    """A run up to a checkpoint, over all times that it was started."""

    seconds: float = 0.0
    """Of training, evaluations between the steps included."""
    tokens: int = 0
    """Trained on, up to the last log."""
    peak_memory_bytes: int = 0
    loss: float = 0.0
    """Summed over the steps up to the last log."""
    logged_step: int = 0
    unlogged_loss: tuple[float, ...] = ()
    """Of each process since the last log."""
    unlogged_sums: tuple[tuple[float, ...], ...] = ()
    """Likewise: see StageTrainer._clear_sums."""
    evaluation_due: bool = False
    """The run was stopped before the evaluation of this step was done."""
    over: bool = False
    """All steps are done, or early stopping ended them."""

    def encoded(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"


def read_session(checkpoint: Path) -> Session:
    """Of a verified checkpoint."""
    content = read_json(checkpoint / SESSION)
    sums = tuple(map(tuple, content.pop("unlogged_sums")))
    return Session(**content | {"unlogged_loss": tuple(content["unlogged_loss"]), "unlogged_sums": sums})


def best_step(checkpoint: Path) -> int | None:
    """The step that had the best weights when this checkpoint was saved."""
    state = read_json(checkpoint / STATE)
    best = state.get("best_global_step")
    return int(best) if best else None
