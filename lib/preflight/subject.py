"""What the checks look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.data.chat.chat_format import ChatFormat
from lib.data.prepare import PlannedData
from lib.failures.explain import explain
from lib.lineage.curriculum import SurveyedStage
from lib.model.architecture import Architecture, read_architecture
from lib.model.base_files import base_folder
from lib.planning.plan import StagePlan
from lib.preflight.verdict import Verdict
from lib.settings import InputError, StageSettings
from lib.training.sizing.devices import DeviceMemory, device_memory
from lib.training.sizing.world import World


@dataclass(frozen=True)
class Subject:
    """A stage on this machine. What a run has not read yet at its start is None there."""

    stage: SurveyedStage
    """With its batch planned."""
    world: World
    device: DeviceMemory
    base: Path | None
    """Folder of the stage-0 base; None where it has to be downloaded."""
    architecture: Architecture | None
    """None for a family whose sizes are not known."""
    runs_before: tuple[int, ...] = ()
    """Earlier stages that the same command trains first."""
    chat: ChatFormat | None = None
    planned: PlannedData | None = None
    plan: StagePlan | None = None

    @classmethod
    def of(cls, stage: SurveyedStage, world: World) -> Subject:
        base = base_folder(stage.settings.model)
        device = device_memory(processes=world.processes, gpus=world.gpus, card=world.card)
        return cls(stage, world, device, base, read_architecture(base) if base else None)

    @property
    def settings(self) -> StageSettings:
        return self.stage.settings


Check = Callable[[Subject], Iterable[Verdict]]
"""What it finds is in order too: one verdict at least, where it applies."""


def run_checks(checks: Sequence[Check], subject: Subject) -> list[Verdict]:
    """All verdicts, in the order of the checks; an input error or a known failure of one is a failed verdict.
    Raises what is neither."""
    found: list[Verdict] = []
    for check in checks:
        try:
            found += check(subject)
        except Exception as error:
            found += failed_verdicts(check.__name__.replace("_", " "), error)
    return found


def failed_verdicts(name: str, error: Exception) -> list[Verdict]:
    """An input error or a known failure as verdicts. Raises any other."""
    if isinstance(error, InputError):
        return [Verdict.failed(name, problem) for problem in error.problems]
    explanation = explain(error)
    if explanation is None:
        raise error
    return [Verdict.known(name, "failed", explanation.failure, explanation.said)]
