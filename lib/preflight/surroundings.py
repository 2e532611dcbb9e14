"""Checks of what lies around a stage: its settings, folder, packages and earlier stages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lib.planning.obstacles import obstacles
from lib.planning.packages import package_problems
from lib.preflight.subject import Subject
from lib.preflight.verdict import Verdict, verdicts_of
from lib.settings import Problem, StageSettings

PACKAGES, EARLIER, FOLDER, BASE = "packages", "earlier stages", "output folder", "base model"


def settings(subject: Subject) -> Iterable[Verdict]:
    """They were read, or there would be no subject; what was said while reading them."""
    stage = subject.settings
    given = sum(origin != "default" for origin in stage.origins.values())
    marked = [notice for notice in stage.notices if notice.startswith("[")]
    return verdicts_of("settings", [], marked, f"{given} keys are set, {stage.env_file} is in order")


def surroundings(subject: Subject) -> Iterator[Verdict]:
    """What a plan and the start of a run look at: folder, packages, earlier stages, the base's path."""
    problems, notices = obstacles(subject.stage, runs_before=subject.runs_before)
    fine = {
        FOLDER: f"{subject.settings.stage_dir} can be written, and nobody else does",
        PACKAGES: "all that the settings ask for are installed",
        EARLIER: _earlier(subject),
    }
    about: dict[str, list[Problem]] = {name: [] for name in (*fine, BASE)}
    for problem in problems:
        about[_subject_of(problem, subject.settings)].append(problem)
    for name, found in about.items():
        if found or name in fine:
            yield from verdicts_of(name, found, notices if name == EARLIER else (), fine.get(name, ""))


def _subject_of(problem: Problem, stage: StageSettings) -> str:
    """Under which name the table has it."""
    if problem in package_problems(stage):
        return PACKAGES
    if problem.key == "SFT_BASE_MODEL":
        return BASE
    earlier = [f"{stage.output}_stage{number}" for number in range(1, stage.stage)]
    numbered = [f"stage {number}" for number in range(1, stage.stage)]
    if problem.key in {*numbered, "SFT_RETENTION_MIN"} or problem.value in earlier:
        return EARLIER
    return FOLDER


def _earlier(subject: Subject) -> str:
    there = [
        parent.stage for parent in subject.stage.chain.parents if parent.stage not in subject.runs_before
    ]
    parts = [f"{_named(there)} in order"] if there else []
    if subject.runs_before:
        first = f"{_named(subject.runs_before)} trained first by this command"
        parts.append(f"{first}, checked without what they will have taught")
    return "; ".join(parts) or "none"


def _named(stages: Iterable[int]) -> str:
    numbers = [str(stage) for stage in stages]
    return f"stage{'s' * (len(numbers) > 1)} {', '.join(numbers)}"
