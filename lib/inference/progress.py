"""How far a file of rows has come: one live bar, or a line now and then without a terminal. On stderr."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console

from lib.training.durations import readable_duration
from lib.training.progress_bar import progress_bar

SECONDS_BETWEEN_LINES = 10.0


class RowProgress:
    """Rows answered of `total`, `done` of them before; tokens a second since now."""

    def __init__(self, total: int, done: int) -> None:
        self.total, self.done, self.before, self.tokens = total, done, done, 0
        self.console = Console(stderr=True, highlight=False)
        self.started = self.said = time.monotonic()
        self.bar = progress_bar("answering", self.console)
        self.task = self.bar.add_task("", total=total, completed=done)

    def __enter__(self) -> RowProgress:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def update(self, rows: int, tokens: int) -> None:
        """So many more are answered, with so many tokens."""
        self.done, self.tokens = self.done + rows, self.tokens + tokens
        now = time.monotonic()
        elapsed = max(now - self.started, 1e-9)
        speed = f"{self.tokens / elapsed:,.0f} tokens/s"
        self.bar.update(self.task, completed=self.done, description=speed)
        due = now - self.said >= SECONDS_BETWEEN_LINES or self.done == self.total
        if due and not self.console.is_terminal:
            self.said = now
            left = readable_duration(elapsed / (self.done - self.before) * (self.total - self.done))
            self.console.print(f"  {self.done}/{self.total} rows  {speed}  {left} left", soft_wrap=True)
