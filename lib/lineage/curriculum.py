"""The stages of a curriculum with where each one stands: what plan, status and run all start from."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.data.reading.local_identity import local_fingerprints
from lib.lineage.ancestry import Chain, evaluated_data, identity, replayed_data, trace
from lib.lineage.status import StageStatus, stage_status
from lib.model.base_files import fetch_base
from lib.settings import InputError, Problem, StageSettings, list_stages, load_stage
from lib.training.sizing.batch import BatchPlan

SAME_IN_ALL_STAGES = ("SFT_BASE_MODEL", "SFT_BASE_REVISION", "SFT_OUT_LORA_DIR")


@dataclass(frozen=True)
class SurveyedStage:
    """A stage's settings, what lies under it, and its state."""

    settings: StageSettings
    chain: Chain
    identity: Mapping[str, str]
    status: StageStatus
    stale_parents: Mapping[int, tuple[str, ...]]
    failed_parents: Mapping[int, tuple[str, ...]]
    """Earlier stages that failed their retention gate, and why."""
    batch: BatchPlan | None = None
    """How a step is cut up; None until `with_batch`."""

    @property
    def headline(self) -> str:
        return f"\nstage {self.settings.stage}  {self.settings.env_file} -> {self.settings.stage_dir}"

    @property
    def batch_line(self) -> str:
        return self.batch.line() if self.batch else "  batch not planned"


def choose_stages(text: str, stages_dir: Path, *, base_too: bool = False) -> tuple[int, ...]:
    """Stage numbers of `--stage`: `2`, `1-3` or `all`, and with `base_too` `0`, the untouched base.

    Raises InputError for anything else.
    """
    existing = list_stages(stages_dir)
    if text == "all" and existing:
        return existing
    if text == "0" and base_too:
        return (0,)
    match = re.fullmatch(r"([1-9]\d*)(?:-([1-9]\d*))?", text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if text != "all" and first > last:
        raise InputError.of(
            where="command line",
            key="--stage",
            value=text,
            expected="a stage number (2), a range (1-3) or all",
            remedy=f"stages in {stages_dir}: {', '.join(map(str, existing)) or 'none'}",
        )
    # A number without a file is reported by load_stage, which knows what exists.
    return tuple(range(first, last + 1)) if match else (1,)


def survey(
    stages_dir: Path,
    stages: Sequence[int],
    *,
    chosen: Sequence[int] = (),
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    thorough: bool = False,
) -> list[SurveyedStage]:
    """Every stage of `stages` in ascending order, with the state that follows from those before it.

    `chosen` are the stages that are about to run: `overrides` apply to them (base and output folder to all
    stages), and all their settings count when they are compared with an earlier run. `thorough` reads a base
    whole that was never read on this machine; `--status` and `--plan` do not. Raises InputError with the
    problems of all files.
    """
    settings_of = _load_all(stages_dir, stages, chosen, overrides, environ)
    surveyed: list[SurveyedStage] = []
    for stage, settings in settings_of.items():
        earlier = [number for number in list_stages(stages_dir) if number < stage]
        chain = trace(settings, earlier, thorough=thorough)
        data = {
            **local_fingerprints(settings.data.mix),
            **replayed_data(settings, chain),
            **evaluated_data(settings, chain),
        }
        current = identity(settings, chain, data)
        stale = {s.settings.stage: s.status.reasons for s in surveyed if s.status.state == "stale"}
        status = stage_status(settings, chain, current, list(stale), as_run_now=stage in chosen)
        failed = {s.settings.stage: s.status.gate for s in surveyed if s.status.gate}
        surveyed.append(SurveyedStage(settings, chain, current, status, stale, failed))
    return surveyed


def _load_all(
    stages_dir: Path,
    stages: Sequence[int],
    chosen: Sequence[int],
    overrides: Sequence[str],
    environ: Mapping[str, str],
) -> dict[int, StageSettings]:
    loaded: dict[int, StageSettings] = {}
    problems: list[Problem] = []
    for stage in stages:
        given = overrides if stage in chosen or not chosen else _of_all_stages(overrides)
        try:
            loaded[stage] = load_stage(stages_dir, stage, overrides=given, environ=environ)
        except InputError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    if problems:
        raise InputError(problems)
    return loaded


def _of_all_stages(overrides: Sequence[str]) -> list[str]:
    """Base and output folder are those of the whole curriculum: whoever gives another for one stage has
    trained the earlier stages with it, or is told that they were not."""
    return [text for text in overrides if text.partition("=")[0].strip() in SAME_IN_ALL_STAGES]


def survey_one(
    stages_dir: Path, stage: int, *, chosen: Sequence[int], overrides: Sequence[str]
) -> SurveyedStage:
    """One stage, judged thoroughly and together with the stages before it."""
    earlier = [number for number in list_stages(stages_dir) if number < stage]
    return survey(stages_dir, [*earlier, stage], chosen=chosen, overrides=overrides, thorough=True)[-1]


def with_base(
    stage: SurveyedStage, stages_dir: Path, *, chosen: Sequence[int], overrides: Sequence[str]
) -> SurveyedStage:
    """The stage with its base on this machine. Where that had to be downloaded it is surveyed again: only now
    its content is known, and whether the earlier stages were trained on the same.

    Raises InputError when it cannot be downloaded.
    """
    if stage.chain.base.content:
        return stage
    fetch_base(stage.settings.model)
    return survey_one(stages_dir, stage.settings.stage, chosen=chosen, overrides=overrides)
