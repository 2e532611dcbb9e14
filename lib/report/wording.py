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
    "gen_exact_match_rate": (
        "answers that are exactly right",
        "Share of answers whose content equals the reference's, whatever the layout.",
    ),
    "gen_key_path_score": (
        "keys that are there",
        "Share of the references' keys that the answers have, at the right place.",
    ),
    "gen_structeval_score": (
        "StructEval's own score",
        "The published formula (0.2 syntax, 0.8 keys) with its lenient parsing: to compare with others.",
    ),
    "gen_truncation_rate": ("answers cut off", "Share of answers that ran into the length limit."),
    "gen_empty_rate": ("empty answers", "Share of answers without a word."),
    "gen_unusable_reference_rate": (
        "references that are broken",
        "Share of rows whose reference does not parse itself. They count in no other number.",
    ),
    "gen_json_parse_rate": ("answers with a JSON object", "Share of answers that hold a readable object."),
    "gen_schema_ok_rate": ("answers in the right form", "Share of answers whose three keys are lists."),
    "gen_offender_presence_precision": (
        "offender claimed rightly (precision)",
        "Of the articles in which the model sees an offender, the share that have one.",
    ),
    "gen_offender_presence_recall": (
        "offender found (recall)",
        "Of the articles with an offender, the share in which the model sees one.",
    ),
    "gen_offender_presence_f1": ("offender present (F1)", "Precision and recall in one number."),
    "gen_offender_name_set_f1": ("names of offenders (F1)", "Agreement of the names, over all articles."),
    "gen_all_fields_exact_match_rate": (
        "records with all fields right",
        "Share of articles in which all eight fields equal the reference's.",
    ),
    "gen_field_exact_match_rate": ("field right", "Share of articles in which this field is right."),
    "gen_all_fields_exact_match_rate_positive": (
        "records with all fields right, offender present",
        "The same over articles with an offender only, where empty fields cannot flatter.",
    ),
    "gen_field_exact_match_rate_positive": (
        "field right, offender present",
        "The same over articles with an offender only.",
    ),
    "gen_fp_rate_on_negative": (
        "offender seen where there is none",
        "Share of readable answers on articles without an offender that name one. Lower is better.",
    ),
    "gen_unparsed_rate_on_negative": (
        "unreadable answers where there is no offender",
        "They count as neither right nor wrong in the rate above. Lower is better.",
    ),
    "gen_style_rate": ("answers in the wanted style", "Share of answers that match the style rule."),
    "gen_chrf": ("likeness to the reference (chrF)", "Overlap of character sequences, 1 is the same text."),
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
    """A score between 0 and 1 with the decimals that its interval leaves meaning: 1.00, 0.93."""
    return f"{value:.2f}" if abs(value) < 10 else number(value)


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
