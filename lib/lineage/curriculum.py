"""The stages of a curriculum with where each one stands: what plan, status and run all start from."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.data.local_identity import local_fingerprints
from lib.lineage.ancestry import Chain, identity, replayed_data, running_elsewhere, trace
from lib.lineage.packages import package_problems
from lib.lineage.status import StageStatus, stage_status
from lib.model.base_files import fetch_base
from lib.settings import InputError, Problem, StageSettings, list_stages, load_stage


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

    @property
    def headline(self) -> str:
        return f"\nstage {self.settings.stage}  {self.settings.env_file} -> {self.settings.stage_dir}"


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

    `chosen` are the stages that are about to run: `overrides` apply to them, and all their settings
    count when they are compared with an earlier run. `thorough` reads a base whole that was never read on
    this machine; `--status` and `--plan` do not. Raises InputError with the problems of all files.
    """
    settings_of = _load_all(stages_dir, stages, chosen, overrides, environ)
    surveyed: list[SurveyedStage] = []
    for stage, settings in settings_of.items():
        earlier = [number for number in list_stages(stages_dir) if number < stage]
        chain = trace(settings, earlier, thorough=thorough)
        data = {**local_fingerprints(settings.data.mix), **replayed_data(settings, chain)}
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
        given = overrides if stage in chosen or not chosen else ()
        try:
            loaded[stage] = load_stage(stages_dir, stage, overrides=given, environ=environ)
        except InputError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    if problems:
        raise InputError(problems)
    return loaded


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


def preconditions(stage: SurveyedStage) -> list[str]:
    """Notices about what lies under and around a stage that is about to run.

    Raises InputError when its folder cannot be written and, for a strict stage, when an ancestor is
    missing or stale: nothing is trained on a base that is not what the curriculum says.
    """
    problems, notices = obstacles(stage)
    if problems:
        raise InputError(problems)
    return notices


def obstacles(stage: SurveyedStage, *, runs_before: Sequence[int] = ()) -> tuple[list[Problem], list[str]]:
    """What keeps a stage from running, and what is only worth a notice.

    `runs_before` are earlier stages that the same command trains first: they will be in order by then.
    """
    settings, chain = stage.settings, stage.chain
    missing = [number for number in chain.missing if number not in runs_before]
    stale = {number: why for number, why in stage.stale_parents.items() if number not in runs_before}
    failed = {number: why for number, why in stage.failed_parents.items() if number not in runs_before}
    known = {*runs_before, *stale}
    unfinished = [
        parent.stage for parent in chain.parents if parent.record is None and parent.stage not in known
    ]
    problems = [
        *_base_problems(settings),
        *package_problems(settings),
        *unwritable_problems(settings),
        *_running_problems(settings),
    ]
    if settings.strict:
        problems += [
            *_missing_problems(settings, missing),
            *_unfinished_problems(settings, unfinished),
            *_stale_problems(settings, stale),
            *_gate_problems(settings, failed),
        ]
        return problems, []
    notices = _missing_notices(settings, missing, starts_from_base=not (chain.parents or runs_before))
    notices += [
        f"[WARNING] stage {number} is stale ({'; '.join(why)}); its adapter is used as it is"
        for number, why in stale.items()
    ]
    notices += [
        f"[WARNING] stage {number} failed its retention gate: {'; '.join(why)}"
        for number, why in failed.items()
    ]
    notices += [
        f"[WARNING] stage {number} has an adapter but no stage.json: not finished, or made elsewhere"
        for number in unfinished
    ]
    return problems, notices


def _missing_notices(settings: StageSettings, missing: Sequence[int], *, starts_from_base: bool) -> list[str]:
    """The documented warning for each earlier stage without an adapter."""
    consequence = "starting from base model" if starts_from_base else "going on without it"
    return [
        f"[WARNING] Previous stage adapter not found at {settings.output}_stage{number}, {consequence}"
        for number in missing
    ]


def _missing_problems(settings: StageSettings, missing: Sequence[int]) -> list[Problem]:
    return [
        Problem(
            where=str(settings.env_file),
            key="SFT_OUT_LORA_DIR",
            value=f"{settings.output}_stage{number}",
            expected=f"the adapter of stage {number} in this folder",
            remedy=f"run python train.py --stage {number} first, or set SFT_STRICT=0 to train without it",
        )
        for number in missing
    ]


def _unfinished_problems(settings: StageSettings, unfinished: Sequence[int]) -> list[Problem]:
    return [
        Problem(
            where=f"{settings.output}_stage{number}",
            key=f"stage {number}",
            value="an adapter without stage.json: the stage was not finished, or made elsewhere",
            expected="a complete stage, whose record says what it was made from",
            remedy=f"run python train.py --stage {number} again, or set SFT_STRICT=0 to use it as it is",
        )
        for number in unfinished
    ]


def _stale_problems(settings: StageSettings, stale: Mapping[int, tuple[str, ...]]) -> list[Problem]:
    return [
        Problem(
            where=str(settings.env_file.with_name(f"stage{number}.env")),
            key=f"stage {number}",
            value="; ".join(why),
            expected=f"stage {number} trained as its file and inputs now say",
            remedy=f"run python train.py --stage {number}-{settings.stage}, or put the change back, "
            "or set SFT_STRICT=0 to train on it all the same",
        )
        for number, why in stale.items()
    ]


def _gate_problems(settings: StageSettings, failed: Mapping[int, tuple[str, ...]]) -> list[Problem]:
    return [
        Problem(
            where=str(settings.env_file.with_name(f"stage{number}.env")),
            key="SFT_RETENTION_MIN",
            value="; ".join(why),
            expected=f"stage {number} to pass its retention gate before anything is built on it",
            remedy=f"train stage {number} again with earlier data mixed in or a lower SFT_LR, "
            "or accept the loss by lowering its SFT_RETENTION_MIN",
        )
        for number, why in failed.items()
    ]


def _running_problems(settings: StageSettings) -> list[Problem]:
    pid = running_elsewhere(settings.stage_dir)
    if pid is None:
        return []
    return [
        Problem(
            where=str(settings.stage_dir),
            key=f"stage {settings.stage}",
            value=f"process {pid} is training it",
            expected="one run of a stage at a time",
            remedy=f"wait for it or stop it (kill {pid}), or choose another SFT_OUT_LORA_DIR",
        )
    ]


def _base_problems(settings: StageSettings) -> list[Problem]:
    """A problem when the base is named by a path, not by a Hub id, and there is no such folder."""
    name = settings.model.base_model
    is_path = name.startswith((".", "/")) or name.count("/") > 1
    if not is_path or Path(name).is_dir():
        return []
    return [
        Problem(
            where=settings.origins["SFT_BASE_MODEL"],
            key="SFT_BASE_MODEL",
            value=name,
            expected=f"a model folder that exists; there is none at {Path(name).absolute()}",
            remedy="correct the path (a relative one starts at the working directory), or give a Hub id",
        )
    ]


def unwritable_problems(settings: StageSettings) -> list[Problem]:
    """A problem when the stage's folder can neither be written nor made."""
    folder = settings.stage_dir.absolute()
    nearest = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK):
        return []
    why = "cannot be written" if nearest.is_dir() else "is not a folder"
    return [
        Problem(
            where=str(settings.env_file),
            key="SFT_OUT_LORA_DIR",
            value=str(settings.output),
            expected=f"a folder that can be written; {nearest} {why}",
            remedy="choose another folder, or change its permissions",
        )
    ]
