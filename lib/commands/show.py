"""`--status` and `--plan`: what is there and what would run. Never loads torch."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console

from lib.data.chat import ChatFormat
from lib.data.masks import EncodingRules
from lib.data.prepare import PlannedData, plan_rows
from lib.data.preview import preview_rows
from lib.lineage.curriculum import SurveyedStage, preconditions, survey
from lib.lineage.plan import StagePlan, base_folder, make_plan
from lib.lineage.plan_text import print_plan
from lib.settings import InputError, list_stages
from lib.training.launch import World


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
    """The plan of every chosen stage. Raises InputError for all that is wrong with any of them."""
    earlier = [number for number in list_stages(options.stages_dir) if number < max(chosen)]
    surveyed = survey(options.stages_dir, sorted({*earlier, *chosen}), chosen=chosen, overrides=options.set)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    plans = []
    for stage in (stage for stage in surveyed if stage.settings.stage in chosen):
        plan, chat, planned = _plan(stage, chosen, world, forced=options.force, runs_before=_that_run(plans))
        plans.append(plan)
        if not options.json:
            print_plan(plan, console)
            _show_masks(stage, chat, planned, options.show_mask)
    if options.json:
        print(json.dumps([plan.to_json() for plan in plans], indent=2, ensure_ascii=False))
    return 0


def _that_run(plans: Sequence[StagePlan]) -> tuple[int, ...]:
    return tuple(plan.stage for plan in plans if plan.will_run)


def _plan(
    stage: SurveyedStage, chosen: Sequence[int], world: World, *, forced: bool, runs_before: tuple[int, ...]
) -> tuple[StagePlan, ChatFormat | None, PlannedData]:
    settings = stage.settings
    folder = base_folder(settings)
    chat = ChatFormat.load(folder, settings.data.chat_template) if folder else None
    planned = plan_rows(settings, chat)
    # An earlier stage of the same command will be there when this one starts.
    waits = any(number in chosen for number in (*stage.chain.missing, *stage.stale_parents))
    notices = (*settings.notices, *planned.notices, *([] if waits else preconditions(stage)))
    absent = tuple(source.id for source in planned.absent)
    plan = make_plan(
        stage,
        planned.ledger,
        absent,
        notices,
        processes=world.processes,
        gpus=world.gpus,
        world_line=world.line(),
        runs_before=runs_before,
        forced=forced,
    )
    return plan, chat, planned


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
