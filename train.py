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

from lib.audit.audit import audit_rows
from lib.audit.findings_file import keep_findings
from lib.commands.arguments import parse, worker_command
from lib.commands.check import check_stages
from lib.commands.evaluate import evaluate_only
from lib.commands.failing import failures_explained
from lib.commands.import_config import show_import
from lib.commands.show import show_plans, show_status
from lib.commands.suggest import show_suggestion
from lib.data.chat import chat_of
from lib.data.prepare import prepare_heldout, prepare_rows
from lib.lineage.completion import finish_stage, keep_evaluation, make_record, open_stage, stage_files
from lib.lineage.contract import keep_contract
from lib.lineage.curriculum import SurveyedStage, choose_stages, survey_one, with_base
from lib.lineage.gate import earlier_stages, failed_gate
from lib.lineage.obstacles import preconditions
from lib.lineage.replayed import replayed_stages
from lib.lineage.stage_batch import with_batch
from lib.preflight.check import preflight
from lib.settings import InputError, RunError
from lib.tracking.left import send_left
from lib.training.launch import World, is_worker, plan_world, prepare_environment, run_workers
from lib.training.worker_words import say_last


def main() -> int:
    options = parse(sys.argv[1:], description=__doc__ or "")
    try:
        if options.import_config:
            return show_import(options)
        if options.suggest:
            return show_suggestion(options)
        if options.status:
            return show_status(options)
        world = plan_world(options.nproc)
        chosen = choose_stages(options.stage, options.stages_dir, base_too=options.evaluate_only)
        if options.plan:
            return show_plans(options, chosen, world)
        if options.check:
            return check_stages(options, chosen, world)
        if options.evaluate_only:
            return evaluate_only(options, chosen, world)
        return train(options, chosen, world)
    except InputError as error:
        say_last(str(error))
        return 2
    except RunError as error:
        say_last(str(error))
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def train(options: argparse.Namespace, chosen: Sequence[int], world: World) -> int:
    """Run the chosen stages in turn; those that are complete and up to date are left alone."""
    prepare_environment(world)
    for number in chosen:
        stage = survey_one(options.stages_dir, number, chosen=chosen, overrides=options.set)
        if stage.status.state == "complete" and not options.force:
            print(f"{stage.status.line()}\n  up to date, left alone (--force runs it again)", flush=True)
            send_left(stage.settings.stage_dir, stage.settings.tracking)
        else:
            preconditions(stage)  # before torch is loaded: what is wrong is said within a second
            stage = with_base(stage, options.stages_dir, chosen=chosen, overrides=options.set)
            stage = with_batch(stage, world)
            warnings = preflight(stage, world)
            if world.distributed and not is_worker():
                sharded = world.shards(stage.settings.training)
                code = run_workers(world, worker_command(options, number), sharded=sharded)
                if code:
                    return code
            else:
                with failures_explained(stage, world):
                    run_stage(stage, world, warnings)
        verdict = failed_gate(stage.settings)
        if verdict and not is_worker():
            print(*verdict, sep="\n", file=sys.stderr)
            return 1
    return 0


def run_stage(stage: SurveyedStage, world: World, warnings: Sequence[str]) -> None:
    """From settings to an adapter with its record. Whatever can be wrong with the input is found
    before the first file of the stage is written; the record comes last and means complete."""
    # torch, and all that needs it, is imported here and not above, so that planning stays fast.
    from lib.evaluation.evaluation_set import evaluation_set
    from lib.evaluation.heldout import Evaluator
    from lib.evaluation.stage_evaluation import evaluate_stage
    from lib.model.adapter import attach_lora, round_adapter, save_adapter
    from lib.model.base import choose_compute, load_tokenizer
    from lib.model.merge_probe import PROBE_ROWS, probe_merge
    from lib.model.stage_base import load_stage_base, obtain_stage_base
    from lib.model.targets import find_targets
    from lib.report.stage_report import write_stage_report
    from lib.tracking.callback import TrackingCallback
    from lib.tracking.tracker import track
    from lib.training.arguments import machine_remarks
    from lib.training.batches import choose_batch_form
    from lib.training.processes import Processes
    from lib.training.quiet import quiet_libraries
    from lib.training.trainer import fit

    quiet_libraries()
    settings = stage.settings
    compute = choose_compute(settings.model)
    tokenizer = load_tokenizer(settings.model)
    chat = chat_of(tokenizer, settings.data.chat_template)
    changes = keep_contract(stage, chat)
    data = prepare_rows(
        settings, chat, processes=world.processes, earlier=replayed_stages(stage), clean=audit_rows
    )
    own, remarks = evaluation_set(settings, prepare_heldout(settings, data.mixture), chat)
    validation = data.validation or own.encoded(chat)

    processes = Processes(settings, world, compute.dtype, evaluates=bool(validation))
    notices = [*warnings, *changes, *remarks, *machine_remarks(settings, world)]
    processes.say(stage.headline, world.line(settings.training), stage.batch_line, compute.line())
    processes.say(*settings.notices, *notices, *data.notices)
    with processes.main_first("merging the earlier stages"):
        base = obtain_stage_base(
            settings.model, stage.chain.adapters, settings.merged_base_dir,
            key=stage.chain.key, mode=settings.model.merge_mode,
        )  # fmt: skip
    model, base = load_stage_base(base, settings.model, compute, on_gpu=world.gpus > 0)
    probe = [row.input_ids for row in data.train[:PROBE_ROWS]]
    base = processes.on_main(probe_merge, base, settings.model, stage.chain.adapters, model, probe) or base
    targets = find_targets(model, settings.lora.target_modules)
    form = choose_batch_form(model, data.train, packing=settings.data.packing)

    with open_stage(stage, processes), track(stage, data, is_main=processes.is_main) as tracker:
        model, census = attach_lora(model, targets, settings.lora, seed=settings.seed)
        processes.say(base.line(), census.line(), form.line(), *base.notices, *census.notices)
        evaluator = Evaluator(tokenizer, chat, settings, processes)
        before = evaluator.before(model, own)
        fitted = fit(
            model, tokenizer, data, validation, settings, processes, form,
            callbacks=[TrackingCallback(tracker)], generation=evaluator.while_training(own),
        )  # fmt: skip
        round_adapter(model, settings.lora)
        processes.on_main(save_adapter, model, tokenizer, settings, base)
        scores = evaluate_stage(evaluator, model, own, earlier_stages(stage.chain), before)
        record = make_record(stage, chat, data, base, census, fitted, scores, tracker.run_id, notices)
        processes.on_main(keep_findings, settings, data.findings)
        processes.on_main(keep_evaluation, settings.stage_dir, record, scores)
        processes.on_main(write_stage_report, stage, record, scores, data.mixture, chat)
        processes.on_main(tracker.results, record, scores.after.samples, stage_files(settings.stage_dir))
        processes.on_main(finish_stage, settings.stage_dir, record)


if __name__ == "__main__":
    sys.exit(main())
