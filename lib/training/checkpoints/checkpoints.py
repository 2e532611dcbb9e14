"""The checkpoints of one stage: written whole or not at all, verified before use, kept by their score."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lib.files import aside_of, built_aside, empty_folder, finish_changes, remove_folder
from lib.settings.errors import Problem, RunError
from lib.settings.metrics import direction
from lib.training.checkpoints.manifest import DamagedError, Manifest, outlined, seal, verified
from lib.training.checkpoints.session import best_step
from lib.training.machines.alone import ALONE, Alone

PREFIX = "checkpoint-"
SET_ASIDE = ".damaged"


class Everyone(Protocol):
    """The processes of a run, as accelerate knows them."""

    is_main_process: bool

    def wait_for_everyone(self) -> None: ...


@dataclass(frozen=True)
class Checkpoints:
    """`checkpoint-{step}` in the stage's folder, all of the run that `fingerprint` describes."""

    folder: Path
    fingerprint: Mapping[str, str]

    def at(self, step: int) -> Path:
        return self.folder / f"{PREFIX}{step}"

    def steps(self) -> list[int]:
        """Ascending; whole or not."""
        names = (path.name.removeprefix(PREFIX) for path in self.folder.glob(f"{PREFIX}*") if path.is_dir())
        return sorted(int(name) for name in names if name.isascii() and name.isdigit())

    @contextmanager
    def writing(self, step: int, everyone: Everyone, machines: Alone = ALONE) -> Iterator[Path]:
        """A folder for the parts of all processes, who enter and leave together. It becomes the checkpoint
        when all parts are in it; until then what was there is as it was. Machines that do not share the
        folder have the same afterwards."""
        place, aside = self.at(step), aside_of(self.at(step))
        with ExitStack() as building:
            if everyone.is_main_process:
                building.enter_context(built_aside(place))
            elif machines.keeps_files:
                empty_folder(aside)
            everyone.wait_for_everyone()
            yield aside
            everyone.wait_for_everyone()
            machines.collect(aside)
            if everyone.is_main_process:
                seal(aside, step, self.fingerprint)
        if machines.keeps_files and not everyone.is_main_process:
            shutil.rmtree(place, ignore_errors=True)
            os.replace(aside, place)
        everyone.wait_for_everyone()
        machines.mirror(place)

    def newest_whole(self, *, goes_back: bool) -> tuple[Manifest | None, list[str]]:
        """The newest checkpoint that is what was saved, and what became of those that are not: they are set
        aside under another name. With `goes_back` the best one so far must be whole as well, because a run
        ends with its weights.
        """
        finish_changes(self.folder, f"{PREFIX}*")
        notices: list[str] = []
        for step in reversed(self.steps()):
            if not self.at(step).is_dir():  # set aside on the way, as the best of a newer one
                continue
            manifest = self._whole(step, notices)
            best = best_step(self.at(step)) if manifest and goes_back else None
            if manifest and (best in {None, step} or self._whole(best, notices)):
                return manifest, notices
        return None, notices

    def _whole(self, step: int, notices: list[str]) -> Manifest | None:
        try:
            if not self.at(step).is_dir():
                raise DamagedError("it is missing")
            return verified(self.at(step))
        except DamagedError as damage:
            notices.append(self._set_aside(step, str(damage)))
            return None

    def _set_aside(self, step: int, damage: str) -> str:
        path, place = self.at(step), f"{PREFIX}{step}"
        if not path.is_dir():
            return f"[WARNING] {place}, the best so far, is missing: going back to before it"
        kept = next(name for name in _numbered(path.name + SET_ASIDE) if not path.with_name(name).exists())
        os.replace(path, path.with_name(kept))
        return f"[WARNING] {place} is damaged ({damage}); set aside as {kept}, which nobody reads again"

    def check(self, step: int) -> None:
        """Raises RunError when the checkpoint is not what was saved."""
        try:
            verified(self.at(step))
        except DamagedError as damage:
            raise RunError(
                Problem(
                    where=str(self.at(step)),
                    value=str(damage),
                    expected="the best weights as they were saved",
                    remedy="run the same command again: it goes on from the newest whole one before it",
                )
            ) from damage

    def rotate(self, history: Sequence[Mapping[str, Any]], metric: str, limit: int, last: int) -> None:
        """Delete all but the best `limit` checkpoints and the last one."""
        scores = {int(entry["step"]): entry[metric] for entry in history if metric in entry}
        for step in superfluous(self.steps(), scores, limit, last, highest=direction(metric) == "max"):
            remove_folder(self.at(step))

    def remove_all(self) -> None:
        """What was set aside stays."""
        finish_changes(self.folder, f"{PREFIX}*")
        for step in self.steps():
            remove_folder(self.at(step))


def latest_outline(folder: Path) -> Manifest | None:
    """Of the newest checkpoint that looks whole by names and sizes: for those who only look."""
    checkpoints = Checkpoints(folder, {})
    for step in reversed(checkpoints.steps()):
        try:
            return outlined(checkpoints.at(step))
        except DamagedError:
            continue
    return None


def superfluous(
    steps: Sequence[int], scores: Mapping[int, float], limit: int, last: int, *, highest: bool
) -> list[int]:
    """Of `steps` those that are neither `last` nor among the `limit` best. Among equals the earlier is the
    better one, as for the choice of the best weights; those without a score come after all others, the newest
    first: so without any evaluation the newest are kept.
    """
    sign = -1 if highest else 1

    def rank(step: int) -> tuple[bool, float]:
        # A score that is no number (NaN) is none.
        score = scores.get(step)
        return (False, sign * score) if score is not None and score == score else (True, -step)

    kept = {last, *sorted(sorted(steps), key=rank)[:limit]}
    return [step for step in steps if step not in kept]


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name}-{number}"
        number += 1
