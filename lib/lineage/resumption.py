"""Whether an interrupted run of a stage can be gone on with: only as the same run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lib.lineage.ancestry import run_changes
from lib.lineage.curriculum import SurveyedStage
from lib.lineage.trained import has_its_adapter, read_trained
from lib.lineage.versions import library_version
from lib.settings import InputError, Problem
from lib.training.checkpoints.checkpoints import Checkpoints, latest_outline

if TYPE_CHECKING:
    from lib.data.prepare import PreparedData
    from lib.model.base import ComputeChoice
    from lib.training.sizing.world import World
    from lib.training.trainer import FitResult

# Of these every version may round otherwise, or draw other random numbers.
EXACT_VERSIONS = (
    "torch", "transformers", "peft", "trl", "accelerate", "deepspeed", "bitsandbytes", "tokenizers",
)  # fmt: skip
# What only a run knows: left out where a plan looks.
OF_A_RUN = ("device", "precision", "attention", "sharding", "Hub data set")


@dataclass(frozen=True)
class Begun:
    """A run that was interrupted: up to which step it is saved, and what it was made from."""

    step: int
    trained: bool
    """Only its evaluation is missing."""
    fingerprint: Mapping[str, str]

    @property
    def where(self) -> str:
        return f"at step {self.step}" + (", trained and not evaluated" if self.trained else "")


@dataclass(frozen=True)
class Progress:
    """Where a run of a stage starts."""

    checkpoints: Checkpoints
    step: int | None = None
    """Of the checkpoint to go on from; None: from the beginning."""
    fitted: FitResult | None = None
    """When training was done before."""
    notices: tuple[str, ...] = ()

    @property
    def anew(self) -> bool:
        return self.step is None and self.fitted is None


def run_fingerprint(stage: SurveyedStage) -> dict[str, str]:
    """What decides every byte of a run, as far as it is known before torch is loaded."""
    cut: dict[str, str] = {}
    if stage.batch:
        batch = stage.batch
        cut = {
            "processes": str(batch.processes),
            "rows per device and pass": str(batch.rows),
            "passes per step": str(batch.passes),
        }
    versions = {f"{library} version": library_version(library) for library in EXACT_VERSIONS}
    return {**stage.identity, **versions, **cut}


def full_fingerprint(
    stage: SurveyedStage, data: PreparedData, compute: ComputeChoice, world: World
) -> dict[str, str]:
    """The same with what only a run knows."""
    local = {key.removeprefix("data set ") for key in stage.identity if key.startswith("data set ")}
    fetched = {
        f"Hub data set {source.id} ({source.split})": source.fingerprint[:16]
        for source in data.sources
        if source.id not in local and f"{source.id}[{source.split}]" not in local
    }
    return {
        **run_fingerprint(stage),
        "device": "GPU" if world.gpus else "CPU",
        "precision": str(compute.dtype).removeprefix("torch."),
        "attention": compute.attention,
        "sharding": "DeepSpeed" if world.shards(stage.settings.training) else "none",
        **fetched,
    }


def begun_run(stage: SurveyedStage) -> Begun | None:
    """The interrupted run in the stage's folder, by a look that takes no time; None when there is none, or
    nothing of it was saved."""
    folder = stage.settings.stage_dir
    if stage.status.state not in {"interrupted", "running"}:
        return None
    trained = read_trained(folder)
    if trained:
        return Begun(trained.step, True, trained.fingerprint)
    newest = latest_outline(folder)
    return Begun(newest.step, False, newest.fingerprint) if newest else None


def resumption_problems(stage: SurveyedStage) -> list[Problem]:
    """Why the interrupted run that is there is another one than the present; empty when it can be gone on
    with, or when there is none."""
    begun = begun_run(stage)
    if begun is None:
        return []
    known = {key: value for key, value in begun.fingerprint.items() if not key.startswith(OF_A_RUN)}
    current = run_fingerprint(stage)
    if stage.batch is None:
        known = {key: value for key, value in known.items() if key in current or key in stage.identity}
    return _problems(stage, begun, known, current)


def _problems(
    stage: SurveyedStage, begun: Begun, known: Mapping[str, str], current: Mapping[str, str]
) -> list[Problem]:
    changes = run_changes(known, current, stage.settings.origins)
    return [
        Problem(
            where=stage.settings.origins.get(key, str(stage.settings.stage_dir)),
            key=key,
            value=change,
            expected=f"as in the run that was interrupted {begun.where}",
            remedy="put it back (--nproc) to go on from there, or begin anew with --restart"
            if key == "processes"
            else "put it back to go on from there, or begin anew with --restart",
        )
        for key, change in changes.items()
    ]


def find_progress(
    stage: SurveyedStage, fingerprint: Mapping[str, str], *, goes_back: bool, restart: bool
) -> Progress:
    """Where the run can start, everything verified that it would start from. `goes_back`: it ends with the
    best weights, not the last.

    Raises InputError when what is there was made from something else than `fingerprint` and `restart` does
    not say to forget it.
    """
    folder = stage.settings.stage_dir
    checkpoints = Checkpoints(folder, fingerprint)
    if restart or stage.status.state in {"complete", "stale"}:
        return Progress(checkpoints)
    trained = read_trained(folder)
    if trained and has_its_adapter(folder, trained):
        _require_same(stage, Begun(trained.step, True, trained.fingerprint), fingerprint)
        done = f"  trained already, {trained.step} steps: going on with the evaluation"
        return Progress(checkpoints, fitted=trained.fit_result(), notices=(done,))
    newest, notices = checkpoints.newest_whole(goes_back=goes_back)
    if newest is None:
        return Progress(checkpoints, notices=tuple(notices))
    _require_same(stage, Begun(newest.step, False, newest.fingerprint), fingerprint)
    return Progress(checkpoints, newest.step, notices=(*notices, f"  going on from step {newest.step}"))


def _require_same(stage: SurveyedStage, begun: Begun, fingerprint: Mapping[str, str]) -> None:
    problems = _problems(stage, begun, begun.fingerprint, fingerprint)
    if problems:
        raise InputError(problems)
