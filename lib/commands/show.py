"""`--status` and `--plan`: what is there and what would run. Never loads torch."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial

from rich.console import Console

from lib.audit.audit import audit_rows
from lib.data.chat.chat_format import ChatFormat
from lib.data.chat.masks import EncodingRules
from lib.data.chat.preview import preview_rows
from lib.data.prepare import PLAN_CHARACTERS, PlannedData, plan_rows
from lib.lineage.curriculum import SurveyedStage, survey
from lib.lineage.replayed import replayed_stages
from lib.model.base_files import base_folder
from lib.planning.plan import StagePlan, make_plan
from lib.planning.plan_text import print_plan
from lib.planning.stage_batch import with_batch
from lib.preflight.machine import memory
from lib.preflight.subject import Subject
from lib.preflight.verdict import failures, warnings
from lib.settings import InputError, Problems, StageSettings, list_stages
from lib.training.sizing.world import World


def show_status(options: argparse.Namespace) -> int:
    """One line a stage: missing, running, interrupted, complete or stale (and why), with its scores."""
    surveyed = survey(options.stages_dir, list_stages(options.stages_dir), overrides=options.set)
    if options.json:
        print(json.dumps([asdict(stage.status) for stage in surveyed], indent=2, ensure_ascii=False))
        return 0
    for stage in surveyed:
        print(stage.status.line())
    return 0


def show_plans(options: argparse.Namespace, chosen: Sequence[int], world: World) -> int:
    """The plan of every chosen stage. Raises InputError, after the plans that can be made, for all
    that is wrong with any stage."""
    earlier = [number for number in list_stages(options.stages_dir) if number < max(chosen)]
    surveyed = survey(options.stages_dir, sorted({*earlier, *chosen}), chosen=chosen, overrides=options.set)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    known = {stage.settings.stage: stage.settings for stage in surveyed}
    plans: list[StagePlan] = []
    problems = Problems()
    for stage in (stage for stage in surveyed if stage.settings.stage in chosen):
        try:
            plan = _show_plan(stage, plans, console, world, options, PLAN_CHARACTERS // len(chosen), known)
        except InputError as error:
            problems.extend(error.problems)
        else:
            plans.append(plan)
            problems.extend(plan.problems)
    if options.json:
        print(json.dumps([plan.to_json() for plan in plans], indent=2, ensure_ascii=False))
    problems.raise_if_any()
    return 0


def _show_plan(
    stage: SurveyedStage,
    before: Sequence[StagePlan],
    console: Console,
    world: World,
    options: argparse.Namespace,
    characters: int,
    known: Mapping[int, StageSettings],
) -> StagePlan:
    """`known` are the settings of all stages up to this one, by number."""
    stage = with_batch(stage, world)
    settings = stage.settings
    folder = base_folder(settings.model)
    chat = ChatFormat.load(folder, settings.data.chat_template) if folder else None
    runs_before = tuple(plan.stage for plan in before if plan.will_run)
    upcoming = {number: known[number] for number in runs_before}
    planned = plan_rows(
        settings,
        chat,
        characters=characters,
        processes=world.processes,
        earlier=replayed_stages(stage, upcoming),
        clean=partial(audit_rows, explain=options.audit),
    )
    plan = make_plan(
        stage, planned, world,
        runs_before=runs_before, forced=options.force, restart=options.restart, chat=chat,
        audited=options.audit,
    )  # fmt: skip
    plan = _with_memory(plan, Subject.of(stage, world))
    if not options.json:
        print_plan(plan, console)
        _show_masks(stage, chat, planned, options.show_mask)
    return plan


def _with_memory(plan: StagePlan, subject: Subject) -> StagePlan:
    """What does not fit is said with what to lower. It keeps the stage from running on the GPUs that are here
    or planned for; a machine without any is often not the one that trains."""
    verdicts = list(memory(subject))
    problems, notices = failures(verdicts), warnings(verdicts)
    if problems and not subject.world.gpus:
        elsewhere = "not enough memory here, and no GPU: --hardware 4xH100 plans for what is elsewhere"
        return replace(plan, notices=(*plan.notices, f"[WARNING] {elsewhere}"))
    return replace(plan, notices=(*plan.notices, *notices), problems=(*plan.problems, *problems))


def _show_masks(stage: SurveyedStage, chat: ChatFormat | None, planned: PlannedData, rows: int) -> None:
    if not rows:
        return
    if chat is None or planned.mixture is None:
        raise InputError.of(
            where="--show-mask",
            key="SFT_BASE_MODEL",
            value=stage.settings.model.base_model,
            expected="a base model with a tokenizer.json, and the data, on this machine",
            remedy="use a local model folder, or download model and data first",
        )
    examples = list({example.row_id: example for example in planned.mixture.train}.values())[:rows]
    rules = EncodingRules.of(stage.settings.data)
    print(preview_rows(chat, examples, rules, color=sys.stdout.isatty()))
