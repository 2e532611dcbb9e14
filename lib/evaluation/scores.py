"""Numbers from answers. Pure, free of torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from lib.evaluation.generation import Answer
from lib.evaluation.structured import PARSERS, answer_part, parses


def score(answers: Sequence[Answer], markers: Sequence[str]) -> dict[str, float]:
    """Metrics in MLflow's naming. `gen_parse_rate` counts rows whose `format` label has a parser.

    An answer that ran into the token limit is judged like any other: what is cut does not parse.
    """
    verdicts: dict[str, list[bool]] = defaultdict(list)
    for answer in answers:
        if answer.question.labels.get("format") in PARSERS:
            format_name = answer.question.labels["format"]
            verdicts[format_name].append(parses(answer_part(answer.text, markers), format_name))
    judged = [verdict for group in verdicts.values() for verdict in group]
    metrics = {
        "gen_samples": float(len(answers)),
        "gen_end_stop_rate": _mean([answer.stopped for answer in answers]),
        "gen_mean_new_tokens": _mean([answer.tokens for answer in answers]),
    }
    if judged:
        metrics["gen_parse_rate"] = _mean(judged)
        metrics |= {f"gen_parse_rate/{name}": _mean(group) for name, group in sorted(verdicts.items())}
    return metrics


def sample_table(answers: Sequence[Answer], markers: Sequence[str]) -> list[dict[str, Any]]:
    """One plain dict per answer, for the metrics file."""
    return [
        {
            "row": answer.question.row_id,
            "labels": answer.question.labels,
            "reference": answer.question.reference,
            "answer": answer.text,
            "document": answer_part(answer.text, markers),
            **{key: value for key, value in asdict(answer).items() if key in {"tokens", "stopped"}},
            "parses": parses(answer_part(answer.text, markers), answer.question.labels["format"])
            if answer.question.labels.get("format") in PARSERS
            else None,
        }
        for answer in answers
    ]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
