"""`--evaluate-only`: score finished stages, or the untouched base as stage 0, without training."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lib.audit.findings_file import cleaning_of
from lib.commands.arguments import worker_command
from lib.commands.failing import evaluation_explained
from lib.data.chat.model_chat import chat_of
from lib.data.prepare import load_mixture, prepare_heldout
from lib.heartbeat import phase
from lib.lineage.base_scores import keep_base_scores
from lib.lineage.completion import finish_stage, keep_evaluation, scores_table
from lib.lineage.curriculum import SurveyedStage, survey, with_base
from lib.lineage.finished import finished_record
from lib.lineage.gate import earlier_stages
from lib.lineage.replayed import replayed_stages
from lib.lineage.resumption import run_fingerprint
from lib.lineage.shared_stages import is_shared, survey_together
from lib.planning.stage_batch import with_batch
from lib.settings import list_stages
from lib.training.machines.alone import Alone
from lib.training.processes.launch import is_worker, prepare_environment, run_workers
from lib.training.sizing.world import World
from lib.training.watchdog.watchdog import Watch, watching


def evaluate_only(options: argparse.Namespace, chosen: Sequence[int], world: World, machines: Alone) -> int:
    """Evaluate the chosen stages in turn. Raises InputError for one that is not complete."""
    prepare_environment(world)
    for number in chosen:
        if world.distributed and not is_worker():
            code = run_workers(world, worker_command(options, number))
            if code:
                return code
        elif number == 0:
            stages = survey(options.stages_dir, list_stages(options.stages_dir) or (1,), thorough=True)
            first = stages[0].settings
            watch = replace(Watch.of(first, world), folder=Path(f"{first.output}_stage0"))
            with evaluation_explained(first, 0, world), machines.heeded(), watching(watch, machines):
                evaluate_base(stages, options.stages_dir, world, machines)
        else:
            stage = survey_together(
                machines, options.stages_dir, number, chosen=[number], overrides=options.set
            )
            with machines.leaders_first("base"):
                stage = with_base(stage, options.stages_dir, chosen=[number], overrides=options.set)
            stage = with_batch(stage, world)
            machines.agree("run", run_fingerprint(stage))
            explained = evaluation_explained(stage.settings, number, world)
            with explained, machines.heeded(), watching(Watch.of(stage.settings, world), machines):
                evaluate_finished(stage, world, machines)
    return 0


def evaluate_finished(stage: SurveyedStage, world: World, machines: Alone) -> None:
    """Score a complete stage again, on its own set and on earlier ones, and renew what is kept of it."""
    from lib.evaluation.evaluation_set import evaluation_set
    from lib.evaluation.heldout import NOTHING, Evaluator
    from lib.evaluation.stage_evaluation import evaluate_stage
    from lib.model.adapter import load_adapter
    from lib.model.base import choose_compute, load_tokenizer
    from lib.model.stage_base import load_stage_base, obtain_stage_base
    from lib.report.stage_report import write_stage_report
    from lib.training.processes.process_group import Processes
    from lib.training.quiet import quiet_libraries

    quiet_libraries()
    settings, record = stage.settings, finished_record(stage)
    compute = choose_compute(settings.model)
    tokenizer = load_tokenizer(settings.model)
    chat = chat_of(tokenizer, settings.data.chat_template)
    with phase("tokenise"):
        mixture = load_mixture(settings, chat, earlier=replayed_stages(stage), clean=cleaning_of(settings))
        own, notices = evaluation_set(settings, prepare_heldout(settings, mixture), chat)
    processes = Processes(settings, world, compute.dtype, evaluates=False, machines=machines)
    processes.say(stage.headline, world.line(settings.training), compute.line(), *notices)
    with phase("merge"), machines.keepers_first("merge"):
        base = obtain_stage_base(
            settings.model, stage.chain.adapters, settings.merged_base_dir,
            key=stage.chain.key, mode=record.merge_mode,
        )  # fmt: skip
    with phase("load"):
        model, base = load_stage_base(base, settings.model, compute, on_gpu=world.gpus > 0)
    processes.say(base.line(), *base.notices)
    evaluator = Evaluator(tokenizer, chat, settings, processes)
    before = evaluator.before(model, own)
    model = load_adapter(model, settings.stage_dir)
    scores = evaluate_stage(evaluator, model, own, earlier_stages(stage.chain), before)
    evaluation = scores.to_json()
    if before is NOTHING:
        evaluation["before"] = record.evaluation["before"]
    record = replace(record, evaluation=evaluation)
    processes.on_main(keep_evaluation, settings.stage_dir, record, scores)
    processes.on_main(write_stage_report, stage, record, scores, mixture, chat)
    processes.on_main(finish_stage, settings.stage_dir, record)
    machines.mirror(settings.stage_dir, is_shared)


def evaluate_base(stages: Sequence[SurveyedStage], stages_dir: Path, world: World, machines: Alone) -> None:
    """Score the untouched base on the evaluation set of every stage: where the curriculum began."""
    from lib.evaluation.evaluation_set import evaluation_set
    from lib.evaluation.heldout import Evaluator
    from lib.evaluation.stage_evaluation import Retained
    from lib.model.base import choose_compute, load_base, load_tokenizer
    from lib.model.merge import obtain_base
    from lib.training.processes.process_group import Processes
    from lib.training.quiet import quiet_libraries

    quiet_libraries()
    under_all = with_batch(with_base(stages[0], stages_dir, chosen=(), overrides=()), world)
    first = under_all.settings
    compute = choose_compute(first.model)
    tokenizer = load_tokenizer(first.model)
    processes = Processes(first, world, compute.dtype, evaluates=False, machines=machines)
    headline = f"\nstage 0  the untouched base {first.model.base_model}"
    processes.say(headline, world.line(first.training), compute.line())
    base = obtain_base(first.model, [], first.merged_base_dir, key="")
    with phase("load"):
        model = load_base(base, compute, on_gpu=world.gpus > 0)
    scored = []
    for stage in stages:
        settings = stage.settings
        chat = chat_of(tokenizer, settings.data.chat_template)
        with phase("tokenise"):
            mixture = load_mixture(
                settings, chat, earlier=replayed_stages(stage), clean=cleaning_of(settings)
            )
            rows, notices = evaluation_set(settings, prepare_heldout(settings, mixture), chat)
        evaluation = Evaluator(tokenizer, chat, settings, processes)(model, rows)
        scored.append(Retained(settings.stage, rows.task, rows.headline, None, evaluation))
        table = scores_table({"after": evaluation.to_json()})
        processes.say(*notices, f"  on the evaluation set of stage {settings.stage}:", *table)
    processes.on_main(keep_base_scores, first.output, under_all.chain.base.content, scored)
