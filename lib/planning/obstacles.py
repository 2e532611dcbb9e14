"""What keeps a stage from running, found before anything is loaded: earlier stages, folders, packages."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from lib.files import existing_folder, links_inside
from lib.lineage.curriculum import SurveyedStage
from lib.lineage.resumption import resumption_problems
from lib.lineage.stage_lock import running_problems
from lib.model.foreign_code import has_pickled_adapter, pickled_adapter, pickled_model, pickled_weights
from lib.planning.packages import package_problems
from lib.settings import InputError, Problem, StageSettings


def preconditions(stage: SurveyedStage, *, restart: bool = False) -> list[str]:
    """Notices about what lies under and around a stage that is about to run.

    Raises InputError when its folder cannot be written, when it holds an interrupted run of something else
    (unless `restart` gives that up) and, for a strict stage, when an ancestor is missing or stale: nothing is
    trained on a base that is not what the curriculum says.
    """
    problems, notices = obstacles(stage, restart=restart)
    if problems:
        raise InputError(problems)
    return notices


def obstacles(
    stage: SurveyedStage, *, runs_before: Sequence[int] = (), restart: bool = False
) -> tuple[list[Problem], list[str]]:
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
        *_pickled_problems(settings, missing),
        *package_problems(settings),
        *unwritable_problems(settings),
        *link_problems(settings),
        *running_problems(settings),
        *([] if restart or runs_before else resumption_problems(stage)),
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
    return problems, [*notices, *_taken_as_they_are(stale, failed, unfinished)]


def _taken_as_they_are(
    stale: Mapping[int, Sequence[str]], failed: Mapping[int, Sequence[str]], unfinished: Sequence[int]
) -> list[str]:
    """A warning for each earlier stage that a strict one would refuse."""
    of_stale = (
        f"[WARNING] stage {number} is stale ({'; '.join(why)}); its adapter is used as it is"
        for number, why in stale.items()
    )
    of_failed = (
        f"[WARNING] stage {number} failed its retention gate: {'; '.join(why)}"
        for number, why in failed.items()
    )
    of_unfinished = (
        f"[WARNING] stage {number} has an adapter but no stage.json: not finished, or made elsewhere"
        for number in unfinished
    )
    return [*of_stale, *of_failed, *of_unfinished]


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


def _base_problems(settings: StageSettings) -> list[Problem]:
    """A problem when the base is named by a path, not by a Hub id, and there is no such folder, or one with
    pickled weights alone."""
    name = settings.model.base_model
    if Path(name).is_dir():
        pickles = pickled_weights(Path(name))
        return [pickled_model(settings.origins["SFT_BASE_MODEL"], name, pickles)] if pickles else []
    if not (name.startswith((".", "/")) or name.count("/") > 1):
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


def _pickled_problems(settings: StageSettings, missing: Sequence[int]) -> list[Problem]:
    """Earlier stages that are there, but as pickles: nobody means to train without them."""
    folders = [Path(f"{settings.output}_stage{number}") for number in missing]
    return [pickled_adapter(folder, "SFT_OUT_LORA_DIR") for folder in folders if has_pickled_adapter(folder)]


def link_problems(settings: StageSettings) -> list[Problem]:
    """One for every symbolic link where the stage deletes and overwrites: it would reach what lies elsewhere.

    Folders above are the user's own choice of a place, also where they are links.
    """
    own = (settings.stage_dir, settings.merged_base_dir)
    return [
        Problem(
            where=str(link),
            key="SFT_OUT_LORA_DIR",
            value=f"a symbolic link to {link.readlink()}",
            expected="files and folders of the stage's own: nothing is written or deleted through a link",
            remedy="remove the link; to keep results on another disk, set SFT_OUT_LORA_DIR to a folder there",
        )
        for folder in own
        for link in links_inside(folder)
    ]


def unwritable_problems(settings: StageSettings) -> list[Problem]:
    """A problem when the stage's folder can neither be written nor made, and one when no merged base can be
    built beside it."""
    folders = [settings.stage_dir]
    builds = settings.stage > 1 and settings.model.merge_mode == "merge"
    if builds and not settings.merged_base_dir.is_dir():
        folders.append(settings.merged_base_dir.parent)
    nearest = [existing_folder(folder).absolute() for folder in folders]
    return [
        Problem(
            where=str(settings.env_file),
            key="SFT_OUT_LORA_DIR",
            value=str(settings.output),
            expected=f"a folder that can be written; {folder} "
            f"{'cannot be written' if folder.is_dir() else 'is not a folder'}",
            remedy="choose another folder, or change its permissions",
        )
        for folder in dict.fromkeys(nearest)
        if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK))
    ]
