"""The metrics of a stage as event files: `tensorboard --logdir` on the folder of the outputs shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.lineage.completion import TENSORBOARD
from lib.lineage.record import StageRecord
from lib.settings import StageSettings
from lib.tracking.contents import closing_metrics, env_text
from lib.tracking.journal import Told
from lib.tracking.protocol import Quietly


class TensorBoardTracker:
    """Writes into `tensorboard/` of the stage's folder. It has no run of its own, so no id."""

    run_id = ""

    def __init__(self, stage_dir: Path, told: Told) -> None:
        """`told`: what an earlier part of the run has written."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(stage_dir / TENSORBOARD))
        self._quietly = Quietly("TensorBoard")
        self._told = told

    def settings(self, settings: StageSettings) -> None:
        # TensorBoard reads Markdown, in which four blanks make a line code.
        code = "\n".join(f"    {line}" for line in env_text(settings).splitlines())
        self._quietly(lambda: self._writer.add_text("settings", code))

    def data(self, ledger: Mapping[str, Any], sources: Sequence[tuple[str, str, str]]) -> None:
        pass

    def tags(self, tags: Mapping[str, str]) -> None:
        pass

    def metrics(self, metrics: Mapping[str, float], step: int) -> None:
        numbers = self._told.new_metrics(metrics, step)
        self._quietly(lambda: self._add(numbers, step))

    def _add(self, numbers: Mapping[str, float], step: int) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def results(
        self, record: StageRecord, samples: Sequence[Mapping[str, Any]], files: Sequence[Path]
    ) -> None:
        """The scores; answers and files belong to MLflow."""
        for metrics, step in closing_metrics(record):
            self.metrics(metrics, step)

    def finish(self, status: str) -> None:
        self._quietly(self._writer.close)
