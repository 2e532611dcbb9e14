"""What goes into an exported model: the stages up to one, each complete and as its file says."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.files import existing_folder
from lib.lineage.ancestry import Chain, trace
from lib.lineage.curriculum import SurveyedStage, survey
from lib.lineage.record import StageRecord
from lib.model.adapter import ADAPTER_CONFIG
from lib.model.base_files import base_folder, fetch_base
from lib.settings import InputError, Problem, StageSettings, list_stages


@dataclass(frozen=True)
class Exported:
    """`settings` are those of the last stage; `chain` has the adapters of all stages, the last one's too."""

    settings: StageSettings
    chain: Chain
    records: tuple[StageRecord, ...]

    @property
    def headline(self) -> str:
        numbers = [record.stage for record in self.records]
        which = f"stages {numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else f"stage {numbers[0]}"
        return f"{which} on {self.settings.model.base_model}"


def stages_to_export(stages_dir: Path, last: int, destination: Path, *, replace: bool) -> Exported:
    """Everything up to stage `last`.

    Raises InputError for every stage that is missing, unfinished or stale, whatever SFT_STRICT says: who is
    handed a model cannot see what it lacks. And for a destination that holds something.
    """
    numbers = [number for number in list_stages(stages_dir) if number < last]
    surveyed = survey(stages_dir, [*numbers, last], thorough=True)
    settings = surveyed[-1].settings
    problems = [
        *(problem for stage in surveyed for problem in _stage_problems(stage, last)),
        *_destination_problems(destination, [stage.settings for stage in surveyed], stages_dir, replace),
    ]
    if problems:
        raise InputError(problems)
    chain = trace(settings, [*numbers, last], thorough=True)
    if not chain.base.content:
        fetch_base(settings.model)  # only now it can be said whether the stages were trained on it
        return stages_to_export(stages_dir, last, destination, replace=replace)
    return Exported(settings, chain, tuple(parent.record for parent in chain.parents if parent.record))


def _stage_problems(stage: SurveyedStage, last: int) -> Iterator[Problem]:
    status, number = stage.status, stage.settings.stage
    if status.state != "complete":
        yield Problem(
            where=status.folder,
            key=f"stage {number}",
            value=f"{status.state}{': ' if status.reasons else ''}{'; '.join(status.reasons)}",
            expected="a stage that is complete and up to date",
            remedy=f"run python train.py --stage {number}{f'-{last}' if number < last else ''}, "
            "or put back what changed (python train.py --status)",
        )


def _destination_problems(
    destination: Path, stages: Sequence[StageSettings], stages_dir: Path, replace: bool
) -> Iterator[Problem]:
    reason, remedy = _destination_fault(destination, _not_to_be_lost(stages, stages_dir), replace)
    if reason:
        yield Problem(
            where="command line", key="--to", value=str(destination), expected=reason, remedy=remedy
        )


def _destination_fault(destination: Path, precious: Sequence[Path], replace: bool) -> tuple[str, str]:
    """What is wrong with it and what to do; both empty when it will do."""
    elsewhere = "choose another folder"
    absolute = destination.absolute().resolve()
    for folder in precious:
        if folder.is_relative_to(absolute):
            return f"a folder of its own; {folder} is or lies in this one", elsewhere
    nearest = existing_folder(absolute)
    if not nearest.is_dir():
        return f"a folder; {nearest} is a file", elsewhere
    beside = nearest if nearest != absolute else absolute.parent
    if not os.access(beside, os.W_OK | os.X_OK):
        return f"a folder in one that can be written; {beside} cannot", elsewhere
    if not absolute.is_dir() or not any(absolute.iterdir()):
        return "", ""
    if destination.is_symlink():
        return "a folder of its own, not a link to one that holds files", elsewhere
    if not replace:
        return "a new or empty folder; this one holds files", f"{elsewhere}, or replace it with --force"
    if not any((absolute / name).is_file() for name in ("config.json", ADAPTER_CONFIG)):
        return (
            "with --force, a folder that holds a model or an adapter; this one holds something else",
            elsewhere,
        )
    return "", ""


def _not_to_be_lost(stages: Sequence[StageSettings], stages_dir: Path) -> list[Path]:
    """The curriculum's own folders, and the one that the command runs in."""
    last = stages[-1]
    base = base_folder(last.model)
    own = [folder for stage in stages for folder in (stage.stage_dir, stage.merged_base_dir)]
    return [path.absolute().resolve() for path in (*own, stages_dir, Path.cwd(), *([base] if base else []))]
