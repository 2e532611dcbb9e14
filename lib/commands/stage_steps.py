"""The steps of `run_stage` in train.py that take more than a line. torch is loaded by the first of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lib.audit.audit import audit_rows
from lib.audit.findings_file import keep_findings
from lib.data.chat.chat_format import ChatFormat
from lib.data.chat.model_chat import chat_of
from lib.data.prepare import PreparedData, prepare_heldout, prepare_rows
from lib.heartbeat import phase
from lib.lineage.completion import finish_stage, keep_evaluation, stage_files
from lib.lineage.contract import keep_contract
from lib.lineage.curriculum import SurveyedStage
from lib.lineage.record import StageRecord
from lib.lineage.replayed import replayed_stages
from lib.lineage.resumption import Progress
from lib.lineage.shared_stages import is_shared
from lib.lineage.trained import keep_trained
from lib.model.base_files import obtain_base_folder
from lib.preflight.text import beyond_positions
from lib.settings import InputError, StageSettings
from lib.training.machines.alone import Alone
from lib.training.processes.signals import StopSignals
from lib.training.sizing.world import World

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from lib.data.chat.encoded import EncodedRow
    from lib.evaluation.evaluation_set import EvaluationSet
    from lib.evaluation.heldout import Evaluator
    from lib.evaluation.stage_evaluation import StageEvaluation
    from lib.model.adapter import Census
    from lib.model.base import ComputeChoice, StageBase
    from lib.model.targets import AdapterTargets
    from lib.tracking.protocol import Tracker
    from lib.training.batches import BatchForm
    from lib.training.processes.process_group import Processes
    from lib.training.trainer import FitResult


@dataclass(frozen=True)
class StageRows:
    """What a stage reads, and who reads it."""

    compute: ComputeChoice
    tokenizer: PreTrainedTokenizerBase
    chat: ChatFormat
    data: PreparedData
    own: EvaluationSet
    """Rows that the stage is judged on by its answers."""
    validation: Sequence[EncodedRow]
    """Rows of eval_loss."""
    notices: tuple[str, ...]


def check_targets(settings: StageSettings) -> None:
    """Raises InputError for targets that the base does not have, before a row or a weight is read."""
    from lib.model.targets import targets_of_config
    from lib.training.quiet import quiet_libraries

    quiet_libraries()
    targets_of_config(
        obtain_base_folder(settings.model), settings.model.base_model, settings.lora.target_modules
    )


@phase("tokenise")
def stage_rows(stage: SurveyedStage, world: World, machines: Alone) -> StageRows:
    """The mixed training rows and the held-out rows, prepared by one process of each machine; the others find
    them prepared. Raises InputError for what is wrong with the data."""
    with machines.leaders_first("rows"):
        return _stage_rows(stage, world)


def _stage_rows(stage: SurveyedStage, world: World) -> StageRows:
    from lib.evaluation.evaluation_set import evaluation_set
    from lib.model.base import choose_compute, load_tokenizer
    from lib.training.quiet import quiet_libraries

    quiet_libraries()
    settings = stage.settings
    tokenizer = load_tokenizer(settings.model)
    chat = chat_of(tokenizer, settings.data.chat_template)
    changes = keep_contract(stage, chat)
    data = prepare_rows(
        settings, chat, processes=world.processes, earlier=replayed_stages(stage), clean=audit_rows
    )
    longest = data.ledger.encoded.longest if data.ledger.encoded else 0
    beyond = beyond_positions(settings, obtain_base_folder(settings.model), longest)
    if beyond:
        raise InputError([beyond])
    own, remarks = evaluation_set(settings, prepare_heldout(settings, data.mixture), chat)
    return StageRows(
        choose_compute(settings.model), tokenizer, chat, data, own,
        validation=data.validation or own.encoded(chat), notices=(*changes, *remarks),
    )  # fmt: skip


def processes_of(
    stage: SurveyedStage, world: World, rows: StageRows, machines: Alone, signals: StopSignals
) -> Processes:
    """The process group that trains."""
    from lib.training.processes.process_group import Processes

    return Processes(
        stage.settings, world, rows.compute.dtype,
        evaluates=bool(rows.validation), signals=signals, machines=machines,
    )  # fmt: skip


def announce(
    stage: SurveyedStage, rows: StageRows, processes: Processes, warnings: Sequence[str]
) -> list[str]:
    """Say what will run, on what, and what is worth knowing about it; the last is for the record, too."""
    from lib.training.arguments import machine_remarks

    settings, world = stage.settings, processes.world
    notices = [*warnings, *rows.notices, *machine_remarks(settings, world)]
    processes.say(stage.headline, world.line(settings.training), stage.batch_line, rows.compute.line())
    processes.say(*settings.notices, *notices, *rows.data.notices)
    return notices


def load_model(
    stage: SurveyedStage, rows: StageRows, processes: Processes
) -> tuple[PreTrainedModel, StageBase]:
    """The base with the earlier stages in it, and what merging them did."""
    from lib.model.merge_probe import PROBE_ROWS, probe_merge
    from lib.model.stage_base import load_stage_base, obtain_stage_base

    model_settings, adapters = stage.settings.model, stage.chain.adapters
    with phase("merge") if adapters else nullcontext(), processes.machines.keepers_first("merge"):
        base = obtain_stage_base(
            model_settings, adapters, stage.settings.merged_base_dir,
            key=stage.chain.key, mode=model_settings.merge_mode,
        )  # fmt: skip
    with phase("load"):
        model, base = load_stage_base(base, model_settings, rows.compute, on_gpu=processes.world.gpus > 0)
    probe = [row.input_ids for row in rows.data.train[:PROBE_ROWS]]
    with phase("prove merge") if base.merged else nullcontext():
        return model, processes.on_main(probe_merge, base, model_settings, adapters, model, probe) or base


def attach_adapter(
    model: PreTrainedModel,
    base: StageBase,
    stage: SurveyedStage,
    targets: AdapterTargets,
    form: BatchForm,
    processes: Processes,
) -> tuple[PeftModel, Census]:
    """The model with a new adapter, and what of it is trained."""
    from lib.model.adapter import attach_lora

    with phase("attach"):
        attached, census = attach_lora(model, targets, stage.settings.lora, seed=stage.settings.seed)
    processes.say(base.line(), census.line(), form.line(), *base.notices, *census.notices)
    return attached, census


def train_adapter(
    model: PeftModel,
    base: StageBase,
    stage: SurveyedStage,
    rows: StageRows,
    form: BatchForm,
    processes: Processes,
    progress: Progress,
    evaluator: Evaluator,
    tracker: Tracker,
) -> FitResult:
    """Train the adapter from where an earlier run came to, and save it; afterwards `model` has it as it is in
    the file."""
    from lib.model.adapter import load_trained, round_adapter, save_adapter
    from lib.tracking.callback import TrackingCallback
    from lib.training.trainer import fit

    settings = stage.settings
    if progress.fitted:
        load_trained(model, settings)
        return progress.fitted
    fitted = fit(
        model, rows.tokenizer, rows.data, rows.validation, settings, processes, form,
        callbacks=[TrackingCallback(tracker)], generation=evaluator.while_training(rows.own),
        checkpoints=progress.checkpoints, go_on_from=progress.step,
    )  # fmt: skip
    round_adapter(model, settings.lora)
    processes.on_main(save_adapter, model, rows.tokenizer, settings, base)
    processes.on_main(keep_trained, settings.stage_dir, progress.checkpoints.fingerprint, fitted)
    processes.machines.mirror(settings.stage_dir, is_shared)
    return fitted


def close_stage(
    stage: SurveyedStage, rows: StageRows, record: StageRecord, scores: StageEvaluation, tracker: Tracker
) -> None:
    """Everything that people look at, and last the record: now the stage is complete."""
    from lib.report.stage_report import write_stage_report

    folder = stage.settings.stage_dir
    keep_findings(stage.settings, rows.data.findings)
    keep_evaluation(folder, record, scores)
    write_stage_report(stage, record, scores, rows.data.mixture, rows.chat)
    tracker.results(record, scores.after.samples, stage_files(folder))
    finish_stage(folder, record)
