"""Metrics and numbers in words that need no knowledge of the tool."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import PurePath

# Metric name → (as it reads in a sentence, what it means).
METRICS: dict[str, tuple[str, str]] = {
    "heldout_loss": (
        "loss on held-out answers",
        "How surprised the model is by the reference answers, in nats per token. Lower is better.",
    ),
    "gen_parse_rate": (
        "held-out answers that parse",
        "Share of answers that are well-formed in the format they were asked for.",
    ),
    "gen_exact": (
        "held-out answers that are exactly right",
        "Share of answers whose content equals the reference's, whatever the layout.",
    ),
    "gen_leaf_f1": (
        "values right in held-out answers (F1)",
        "Agreement with the reference, value by value: 1 means that nothing is missing, wrong or made up.",
    ),
    "gen_end_stop_rate": (
        "answers that end by themselves",
        "Share of answers that the model finished before the length limit cut them off.",
    ),
    "gen_mean_new_tokens": ("mean length of an answer", "Tokens that the model wrote per answer."),
    "gen_samples": ("held-out rows answered", "How many questions the other numbers rest on."),
}


def metric_words(name: str) -> str:
    """As it reads in a sentence; the name itself where no better words are known."""
    metric, _, label = name.partition("/")
    words = METRICS[metric][0] if metric in METRICS else metric
    return f"{words}, {label} only" if label else words


def metric_meaning(name: str) -> str:
    metric = name.partition("/")[0]
    return METRICS[metric][1] if metric in METRICS else ""


def number(value: float) -> str:
    """Rounded to what a reader can use: 1,081 · 63.5 · 0.93 · 0.976 · 9.8e-05."""
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 10:
        return f"{value:,.1f}"
    if abs(value) < 0.001:
        return f"{value:.1e}"
    short = f"{value:.3f}"
    return short.removesuffix("0")


def score(value: float) -> str:
    """A score between 0 and 1 always shows its decimals: 1.00, 0.93, 0.976."""
    return f"{value:.3f}".removesuffix("0") if abs(value) < 10 else number(value)


def duration(seconds: float) -> str:
    """58 s · 4 min 10 s · 3 h 05 min."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def moment(timestamp: str) -> str:
    """2026-11-22 07:40 UTC; what is no time stamp stays as it is."""
    try:
        return datetime.fromisoformat(timestamp).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return timestamp


def capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]


def short_name(data_set: str) -> str:
    """The last part of a path or Hub id."""
    return PurePath(data_set).name or data_set


def enumeration(names: list[str], shown: int = 3) -> str:
    """a, b and c; a, b, c and 4 more."""
    if len(names) > shown:
        names = [*names[:shown], f"{len(names) - shown} more"]
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
