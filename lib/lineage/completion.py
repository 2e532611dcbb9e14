"""A stage's folder while it is trained, and the record that closes it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.audit.findings_file import AUDIT
from lib.data.chat.chat_contract import chat_contract
from lib.evaluation.evaluation_set import EVALUATION_SET
from lib.evaluation.kept import forget_results
from lib.files import sync, write_json, write_text
from lib.lineage.card import model_card
from lib.lineage.curriculum import SurveyedStage
from lib.lineage.file_hashes import file_sha256
from lib.lineage.record import RECORD, REPORT, TRACKING, StageRecord, versions, write_record
from lib.lineage.resumption import Progress, find_progress
from lib.lineage.shared_stages import is_shared
from lib.lineage.trained import TRAINED
from lib.model.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from lib.model.base_files import TEMPLATE_FILE, tokenizer_files
from lib.training.numerics.bad_batches import BAD_BATCHES

if TYPE_CHECKING:
    from lib.data.chat.chat_format import ChatFormat
    from lib.data.prepare import PreparedData
    from lib.evaluation.stage_evaluation import StageEvaluation
    from lib.model.adapter import Census
    from lib.model.base import StageBase
    from lib.training.checkpoints.checkpoints import Checkpoints
    from lib.training.processes.process_group import Processes
    from lib.training.trainer import FitResult

TENSORBOARD = "tensorboard"
"""Folder of TensorBoard's event files."""
# May carry a password.
NOT_RECORDED = frozenset({"MLFLOW_TRACKING_URI"})


def open_stage(
    stage: SurveyedStage, fingerprint: Mapping[str, str], processes: Processes, *, restart: bool
) -> Progress:
    """The stage's folder, ready to be trained in: what an interrupted run of the same `fingerprint` saved is
    gone on with, anything else that earlier runs left is taken away. Only files that a stage itself leaves
    are touched. Raises InputError as `find_progress` does."""
    goes_back = processes.arguments.load_best_model_at_end
    found = []
    if processes.is_main:
        progress = find_progress(stage, fingerprint, goes_back=goes_back, restart=restart)
        if progress.anew:
            _begin(stage.settings.stage_dir, progress.checkpoints)
        found = [progress]
    progress = processes.gather(found)[0]
    processes.machines.mirror(stage.settings.stage_dir, is_shared)
    return progress


