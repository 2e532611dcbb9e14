"""How the watchdogs of the ranks talk about a stall: small files in the stage's folder.

A shared file system is enough for several machines. Where the folder is not shared, the ranks of other
machines give no answer.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lib.files import read_json
from lib.training.watchdog.stall_verdict import Report, Seen

STALLS = "stalls.txt"
TALK = "stalls.part"
"""Folder of questions and answers."""
PAUSE = 0.1
LONGEST = 10_000_000
"""Bytes; a longer file of stacks is begun anew."""


class StallFiles:
    def __init__(self, stage_dir: Path) -> None:
        self.stacks = stage_dir / STALLS
        self._talk = stage_dir / TALK
        self._answered = 0

    def clear(self) -> None:
        """What a run left that died while it talked."""
        shutil.rmtree(self._talk, ignore_errors=True)

    def pass_over(self) -> None:
        """The same on the other ranks: what is asked already is not asked of this run."""
        self._answered = self.asked()

    def ask(self) -> int:
        """Begin a question; its number, or 0 where nothing can be written."""
        self._answered = request = time.time_ns()
        return request if self._write("request.json", {"request": request}) else 0

    def stop(self) -> None:
        """Tell every rank to end."""
        self._write("request.json", {"request": time.time_ns(), "stop": True})

    def asked(self) -> int:
        """The question that this rank has not answered yet, else 0."""
        request = int(self._read("request.json").get("request", 0))
        return request if request != self._answered else 0

    def stopped(self) -> bool:
        return bool(self._read("request.json").get("stop"))

    def answer(self, request: int, report: Report) -> None:
        self._answered = request
        self._write(f"rank{report.rank}.json", {"request": request, "report": asdict(report)})

    def answers(
        self, request: int, ranks: set[int], seconds: float, meanwhile: Callable[[], None]
    ) -> dict[int, Report]:
        """By rank, of those that answer in time; then the question is over. `meanwhile` is called ten times
        a second."""
        found: dict[int, Report] = {}
        until = time.monotonic() + seconds
        while len(found) < len(ranks) and time.monotonic() < until:
            time.sleep(PAUSE)
            meanwhile()
            for rank in ranks - found.keys():
                content = self._read(f"rank{rank}.json")
                if content.get("request") == request:
                    report = content["report"]
                    found[rank] = Report(**{**report, "seen": Seen(**report["seen"])})
        self.clear()
        return found

    def keep(self, text: str, reports: Iterable[Report]) -> None:
        """The verdict and all stacks, after what is in the file already."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        parts = [f"==== {now}\n{text}\n"]
        for report in reports:
            head = (
                f"-- rank {report.rank}, {report.place}, in: {report.where}, silent for {report.silent:.0f} s"
            )
            parts.append(f"{head}\n{report.stacks}\n")
        with suppress(OSError):
            self.stacks.parent.mkdir(parents=True, exist_ok=True)
            anew = self.stacks.is_symlink() or (self.stacks.exists() and self.stacks.stat().st_size > LONGEST)
            if anew:
                self.stacks.unlink()
            with self.stacks.open("a", encoding="utf-8") as file:
                file.write("\n".join(parts))

    def _write(self, name: str, content: dict[str, Any]) -> bool:
        """Not synced: it is for readers now, not after a crash. A full disk is no reason to fail."""
        with suppress(OSError):
            self._talk.mkdir(parents=True, exist_ok=True)
            temporary = self._talk / f"{name}.{os.getpid()}"
            temporary.write_text(json.dumps(content), encoding="utf-8")
            os.replace(temporary, self._talk / name)
            return True
        return False

    def _read(self, name: str) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            content: dict[str, Any] = read_json(self._talk / name)
            return content
        return {}
