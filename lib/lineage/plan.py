"""What a stage would do, as data: shown by `--plan`, written as JSON by `--plan --json`."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lib.audit.refusal import refusals
from lib.data.chat.chat_format import ChatFormat
from lib.data.mixing.ledger import MixLedger
from lib.data.prepare import PlannedData
from lib.lineage.audit_text import audit_json
from lib.lineage.contract import check_contract
from lib.lineage.curriculum import SurveyedStage
from lib.lineage.estimates import Estimate, Workload, disk, memory, planned_steps, seconds, trained_tokens
from lib.lineage.obstacles import obstacles
from lib.lineage.record import intact_record
from lib.lineage.resumption import begun_run, resumption_problems
from lib.model.architecture import Architecture, read_architecture
from lib.model.base_files import base_folder
from lib.model.merge import find_merged
from lib.model.quantization import few_quantized, quantizable_share
from lib.model.weight_files import weight_shards
from lib.settings import InputError, Problem, StageSettings
from lib.training.processes.launch import World
from lib.training.sizing.batch import training_shape
from lib.training.sizing.memory import TrainingShape


@dataclass(frozen=True)
class StagePlan:
    """Everything that `--plan` shows of one stage."""

    stage: int
    file: str
    state: str
    reasons: tuple[str, ...]
    will_run: bool
    goes_on_from: str
    """Where an interrupted run is taken up; empty: it begins at the first step."""
    output: str
    values: dict[str, str]
    origins: dict[str, str]
    base: dict[str, Any]
    parents: tuple[dict[str, Any], ...]
    world: str
    batch: dict[str, Any]
    ledger: dict[str, Any] | None
    absent: tuple[str, ...]
    steps: int | None
    tokens: int | None
    estimates: dict[str, Estimate]
    notices: tuple[str, ...]
    problems: tuple[Problem, ...]
    """What keeps the stage from running."""
    audit: dict[str, Any] | None = None
    """Every row that the audit found, where that was asked for."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def make_plan(
    stage: SurveyedStage,
    planned: PlannedData,
    world: World,
    *,
    runs_before: tuple[int, ...],
    forced: bool,
    restart: bool = False,
    chat: ChatFormat | None = None,
    audited: bool = False,
) -> StagePlan:
    """The plan of one stage. `runs_before` are earlier stages that the same command trains first; `chat` is
    None where the tokenizer is not on this machine; `audited` shows what the audit found."""
    assert stage.batch, "the batch is planned first: `with_batch`"
    settings, ledger = stage.settings, planned.ledger
    folder = base_folder(settings.model)
    architecture = read_architecture(folder) if folder else None
    load = workload(settings, ledger, world.processes) if ledger else None
    problems, notices = obstacles(stage, runs_before=runs_before, restart=restart)
    begun = None if restart or resumption_problems(stage) else begun_run(stage)
    broken, changes = check_contract(stage, chat, runs_before=runs_before) if chat else ([], [])
    return StagePlan(
        stage=settings.stage,
        file=str(settings.env_file),
        state=stage.status.state,
        reasons=stage.status.reasons,
        will_run=forced or stage.status.state != "complete" or bool(runs_before),
        goes_on_from=begun.where if begun else "",
        output=str(settings.stage_dir),
        values=dict(settings.values),
        origins=dict(settings.origins),
        base=_base(settings, folder, architecture),
        parents=_parents(stage, runs_before),
        world=world.line(settings.training).strip(),
        batch={"line": stage.batch_line, **stage.batch.to_json()},
        ledger=ledger.to_json() if ledger else None,
        absent=tuple(source.id for source in planned.absent),
        steps=planned_steps(load) if load else None,
        tokens=trained_tokens(load) if load else None,
        estimates=_estimates(stage, architecture, load, ledger, world)
        if architecture and load and ledger
        else {},
        notices=(
            *settings.notices,
            *stage.status.remarks,
            *_quantization_notices(settings, architecture),
            *notices,
            *changes,
            *planned.notices,
        ),
        problems=(*problems, *broken, *_refused(settings, planned)),
        audit=audit_json(settings, planned.findings, planned.sources) if audited else None,
    )


def _refused(settings: StageSettings, planned: PlannedData) -> list[Problem]:
    return refusals(settings, planned.findings) if settings.audit.mode == "refuse" else []


def workload(settings: StageSettings, ledger: MixLedger, processes: int) -> Workload:
    training, encoded = settings.training, ledger.encoded
    return Workload(
        rows=ledger.sequences,
        tokens=encoded.tokens if encoded else 0,
        batch=training.micro_batch,
        accumulation=training.grad_accum,
        processes=processes,
        epochs=training.epochs,
        max_steps=training.max_steps,
    )


