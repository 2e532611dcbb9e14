"""Checks of what lies around a stage: its settings, folder, packages and earlier stages."""

from __future__ import annotations

from collections.abc import Iterable

from lib.lineage.obstacles import parent_obstacles, running_problems, unwritable_problems
from lib.lineage.packages import package_problems
from lib.preflight.subject import Subject
from lib.preflight.verdict import Verdict, verdicts_of


def settings(subject: Subject) -> Iterable[Verdict]:
    """They were read, or there would be no subject; what was said while reading them."""
    stage = subject.settings
    given = sum(origin != "default" for origin in stage.origins.values())
    marked = [notice for notice in stage.notices if notice.startswith("[")]
    return verdicts_of("settings", [], marked, f"{given} keys are set, {stage.env_file} is in order")


def output_folder(subject: Subject) -> Iterable[Verdict]:
    """It can be written, and no other run does so."""
    stage = subject.settings
    problems = [*unwritable_problems(stage), *running_problems(stage)]
    return verdicts_of("output folder", problems, [], f"{stage.stage_dir} can be written")


def packages(subject: Subject) -> Iterable[Verdict]:
    """Those that only some settings need."""
    fine = "all that the settings ask for are installed"
    return verdicts_of("packages", package_problems(subject.settings), [], fine)


def earlier_stages(subject: Subject) -> Iterable[Verdict]:
    """Complete and as their files say; of those that are trained first, nothing can be said yet."""
    problems, notices = parent_obstacles(subject.stage, runs_before=subject.runs_before)
    there = [
        parent.stage for parent in subject.stage.chain.parents if parent.stage not in subject.runs_before
    ]
    parts = [f"{_named(there)} in order"] if there else []
    if subject.runs_before:
        trained = (
            f"{_named(subject.runs_before)} trained first by this command, checked without their adapters"
        )
        parts.append(trained)
    return verdicts_of("earlier stages", problems, notices, "; ".join(parts) or "none")


def _named(stages: Iterable[int]) -> str:
    numbers = [str(stage) for stage in stages]
    return f"stage{'s' * (len(numbers) > 1)} {', '.join(numbers)}"
