"""Everything that a stage's report shows, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lib.data.chat.preview import MaskedRow
from lib.evaluation.retention import Matrix, headline_metric, retention_matrix
from lib.model.base import StackedAdapters
from lib.model.merge_proof import proof_line, proof_table
from lib.model.quantization import loaded_as
from lib.report.headline import Badge, Fact, badges, curriculum_name, facts, sentence
from lib.report.negatives import NegativeStage, negative_stages
from lib.report.next_stage import NextStage, next_stage
from lib.report.samples import SampleView, sample_views
from lib.report.scores import Retained, Score, retained, scores


@dataclass(frozen=True)
class SettingRow:
    key: str
    value: str
    origin: str
    """`default`, or where it was set."""


@dataclass(frozen=True)
class Ancestor:
    """One layer of the model that this stage stands on, from the bottom up."""

    name: str
    detail: str
    identity: str
    """Hash of its content; "" where the record has none."""


@dataclass(frozen=True)
class ReportContent:
    stage: int
    curriculum: str
    sentence: str
    badges: tuple[Badge, ...]
    facts: tuple[Fact, ...]
    notices: tuple[str, ...]
    ledger: Mapping[str, Any]
    history: tuple[Mapping[str, Any], ...]
    """The trainer's log: one entry per logging or evaluation step."""
    steps: int
    best_step: int | None
    headline: str
    """Name of the metric that the stage is judged by first; "" when answers were not scored."""
    scores: tuple[Score, ...]
    negatives: tuple[NegativeStage, ...]
    """Of the ancestors and this stage; empty where nothing tells negatives from positives."""
    next_stage: NextStage
    """What the scores suggest to train on next."""
    matrix: Matrix
    retained: tuple[Retained, ...]
    samples: tuple[SampleView, ...]
    samples_in_file: int
    metrics_file: str
    masked_rows: tuple[MaskedRow, ...]
    settings: tuple[SettingRow, ...]
    lineage: tuple[Ancestor, ...]
    merge_proof: Mapping[str, str]
    """What the merge of the earlier stages did to the weights; empty where nothing was merged."""
    adapter_sha256: str
    mlflow_run_id: str
    finished: str
    versions: Mapping[str, str]


def report_content(
    record: Mapping[str, Any],
    ancestors: Sequence[Mapping[str, Any]],
    samples: Sequence[Mapping[str, Any]],
    masked_rows: Sequence[MaskedRow],
    base_scores: Sequence[Mapping[str, Any]] = (),
) -> ReportContent:
    """What the report of a stage shows.

    `record` and `ancestors` are stage records as plain data, the ancestors in ascending order; `samples`
    are those of the stage's metrics file.
    """
    evaluation, training = record["evaluation"], record["training"]
    scored, kept = scores(evaluation), retained(evaluation)
    return ReportContent(
        stage=record["stage"],
        curriculum=curriculum_name(record),
        sentence=sentence(record, scored),
        badges=badges(record, kept),
        facts=facts(record),
        notices=tuple(record["notices"]),
        ledger=record["data"]["ledger"],
        history=tuple(training.get("history") or ()),
        steps=training["steps"],
        best_step=training.get("best_step"),
        headline=headline_metric(evaluation),
        scores=scored,
        negatives=negative_stages([*ancestors, record]),
        next_stage=next_stage(record, ancestors),
        matrix=retention_matrix([*ancestors, record], base_scores),
        retained=kept,
        samples=sample_views(samples),
        samples_in_file=len(samples),
        metrics_file=f"gen_metrics_step{training['steps']}.json",
        masked_rows=tuple(masked_rows),
        settings=_setting_rows(record),
        lineage=_lineage(record),
        merge_proof=proof_table(record["base"]["proof"]) if record["base"].get("proof") else {},
        adapter_sha256=record["adapter_sha256"],
        mlflow_run_id=record["mlflow_run_id"],
        finished=record["finished"],
        versions=record["versions"],
    )


def _setting_rows(record: Mapping[str, Any]) -> tuple[SettingRow, ...]:
    origins = record["origins"]
    return tuple(
        SettingRow(key, value, origins.get(key, "default")) for key, value in record["settings"].items()
    )


def _lineage(record: Mapping[str, Any]) -> tuple[Ancestor, ...]:
    base = record["base"]
    revision = f"revision {base['revision']}" if base.get("revision") else "the untouched base model"
    loaded = loaded_as(base.get("quantization", "none"))
    return (
        Ancestor(
            str(base["stage0"]),
            revision + ("" if base.get("proof") else loaded),
            base.get("fingerprint", ""),
        ),
        *(
            Ancestor(f"Stage {parent['stage']}", str(parent["folder"]), parent["adapter_sha256"] or "")
            for parent in record["parents"]
        ),
        *_together(base, loaded),
        Ancestor(f"Stage {record['stage']}", "the adapter of this report", record["adapter_sha256"]),
    )


def _together(base: Mapping[str, Any], loaded: str) -> list[Ancestor]:
    """What became of the adapters of the ancestors: merged into the weights, or kept beside them."""
    key = base.get("key", "")
    if base.get("proof"):
        return [Ancestor("Merged", proof_line(base["proof"]) + loaded, key)]
    if base.get("stacked"):
        return [Ancestor("Stacked", StackedAdapters(**base["stacked"]).line(), key)]
    return []
