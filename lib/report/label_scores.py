"""The labels of a stage: which of them it answers worse than the rest, and how often their rows should be
seen next. docs/mixing.md states the arithmetic with an example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from lib.evaluation.retention import Interval, headline_metric, interval_of, metrics_of
from lib.evaluation.structured import format_of
from lib.evaluation.tally import nameable
from lib.settings.stage import KEYS

LARGEST_MULTIPLIER = 3.0
"""One stage makes no label's rows more than three times as frequent as the weights do."""
RULE_DIGITS = 1
FORMAT = "format"

Verdict = Literal["behind", "ahead", "unsure"]


@dataclass(frozen=True)
class LabelScore:
    """A label's headline score beside the mix that it was trained with."""

    field: str
    value: str
    score: float
    interval: Interval
    verdict: Verdict
    """behind, ahead: its interval and that of all rows have nothing in common; unsure: they overlap."""
    rows: int
    """Training rows that carry it; 0: the mix has none."""
    draws: int
    present: float
    """The multiplier that the stage had for it; 1.0 without a rule."""
    proposed: float


@dataclass(frozen=True)
class LabelScores:
    """The labels of one field, the weakest first, with the score of all rows."""

    metric: str
    score: float
    interval: Interval
    samples: int
    field: str
    """"" where no label is scored."""
    labels: tuple[LabelScore, ...]

    @property
    def rules(self) -> dict[str, float]:
        """The multipliers that change, by label."""
        return {label.value: label.proposed for label in self.labels if label.proposed != label.present}

    @property
    def left_alone(self) -> LabelScores:
        """The same scores, with the multipliers that there are."""
        kept = (replace(label, proposed=label.present) for label in self.labels)
        return replace(self, labels=tuple(kept))

    @property
    def missing(self) -> list[LabelScore]:
        """Labels that are behind, and of which the mix has no row to multiply."""
        return [label for label in self.labels if label.verdict == "behind" and not label.rows]


def label_scores(record: Mapping[str, Any]) -> LabelScores | None:
    """The scores of the label field where most is to be gained; None where answers were not scored.

    To be gained: the distance to the score of all rows, times the label's part of the draws, summed over the
    labels that are behind. Without any, the field whose weakest label stands lowest.
    """
    evaluation = record["evaluation"]
    metric = headline_metric(evaluation)
    score, interval = metrics_of(evaluation, "after").get(metric), interval_of(evaluation, "after", metric)
    if score is None or interval is None:
        return None
    fields = {
        field: _labels_of(record, metric, field, (score, interval)) for field in _fields(record, metric)
    }
    several = {field: labels for field, labels in fields.items() if len(labels) > 1}

    def to_gain(field: str) -> tuple[float, float]:
        behind = [label for label in several[field] if label.verdict == "behind"]
        return sum((score - label.score) * label.draws for label in behind), -several[field][0].score

    chosen = max(several, key=to_gain, default="")
    samples = int(metrics_of(evaluation, "after").get("gen_samples", 0))
    return LabelScores(metric, score, interval, samples, chosen, several.get(chosen, ()))


def multiplier(label: float, everything: float, present: float) -> float:
    """`present` times the ratio of what the label lacks to what all rows lack, at most LARGEST_MULTIPLIER."""
    wanted = present * (1 - label) / (1 - everything)
    return max(present, round(min(wanted, LARGEST_MULTIPLIER), RULE_DIGITS))


def present_rules(record: Mapping[str, Any]) -> Mapping[str, float]:
    """The upsampling rules that the stage was trained with."""
    if not recorded_value(record, "SFT_USE_UPSAMPLING"):
        return {}
    rules: Mapping[str, float] = recorded_value(record, "SFT_UPSAMPLE_RULES")
    return rules


def recorded_value(record: Mapping[str, Any], key: str) -> Any:
    """A setting of the stage as its reader reads it; by default where the record does not know it."""
    return KEYS[key].reader.parse(record["settings"].get(key) or KEYS[key].default or "")


def _labels_of(
    record: Mapping[str, Any], metric: str, field: str, everything: tuple[float, Interval]
) -> tuple[LabelScore, ...]:
    """The labels of a field that were scored, the weakest first."""
    evaluation, rules = record["evaluation"], present_rules(record)
    lines = {line["value"]: line for line in _lines(record) if line["field"] == field}
    found = []
    for value, name in _metrics_by_value(evaluation, metric, field, list(lines)).items():
        interval = interval_of(evaluation, "after", name)
        if interval is None:
            continue
        score = metrics_of(evaluation, "after")[name]
        verdict = _verdict(interval, everything[1])
        rows, draws = (lines[value]["rows"], lines[value]["drawn"]) if value in lines else (0, 0)
        present = rules.get(value, 1.0)
        raised = multiplier(score, everything[0], present) if verdict == "behind" and rows else present
        found.append(LabelScore(field, value, score, interval, verdict, rows, draws, present, raised))
    return tuple(sorted(found, key=lambda label: (label.score, label.value)))


def _verdict(own: Interval, everything: Interval) -> Verdict:
    if own[1] < everything[0]:
        return "behind"
    return "ahead" if own[0] > everything[1] else "unsure"


def _metrics_by_value(
    evaluation: Mapping[str, Any], metric: str, field: str, values: Sequence[str]
) -> dict[str, str]:
    """Label → the metric that scores its rows. A label that no training row has goes by its name there.

    Formats have metrics of their own (`gen_leaf_f1/toml`), other labels go by field and value
    (`gen_leaf_f1/type/json_to_toml`).
    """
    scored = metrics_of(evaluation, "after")
    prefix = f"{metric}/{nameable(field)}/"
    grouped = {name.removeprefix(prefix): name for name in scored if name.startswith(prefix)}
    if grouped:
        of_value = {value: grouped.pop(nameable(value)) for value in values if nameable(value) in grouped}
        return {**of_value, **grouped}
    formats = {value: f"{metric}/{format_of({field: value})}" for value in values} if field == FORMAT else {}
    known = {value: name for value, name in formats.items() if name in scored}
    others = {name.removeprefix(f"{metric}/"): name for name in scored if _is_format(name, metric)}
    return {**known, **{v: n for v, n in others.items() if field == FORMAT and n not in known.values()}}


def _is_format(name: str, metric: str) -> bool:
    """`gen_leaf_f1/toml`, which names no field."""
    return name.startswith(f"{metric}/") and name.count("/") == 1


def _fields(record: Mapping[str, Any], metric: str) -> list[str]:
    """Label fields of the training rows and of the scored ones; formats only where rows are labelled so, or
    nothing else is scored."""
    scored = [name.split("/") for name in metrics_of(record["evaluation"], "after")]
    named = {parts[1] for parts in scored if parts[0] == metric and len(parts) > 2}
    return sorted({line["field"] for line in _lines(record)} | named) or [FORMAT]


def _lines(record: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    lines: Sequence[Mapping[str, Any]] = record["data"]["ledger"]["labels"]
    return lines
