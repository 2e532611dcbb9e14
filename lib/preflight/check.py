"""The preflight of a stage: everything that can be found wrong before the real run, cheap things first."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lib.audit.audit import audit_rows
from lib.data.prepare import plan_rows
from lib.lineage.curriculum import SurveyedStage, survey
from lib.lineage.replayed import replayed_stages
from lib.planning.obstacles import obstacles
from lib.planning.plan import make_plan
from lib.planning.stage_batch import with_batch
from lib.preflight.hub import base_and_data
from lib.preflight.machine import attention, deepspeed, disk, memory, number_type, torch_build
from lib.preflight.store import tracking_server, tracking_store
from lib.preflight.subject import Check, Subject, failed_verdicts, run_checks
from lib.preflight.surroundings import settings, surroundings
from lib.preflight.targets import targets
from lib.preflight.text import base_chat, chat_template, context_length, rows, tokenizer
from lib.preflight.trainability import Probed, probe_stage
from lib.preflight.verdict import Verdict, failures, warnings
from lib.settings import InputError, StageSettings, list_stages
from lib.training.sizing.world import World

AT_START: tuple[Check, ...] = (torch_build, deepspeed, memory, disk, tracking_store, context_length)
"""Milliseconds each, so every run begins with them; what else there is a run finds by itself before it loads
weights."""
BEFORE_LOADING: tuple[Check, ...] = (
    settings, surroundings, *AT_START,
    tracking_server, base_and_data, rows, chat_template, tokenizer,
    number_type, attention, targets,
)  # fmt: skip


@dataclass(frozen=True)
class CheckedStage:
    """`probed` is None where the probe was left out, or could not be made."""

    stage: int
    verdicts: tuple[Verdict, ...]
    probed: Probed | None = None

    @property
    def failed(self) -> bool:
        return any(verdict.state == "failed" for verdict in self.verdicts)

    def to_json(self) -> dict[str, Any]:
        probe = self.probed
        return {
            "stage": self.stage,
            "ok": not self.failed,
            "verdicts": [verdict.to_json() for verdict in self.verdicts],
            "census": probe.census if probe else None,
            "seconds": probe.seconds if probe else None,
            "projected_seconds": probe.projected if probe else None,
        }


def preflight(stage: SurveyedStage, world: World, *, restart: bool = False) -> list[str]:
    """The checks that every run begins with; notices. Raises InputError with all that keeps it from it;
    `restart` gives an interrupted run of something else up."""
    problems, notices = obstacles(stage, restart=restart)
    verdicts = run_checks(AT_START, Subject.of(stage, world))
    problems = [*problems, *failures(verdicts)]
    if problems:
        raise InputError(problems)
    return [*notices, *warnings(verdicts)]


def check_stage(
    stages_dir: Path,
    number: int,
    world: World,
    *,
    chosen: Sequence[int],
    overrides: Sequence[str],
    characters: int,
    fast: bool,
) -> CheckedStage:
    """Everything that can be found wrong with one stage; writes nothing.

    `chosen` are all stages that the command is about, `characters` is what may be tokenised. `fast` leaves
    the probe out. Raises what is neither wrong input nor a known failure.
    """
    try:
        *earlier, stage = survey(
            stages_dir,
            [*(n for n in list_stages(stages_dir) if n < number), number],
            chosen=chosen,
            overrides=overrides,
        )
        stage = with_batch(stage, world)
    except Exception as error:
        name = "settings" if isinstance(error, InputError) else "files"
        return CheckedStage(number, tuple(failed_verdicts(name, error)))
    subject = replace(Subject.of(stage, world), runs_before=_trained_first(earlier, chosen))
    known = {s.settings.stage: s.settings for s in earlier}
    subject, unread = _with_data(subject, known, characters)
    verdicts = (*run_checks(BEFORE_LOADING, subject), *unread)
    checked = CheckedStage(number, verdicts)
    return checked if fast else _with_probe(checked, subject)


def _trained_first(earlier: Sequence[SurveyedStage], chosen: Sequence[int]) -> tuple[int, ...]:
    """Earlier stages that the same command would train: the first that is not complete and all after it."""
    due = [s.settings.stage for s in earlier if s.settings.stage in chosen and s.status.state != "complete"]
    return tuple(n for n in chosen if due and due[0] <= n <= earlier[-1].settings.stage)


def _with_data(
    subject: Subject, known: dict[int, StageSettings], characters: int
) -> tuple[Subject, list[Verdict]]:
    """The subject with tokenizer, template and rows as a plan reads them; failed verdicts for rows that it
    refuses or may not read. A template that is wrong has a check of its own."""
    with suppress(InputError):
        chat = base_chat(subject.settings, subject.base) if subject.base else None
        subject = replace(subject, chat=chat)
    try:
        upcoming = {number: known[number] for number in subject.runs_before}
        earlier = replayed_stages(subject.stage, upcoming)
        processes = subject.world.processes
        planned = plan_rows(
            subject.settings,
            subject.chat,
            characters=characters,
            processes=processes,
            earlier=earlier,
            clean=audit_rows,
        )
        plan = make_plan(
            subject.stage, planned, subject.world, runs_before=subject.runs_before, forced=True, chat=None
        )
        return replace(subject, planned=planned, plan=plan), []
    except Exception as error:
        return subject, failed_verdicts("data", error)


def _with_probe(checked: CheckedStage, subject: Subject) -> CheckedStage:
    """The verdicts of the probe besides, where there is something to probe."""
    obstacle = "something above has to be mended first" if checked.failed else _nothing_to_probe(subject)
    if obstacle:
        return replace(
            checked, verdicts=(*checked.verdicts, Verdict.warning("probe", f"left out: {obstacle}"))
        )
    try:
        probed = probe_stage(subject)
    except Exception as error:
        return replace(checked, verdicts=(*checked.verdicts, *failed_verdicts("probe", error)))
    return replace(checked, verdicts=(*checked.verdicts, *probed.verdicts), probed=probed)


def _nothing_to_probe(subject: Subject) -> str:
    if subject.base is None:
        return "the base is not on this machine"
    if subject.planned is None or subject.planned.mixture is None:
        return "no data set is on this machine"
    return ""
