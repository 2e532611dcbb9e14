"""From answers to numbers: which task they belong to, how each is judged, what all of them come to.

The path is answers → judgements (one tally each) → metrics with intervals, and a table of samples from which
every metric can be computed again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lib.evaluation import chat_style, extraction, structured
from lib.evaluation.answers import Answer, Judgement, Question, spoken
from lib.evaluation.formats import Unparsable, read_document
from lib.evaluation.tally import Tally, by_label, intervals, ratios

TASKS = ("structured", "extraction", "chat")
HEADLINE = {
    "structured": "gen_leaf_f1",
    "extraction": "gen_all_fields_exact_match_rate",
    "chat": "gen_chrf",
}
"""The metric by which a task's models are compared, unless a style rule is given: see `headline`."""
BY_LABEL = {
    "structured": ("gen_leaf_f1",),
    "extraction": ("gen_all_fields_exact_match_rate",),
    "chat": ("gen_style_rate", "gen_chrf"),
}
"""Metrics that are given for every group of rows with the same label, too."""


@dataclass(frozen=True)
class Scores:
    """`metrics` in MLflow's naming, with `gen_samples`; `intervals` are 95 % (low, high) over rows."""

    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    judgements: tuple[Judgement, ...] = field(default=(), repr=False)
    """One per answer, in their order."""


def guess_task(questions: Sequence[Question]) -> str:
    """`extraction` when at least half of the references are records with `persons`, `structured` when at
    least half of the rows name a format, else `chat`."""
    records = sum(_names_persons(question.reference) for question in questions)
    documents = sum(structured.format_of(question.labels) is not None for question in questions)
    if questions and 2 * records >= len(questions):
        return "extraction"
    return "structured" if questions and 2 * documents >= len(questions) else "chat"


def headline(task: str, style: str) -> str:
    """The metric to compare by: for chat `gen_style_rate` where there is a style rule."""
    return "gen_style_rate" if task == "chat" and style else HEADLINE[task]


def judge_answer(answer: Answer, task: str, markers: Sequence[str], style: str) -> Judgement:
    """The answer against its reference by the rules of `task`, and what is counted for every task."""
    reference, labels = answer.question.reference, answer.question.labels
    if task == "structured":
        judgement = structured.judge(answer.text, reference, labels, markers)
    elif task == "extraction":
        judgement = extraction.judge(answer.text, reference)
    elif task == "chat":
        judgement = chat_style.judge(answer.text, reference, style)
    else:
        raise KeyError(task)
    return replace(judgement, tally={**_of_every_task(answer), **judgement.tally})


def _of_every_task(answer: Answer) -> Tally:
    """An answer either stopped by itself or ran into the token limit."""
    return {
        "gen_end_stop_rate": (float(answer.stopped), 1.0),
        "gen_truncation_rate": (float(not answer.stopped), 1.0),
        "gen_mean_new_tokens": (float(answer.tokens), 1.0),
        "gen_empty_rate": (float(not spoken(answer.text).strip()), 1.0),
    }


def score(answers: Sequence[Answer], task: str, markers: Sequence[str], style: str = "") -> Scores:
    """Metrics and intervals over all answers, and those of `BY_LABEL` per label.

    An answer that ran into the token limit is judged like any other: what is cut does not parse. Raises
    KeyError for another task.
    """
    judged = [judge_answer(answer, task, markers, style) for answer in answers]
    tallies = by_label(
        [judgement.tally for judgement in judged],
        [_grouping_labels(answer.question.labels) for answer in answers],
        BY_LABEL[task],
    )
    judgements = tuple(replace(one, tally=tally) for one, tally in zip(judged, tallies, strict=True))
    return Scores({"gen_samples": float(len(answers)), **ratios(tallies)}, intervals(tallies), judgements)


def _grouping_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Without the format: the structured task has its metrics per format already."""
    return {name: value for name, value in labels.items() if name != "format"}


def sample_table(answers: Sequence[Answer], scores: Scores) -> list[dict[str, Any]]:
    """One plain dict per answer, for the metrics file: everything that its scores were computed from."""
    return [
        {
            "row": answer.question.row_id,
            "labels": answer.question.labels,
            "prompt": answer.question.prompt,
            "reference": answer.question.reference,
            "answer": answer.text,
            "document": judgement.document,
            "tokens": answer.tokens,
            "stopped": answer.stopped,
            "tally": {name: [top, bottom] for name, (top, bottom) in judgement.tally.items()},
            "verdict": judgement.verdict,
        }
        for answer, judgement in zip(answers, scores.judgements, strict=True)
    ]


def recompute(samples: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The metrics of `score`, from its table of samples alone."""
    tallies = [{name: (top, bottom) for name, (top, bottom) in row["tally"].items()} for row in samples]
    return {"gen_samples": float(len(samples)), **ratios(tallies)}


def perfect_scores(
    questions: Sequence[Question], task: str, markers: Sequence[str], style: str = ""
) -> Scores:
    """What a model would score that gives every reference as its answer.

    Says before any training which metrics there will be, how many references are unusable
    (`gen_unusable_reference_rate`), and whether the references themselves keep to the style. Tokens are not
    counted.
    """
    answers = [Answer(question, question.reference, tokens=0, stopped=True) for question in questions]
    return score(answers, task, markers, style)


def _names_persons(reference: str) -> bool:
    try:
        document = read_document(extraction.record_part(reference), "json")
    except Unparsable:
        return False
    return isinstance(document, dict) and "persons" in document
