"""Train a curriculum of LoRA fine-tuning stages.

A stage is one env file. It mixes data sets, takes the base model with the adapters of all earlier
stages in it, trains a new LoRA adapter on attention and experts, scores it by what it
generates, and leaves an ordinary PEFT adapter with a record of how it came about.

    python train.py --stage all            train every stage of stages/ that is not up to date
    python train.py --stage 2 --plan       say what stage 2 would do
    python train.py --stage 2 --check      find what would go wrong, before it does
    python train.py --status               say where every stage stands
    python train.py --stage 0 --evaluate-only    score the untouched base on every stage's evaluation set
    python train.py --suggest 4                  write a proposal for stage 4 from the scores of stage 3
    python train.py --import-config FILE         write a stage file from a YAML of Axolotl or LLaMA-Factory
    SFT_LR=1e-5 python train.py --stage 3 --set SFT_EPOCHS=2 --nproc 2
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lib.commands.arguments import parse, worker_command
from lib.commands.check import check_stages
from lib.commands.evaluate import evaluate_only
from lib.commands.failing import explained, failures_explained
from lib.commands.import_config import show_import
from lib.commands.show import show_plans, show_status
from lib.commands.stage_steps import (
    announce,
    attach_adapter,
    check_targets,
    close_stage,
    load_model,
    processes_of,
    stage_rows,
    train_adapter,
)
from lib.commands.suggest import show_suggestion
from lib.lineage.completion import make_record, open_stage
from lib.lineage.curriculum import SurveyedStage, choose_stages, with_base
from lib.lineage.gate import earlier_stages, failed_gate
from lib.lineage.resumption import full_fingerprint, run_fingerprint
from lib.lineage.shared_stages import is_shared, survey_together
from lib.lineage.stage_lock import hold_stage
from lib.planning.obstacles import preconditions
from lib.planning.stage_batch import with_batch
from lib.preflight.check import preflight
from lib.settings import InputError, RunError
from lib.tracking.left import send_left
from lib.training.machines.alone import Alone
from lib.training.machines.joined import joined
from lib.training.processes.launch import is_worker, prepare_environment, run_workers
from lib.training.processes.signals import StopSignals, code_of, say_end
from lib.training.processes.worker_words import is_heard, say_last
from lib.training.sizing.world import World, plan_world
from lib.training.watchdog.watchdog import Watch, watching


def main() -> int:
    options = parse(sys.argv[1:], description=__doc__ or "")
    try:
        with explained("train.py failed", Path("train_failure.log"), replaces=False):
            return run(options)
    except InputError as error:
        say_last(str(error))
        return 2
    except RunError as error:
        say_last(str(error), follows=error.follows)
        return 1
    except KeyboardInterrupt as interrupt:
        say_end(interrupt)
        return code_of(interrupt)


def run(options: argparse.Namespace) -> int:
    """What the command line asks for."""
    if options.import_config:
        return show_import(options)
    if options.suggest:
        return show_suggestion(options)
    if options.status:
        return show_status(options)
    world = plan_world(options.nproc, hardware=options.hardware)
    with joined(world, looks_only=options.plan or options.check) as machines:
        chosen = choose_stages(options.stage, options.stages_dir, base_too=options.evaluate_only)
        if options.plan:
            return show_plans(options, chosen, world)
        if options.check:
            return check_stages(options, chosen, world)
        if options.evaluate_only:
            return evaluate_only(options, chosen, world, machines)
        return train(options, chosen, world, machines)


def train(options: argparse.Namespace, chosen: Sequence[int], world: World, machines: Alone) -> int:
    """Run the chosen stages in turn; those that are complete and up to date are left alone, one that was
    interrupted goes on where it stood."""
    prepare_environment(world)
    signals = StopSignals.installed()
    for number in chosen:
        stage = survey_together(machines, options.stages_dir, number, chosen=chosen, overrides=options.set)
        if machines.decided("complete", stage.status.state == "complete") and not options.force:
            machines.say(stage.status.line(), "  up to date, left alone (--force runs it again)")
            machines.on_first(send_left, stage.settings.stage_dir, stage.settings.tracking)
        else:
            # Before torch is loaded: what is wrong is said within a second.
            preconditions(stage, restart=options.restart)
            with machines.leaders_first("base"):
                stage = with_base(stage, options.stages_dir, chosen=chosen, overrides=options.set)
            stage = with_batch(stage, world)
            machines.agree("run", run_fingerprint(stage))
            warnings = preflight(stage, world, restart=options.restart)
            if world.distributed and not is_worker():
                sharded = world.shards(stage.settings.training)
                code = run_workers(world, worker_command(options, number), sharded=sharded)
                if code:
                    return code
            else:
                watched = watching(Watch.of(stage.settings, world), machines)
                with failures_explained(stage, world), machines.heeded(), watched:
                    run_stage(stage, world, machines, warnings, signals, restart=options.restart)
        verdict = machines.decided("gate", failed_gate(stage.settings))
        if verdict and not is_heard():
            machines.on_first(print, *verdict, sep="\n", file=sys.stderr)
            return 1
    return 0


def run_stage(
    stage: SurveyedStage,
    world: World,
    machines: Alone,
    warnings: Sequence[str],
    signals: StopSignals,
    *,
    restart: bool,
) -> None:
    """From settings to an adapter with its record. Whatever can be wrong with the input is found
    before the first file of the stage is written; the record comes last and means complete."""
    # torch, and all that needs it, is imported here and not above, so that planning stays fast.
    from lib.evaluation.heldout import Evaluator
    from lib.evaluation.stage_evaluation import evaluate_stage
    from lib.model.targets import find_targets
    from lib.tracking.tracker import track
    from lib.training.batches import choose_batch_form

    settings = stage.settings
    check_targets(settings)
    rows = stage_rows(stage, world, machines)
    processes = processes_of(stage, world, rows, machines, signals)
    notices = announce(stage, rows, processes, warnings)

    with hold_stage(settings, processes):
        model, base = load_model(stage, rows, processes)
        targets = find_targets(model, settings.lora.target_modules)
        form = choose_batch_form(model, rows.data.train, packing=settings.data.packing)

        run = full_fingerprint(stage, rows.data, rows.compute, world)
        progress = open_stage(stage, run, processes, restart=restart)
        with track(stage, rows.data, is_main=processes.is_main) as tracker:
            model, census = attach_adapter(model, base, stage, targets, form, processes)
            processes.say(*progress.notices)

            evaluator = Evaluator(rows.tokenizer, rows.chat, settings, processes, run=run)
            before = evaluator.before(model, rows.own)
            fitted = train_adapter(model, base, stage, rows, form, processes, progress, evaluator, tracker)
            scores = evaluate_stage(evaluator, model, rows.own, earlier_stages(stage.chain), before)

            results = (base, census, fitted, scores, tracker.run_id, notices)
            record = make_record(stage, rows.chat, rows.data, *results)
            processes.on_main(close_stage, stage, rows, record, scores, tracker)
            machines.mirror(settings.stage_dir, is_shared)


if __name__ == "__main__":
    sys.exit(main())
