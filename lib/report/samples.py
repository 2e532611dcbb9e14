"""Answers beside their references: what is right, what is wrong and why, where they differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lib.report.differences import LONGEST_TEXT, Difference, difference

SHOWN_SAMPLES = 300
SHOWN_REASONS = 8
SHOWN_VALUE = 120
"""Characters of a value that are quoted in a reason."""


@dataclass(frozen=True)
class SampleView:
    row: str
    labels: Mapping[str, str]
    prompt: str
    difference: Difference
    wrong: bool | None
    """None when nothing judges this answer."""
    mark: str
    """The verdict in a word or two: how much was checked differs."""
    reasons: tuple[str, ...]
    tokens: int | None
    stopped: bool | None


def sample_views(samples: Sequence[Mapping[str, Any]]) -> tuple[SampleView, ...]:
    """At most SHOWN_SAMPLES, wrong answers first, else in the file's order."""
    chosen = sorted(samples, key=lambda sample: is_wrong(_verdict(sample)) is not True)[:SHOWN_SAMPLES]
    return tuple(_view(sample) for sample in chosen)


def label_choices(views: Sequence[SampleView]) -> dict[str, list[str]]:
    """Label fields with the values to choose from; fields that tell no rows apart are left out."""
    fields = sorted({field for view in views for field in view.labels})
    values = {
        field: sorted({view.labels[field] for view in views if field in view.labels}) for field in fields
    }
    return {field: choices for field, choices in values.items() if len(choices) > 1}


def is_wrong(verdict: Mapping[str, Any]) -> bool | None:
    """By content where content was compared, else by field, else by form."""
    if verdict.get("exact") is not None:
        return not verdict["exact"]
    if verdict.get("fields"):
        return not all(field.get("ok") for field in verdict["fields"].values())
    if verdict.get("parses") is not None:
        return not verdict["parses"]
    return None


def _verdict(sample: Mapping[str, Any]) -> Mapping[str, Any]:
    """Older files say no more than whether the answer parses."""
    verdict: Mapping[str, Any] = sample.get("verdict") or {"parses": sample.get("parses")}
    return verdict


def _view(sample: Mapping[str, Any]) -> SampleView:
    verdict = _verdict(sample)
    reasons = list(_reasons(verdict))
    if len(reasons) > SHOWN_REASONS:
        reasons = [*reasons[:SHOWN_REASONS], f"and {len(reasons) - SHOWN_REASONS} more"]
    return SampleView(
        row=str(sample.get("row", "")),
        labels={field: str(value) for field, value in (sample.get("labels") or {}).items()},
        prompt=str(sample.get("prompt") or "")[:LONGEST_TEXT],
        difference=difference(str(sample.get("reference") or ""), str(sample.get("answer") or "")),
        wrong=is_wrong(verdict),
        mark=_mark(verdict),
        reasons=tuple(reasons),
        tokens=sample.get("tokens"),
        stopped=sample.get("stopped"),
    )


def _mark(verdict: Mapping[str, Any]) -> str:
    wrong = is_wrong(verdict)
    if wrong is None:
        return "not judged"
    if verdict.get("exact") is None and not verdict.get("fields"):
        return "✗ does not parse" if wrong else "✓ parses"
    return "✗ wrong" if wrong else "✓ right"


def _reasons(verdict: Mapping[str, Any]) -> Iterator[str]:
    if verdict.get("parses") is False:
        yield f"not well-formed: {verdict['error']}" if verdict.get("error") else "not well-formed"
    elif verdict.get("error"):
        yield str(verdict["error"])
    for path in verdict.get("missing_paths") or ():
        yield f"missing: {_quoted(path)}"
    for path in verdict.get("extra_paths") or ():
        yield f"not in the reference: {_quoted(path)}"
    for path, expected, got in verdict.get("wrong_values") or ():
        yield f"{_quoted(path)}: {_json(expected)} expected, {_json(got)} answered"
    for name, field in (verdict.get("fields") or {}).items():
        if not field.get("ok"):
            yield f"{name}: {_quoted(field.get('gold'))} expected, {_quoted(field.get('pred'))} answered"


def _json(value: object) -> str:
    """With its type to be seen: the text "4" is not the number 4."""
    return _quoted(json.dumps(value, ensure_ascii=False, default=str))


def _quoted(value: object) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= SHOWN_VALUE else text[:SHOWN_VALUE] + "…"
