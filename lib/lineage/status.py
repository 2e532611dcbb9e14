"""Where every stage of a curriculum stands, one line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lib.lineage.ancestry import Chain, stale_reasons
from lib.lineage.file_hashes import file_sha256
from lib.lineage.gate import gate_failures
from lib.lineage.record import RECORD, StageRecord, read_record
from lib.lineage.stage_lock import running_elsewhere
from lib.lineage.trained import read_trained
from lib.lineage.versions import version_notice
from lib.model.adapter import ADAPTER_WEIGHTS
from lib.settings import StageSettings
from lib.training.checkpoints.checkpoints import latest_outline

# Shown when present, in this order, after the headline metric.
SCORES = ("heldout_loss", "gen_parse_rate", "gen_end_stop_rate")


@dataclass(frozen=True)
class StageStatus:
    """`state` is missing, running, interrupted, complete or stale; `reasons` says why it is stale."""

    stage: int
    state: str
    reasons: tuple[str, ...]
    summary: str
    scores: dict[str, float]
    folder: str
    kept: dict[int, float] | None = None
    """What is left of each earlier stage's score on its own evaluation set, as a share."""
    gate: tuple[str, ...] = ()
    """Why a complete stage failed its retention gate; empty when it passed."""
    remarks: tuple[str, ...] = ()
    """What could not be compared, or differs without making the stage stale."""

    def line(self) -> str:
        scores = "  ".join(f"{name} {value:.3f}" for name, value in self.scores.items())
        kept = ", ".join(f"{share:.0%} of stage {stage}" for stage, share in (self.kept or {}).items())
        gate = "GATE FAILED: " + "; ".join(self.gate) if self.gate else ""
        text = "  ".join(
            part
            for part in (
                "; ".join(self.reasons),
                self.summary,
                scores,
                kept and f"keeps {kept}",
                gate,
                *(f"({remark})" for remark in self.remarks),
            )
            if part
        )
        return f"stage {self.stage}  {self.state:<11}  {text}".rstrip()


def stage_status(
    settings: StageSettings,
    chain: Chain,
    current: Mapping[str, str],
    stale_parents: Sequence[int],
    *,
    as_run_now: bool,
) -> StageStatus:
    """The state of one stage, judged by content.

    `current` is its identity under present files and settings; `stale_parents` are earlier stages
    that were found stale.
    """
    folder = settings.stage_dir
    record = read_record(folder)
    if record is None and (folder / RECORD).exists() and not running_elsewhere(folder):
        reason = f"its {RECORD} is damaged, or of another version of this trainer"
        return StageStatus(settings.stage, "stale", (reason,), "", {}, str(folder))
    if record is None:
        state, summary = _unfinished(settings)
        return StageStatus(settings.stage, state, (), summary, {}, str(folder))
    if not record.intact:  # nothing in it can be relied on
        return StageStatus(settings.stage, "stale", tuple(tampering(settings, record)), "", {}, str(folder))
    reasons = stale_reasons(record, current, settings.origins, as_run_now=as_run_now)
    reasons += [f"stage {stage} is stale" for stage in stale_parents]
    reasons += tampering(settings, record)
    return StageStatus(
        settings.stage,
        "stale" if reasons else "complete",
        tuple(reasons),
        _summary(record),
        _scores(record),
        str(folder),
        _kept(record),
        gate_failures(record, settings.evaluation.retention_min),
        tuple(remark for remark in (_base_remark(chain), version_notice(record.versions)) if remark),
    )


def tampering(settings: StageSettings, record: StageRecord) -> list[str]:
    """What lies in the stage's folder and is not what the run left there."""
    if not record.intact:
        return [f"its {RECORD} was changed by hand"]
    reasons = []
    for name, digest in record.files.items():
        path = settings.stage_dir / name
        if not path.is_file() or file_sha256(path) != digest:
            what = "adapter file" if name == ADAPTER_WEIGHTS else name
            reasons.append(f"its {what} is not the one that was recorded")
    return reasons


def _base_remark(chain: Chain) -> str:
    if chain.base.content:
        return ""
    if chain.base.outline:
        return (
            "base compared by sizes and ends of its files: not read whole here since they changed; a run does"
        )
    return "base compared by name: its files are not on this machine"


def _unfinished(settings: StageSettings) -> tuple[str, str]:
    folder = settings.stage_dir
    who = running_elsewhere(folder)
    if who:
        return "running", who
    if not folder.exists():
        return "missing", ""
    trained, newest = read_trained(folder), latest_outline(folder)
    if trained:
        return "interrupted", f"at step {trained.step}, trained and not evaluated"
    return "interrupted", f"at step {newest.step}" if newest else "before its first checkpoint"


def _summary(record: StageRecord) -> str:
    training = record.training
    loss = training.get("final_eval", {}).get("eval_loss")
    return f"{training['steps']} steps" + (f"  eval_loss {loss:.3f}" if loss is not None else "")


def _kept(record: StageRecord) -> dict[int, float]:
    return {
        entry["stage"]: entry["now"] / entry["earlier"]
        for entry in record.evaluation["retention"]
        if entry["earlier"] and entry["now"] is not None
    }


def _scores(record: StageRecord) -> dict[str, float]:
    after = record.evaluation["after"]["metrics"]
    names = dict.fromkeys((record.evaluation["headline"], *SCORES))
    return {name: after[name] for name in names if name in after}