def _base(settings: StageSettings, folder: Path | None, architecture: Architecture | None) -> dict[str, Any]:
    base: dict[str, Any] = {
        "model": settings.model.base_model,
        "here": folder is not None,
        "earlier_stages": "stacked" if settings.model.merge_mode == "stack" else "merged",
        "quantization": settings.model.quantization,
    }
    if architecture:
        experts = (
            f", {architecture.experts} experts, {architecture.experts_per_token} per token"
            if architecture.experts
            else ""
        )
        base["architecture"] = f"{architecture.family}, {architecture.layers} layers{experts}"
        base["parameters"] = architecture.parameters
        base["trainable"] = architecture.lora_parameters(settings.lora.rank, settings.lora.target_modules)
    return base


def _quantization_notices(settings: StageSettings, architecture: Architecture | None) -> list[str]:
    if settings.model.quantization == "none" or architecture is None or not architecture.experts:
        return []
    return [few_quantized(quantizable_share(architecture))]


def _parents(stage: SurveyedStage, runs_before: tuple[int, ...]) -> tuple[dict[str, Any], ...]:
    found: list[dict[str, Any]] = []
    for parent in stage.chain.parents:
        reasons = stage.stale_parents.get(parent.stage, ())
        state = "stale" if reasons else "complete" if parent.record else "no stage.json"
        found.append(
            {"stage": parent.stage, "folder": str(parent.folder), "state": state, "reasons": list(reasons)}
        )
    for number in stage.chain.missing:
        found.append(
            {
                "stage": number,
                "folder": f"{stage.settings.output}_stage{number}",
                "state": "missing",
                "reasons": [],
            }
        )
    for entry in found:
        if entry["stage"] in runs_before:
            entry["state"] = "trained first by this command"
    return tuple(sorted(found, key=lambda parent: parent["stage"]))


def _estimates(
    stage: SurveyedStage, architecture: Architecture, load: Workload, ledger: MixLedger, world: World
) -> dict[str, Estimate]:
    settings = stage.settings
    trainable = architecture.lora_parameters(settings.lora.rank, settings.lora.target_modules)
    steps = planned_steps(load)
    # The best ones, the last, and the one that is being written.
    checkpoints = min(settings.training.save_total_limit + 2, max(steps // settings.training.save_steps, 1))
    return {
        "memory": memory(_largest_pass(stage, architecture, ledger, world)),
        "disk": disk(
            merged_bytes(stage, architecture),
            trainable,
            checkpoints=checkpoints,
            free=shutil.disk_usage(existing_folder(settings.stage_dir)).free,
        ),
        "time": seconds(
            architecture.active_parameters,
            trained_tokens(load),
            measured_tokens_per_second=_measured_speed(stage),
            cores=os.cpu_count() or 1,
            gpus=world.gpus,
            processes=load.processes,
        ),
    }


def _largest_pass(
    stage: SurveyedStage, architecture: Architecture, ledger: MixLedger, world: World
) -> TrainingShape:
    """A pass of rows as long as the longest, where all were counted; else as long as they may be."""
    settings, counted = stage.settings, ledger.encoded
    known = counted is not None and not ledger.estimated and not settings.data.packing
    return training_shape(
        settings,
        architecture,
        world,
        rows=settings.training.micro_batch,
        length=counted.longest if counted and known else settings.data.max_seq_len,
        checkpointing=settings.model.gradient_checkpointing == "1",
    )


def merged_bytes(stage: SurveyedStage, architecture: Architecture) -> int:
    """Of the merged base that is still to be built: as large as the stage-0 base, by its files where they are
    here."""
    if not (stage.chain.parents or stage.chain.missing) or stage.settings.model.merge_mode == "stack":
        return 0
    if stage.chain.key and find_merged(stage.settings.merged_base_dir).key == stage.chain.key:
        return 0
    folder = base_folder(stage.settings.model)
    try:
        return sum(shard.stat().st_size for shard in weight_shards(folder)) if folder else 0
    except InputError:
        return architecture.parameters * architecture.bytes_per_weight


def existing_folder(folder: Path) -> Path:
    """The nearest folder above that is there: what will be written lies on the same disk."""
    return next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())


def _measured_speed(stage: SurveyedStage) -> float | None:
    """Tokens per second of this stage's last run, else of its nearest ancestor's."""
    records = [
        intact_record(stage.settings.stage_dir),
        *(parent.record for parent in reversed(stage.chain.parents)),
    ]
    speeds = [record.training["tokens_per_second"] for record in records if record]
    return speeds[0] if speeds else None
