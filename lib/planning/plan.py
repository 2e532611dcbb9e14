"""What a stage would do, as data: shown by `--plan`, written as JSON by `--plan --json`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lib.audit.refusal import refusals
from lib.data.chat.chat_format import ChatFormat
from lib.data.prepare import PlannedData
from lib.lineage.contract import check_contract
from lib.lineage.curriculum import SurveyedStage
from lib.lineage.resumption import begun_run, resumption_problems
from lib.model.architecture import Architecture, read_architecture
from lib.model.base_files import base_folder
from lib.model.quantization import few_quantized, quantizable_share
from lib.planning.audit_text import audit_json
from lib.planning.estimates import Estimate, planned_steps, trained_tokens
from lib.planning.obstacles import obstacles
from lib.planning.stage_estimates import stage_estimates, workload
from lib.settings import Problem, StageSettings
from lib.training.sizing.world import World


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
        estimates=stage_estimates(stage, architecture, ledger, world) if architecture else {},
        notices=(*_notices(stage, folder, architecture), *notices, *changes, *planned.notices),
        problems=(*problems, *broken, *_refused(settings, planned)),
        audit=audit_json(settings, planned.findings, planned.sources) if audited else None,
    )


def _refused(settings: StageSettings, planned: PlannedData) -> list[Problem]:
    return refusals(settings, planned.findings) if settings.audit.mode == "refuse" else []


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


def _notices(stage: SurveyedStage, folder: Path | None, architecture: Architecture | None) -> list[str]:
    """Of the stage itself, and of its base where that is quantised or not on this machine."""
    model = stage.settings.model
    notices = [*stage.settings.notices, *stage.status.remarks]
    if model.quantization != "none" and architecture is not None and architecture.experts:
        notices.append(few_quantized(quantizable_share(architecture)))
    if folder is None:
        fetch = f"`hf download {model.base_model} config.json`"
        notices.append(
            f"memory, disk and time follow from the base's config.json; {fetch} fetches no more than that"
        )
    return notices


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