def _begin(folder: Path, checkpoints: Checkpoints) -> None:
    """In this order: a kill in the middle leaves a complete stage, or one of which nothing is there."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoints.remove_all()
    for name in (TRAINED, RECORD, TRACKING):
        (folder / name).unlink(missing_ok=True)
    forget_results(folder)
    if (folder / TENSORBOARD).is_dir():
        shutil.rmtree(folder / TENSORBOARD)  # a second run's curves would be drawn over the first's
    for left in (
        *folder.glob("gen_metrics_step*.json"),
        folder / EVALUATION_SET,
        folder / REPORT,
        folder / AUDIT,
    ):
        left.unlink(missing_ok=True)


def make_record(
    stage: SurveyedStage,
    chat: ChatFormat,
    data: PreparedData,
    base: StageBase,
    census: Census,
    fitted: FitResult,
    evaluation: StageEvaluation,
    run_id: str,
    warnings: Sequence[str],
) -> StageRecord:
    """The record of a stage that has just been trained, put together from what each step returned."""
    settings = stage.settings
    files = _file_hashes(settings.stage_dir)
    return StageRecord(
        stage=settings.stage,
        settings={key: value for key, value in settings.values.items() if key not in NOT_RECORDED},
        origins=dict(settings.origins),
        identity=dict(stage.identity),
        base=_base_entry(stage, base),
        parents=[
            {"stage": parent.stage, "folder": str(parent.folder), "adapter_sha256": parent.adapter_sha256}
            for parent in stage.chain.parents
        ],
        adapter_sha256=files[ADAPTER_WEIGHTS],
        files=files,
        chat=chat_contract(chat).to_json(),
        data={
            "sources": [asdict(source) for source in data.sources],
            "ledger": data.ledger_after(fitted.steps).to_json(),
        },
        adapter={**census.to_json(), "dtype": settings.lora.adapter_dtype},
        training=fitted.to_json(),
        evaluation=evaluation.to_json(),
        notices=[
            *settings.notices,
            *warnings,
            *data.notices,
            *base.notices,
            *census.notices,
            *fitted.notices,
            *evaluation.notices,
        ],
        mlflow_run_id=run_id,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=versions(),
    )


def _base_entry(stage: SurveyedStage, base: StageBase) -> dict[str, Any]:
    """What the stage trained on: the base, and by `mode` which earlier stages were in it or beside it."""
    return {
        **asdict(base),
        "fingerprint": stage.chain.base.content,
        "key": stage.chain.key,
        "earlier_stages": {str(parent.stage): parent.adapter_sha256 for parent in stage.chain.parents},
    }


def _file_hashes(folder: Path) -> dict[str, str]:
    named = (folder / name for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG, TEMPLATE_FILE))
    return {path.name: file_sha256(path) for path in (*named, *tokenizer_files(folder)) if path.is_file()}


def keep_evaluation(stage_dir: Path, record: StageRecord, evaluation: StageEvaluation) -> None:
    """What the finished stage was asked and what it answered: `evaluation_set.json`, and the metrics file of
    the step whose weights were kept (over the one written there while training, before rounding)."""
    if not evaluation.own.examples:
        return
    evaluation.own.save(stage_dir)
    step = record.kept_step
    content = {"step": step, **record.evaluation, **evaluation.samples()}
    write_json(stage_dir / f"gen_metrics_step{step}.json", content)


def stage_files(stage_dir: Path) -> list[Path]:
    """What people look at: metrics files, batches whose numbers went wrong, the report."""
    names = ("gen_metrics_step*.json", BAD_BATCHES, REPORT)
    return [path for name in names for path in sorted(stage_dir.glob(name))]


def finish_stage(stage_dir: Path, record: StageRecord) -> None:
    """Write the model card and, last and atomically, `stage.json`; say what came out."""
    write_text(stage_dir / "README.md", model_card(record, stage_dir))
    for name in record.files:
        sync(stage_dir / name)
    write_record(stage_dir, record)
    (stage_dir / TRAINED).unlink(missing_ok=True)
    forget_results(stage_dir)
    for line in summary(record, stage_dir):
        print(line, flush=True)


def summary(record: StageRecord, stage_dir: Path) -> list[str]:
    """What a person wants to know of a finished stage."""
    training = record.training
    speed, memory = f"{training['tokens_per_second']:,.0f} tokens/s", training["peak_memory_bytes"] / 1e9
    lines = [
        f"  trained {training['steps']} steps on {training['tokens']:,} tokens "
        f"in {training['seconds']:.0f} s, {speed}, peak memory {memory:.1f} GB"
    ]
    lines += scores_table(record.evaluation)
    for entry in record.evaluation["retention"]:
        if entry["now"] is not None:
            earlier = f"{entry['earlier']:.3f} then, " if entry["earlier"] is not None else ""
            lines.append(
                f"  on the set of stage {entry['stage']}: {entry['headline']} {earlier}{entry['now']:.3f} now"
            )
    return [*lines, f"  adapter in {stage_dir}, report in {stage_dir / REPORT}"]


def scores_table(evaluation: dict[str, Any]) -> list[str]:
    """The metrics over all rows, with their intervals; those per label are in the report."""
    scored = {when: evaluation.get(when) or {} for when in ("before", "after")}
    return metrics_table({when: found for when, found in scored.items() if found.get("metrics")})


def metrics_table(columns: Mapping[str, Mapping[str, Any]], rows: str = "held-out rows") -> list[str]:
    """One column for every set of metrics and intervals; `rows` says what the rows are that it is about."""
    if not columns:
        return []
    names = dict.fromkeys(name for scored in columns.values() for name in scored["metrics"])
    shown = [name for name in names if "/" not in name and name != "gen_samples"]
    if not shown:
        return []
    *_, last = columns.values()
    count = f"{last['metrics'].get('gen_samples', 0):.0f} {rows}"
    width = max(28, *map(len, shown)) + 1
    head = f"  {count:<{width + 2}}" + "".join(f"{when:<22}" for when in columns)
    return [head.rstrip()] + [
        (
            f"    {name:<{width}}" + "".join(f"{_score(scored, name):<22}" for scored in columns.values())
        ).rstrip()
        for name in shown
    ]


def _score(scored: Mapping[str, Any], name: str) -> str:
    value = scored["metrics"].get(name)
    if value is None:
        return "-"
    low, high = scored["intervals"].get(name, (None, None))
    return f"{value:.3f}" + (f" [{low:.2f}, {high:.2f}]" if low is not None else "")
