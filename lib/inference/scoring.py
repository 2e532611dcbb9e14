"""Answers against the references of their rows, by the metrics of a stage. Free of torch."""

from __future__ import annotations

from typing import Any

from lib.data.reading.rows import Example
from lib.evaluation.answers import Answer, Question
from lib.evaluation.scores import guess_task, headline, score
from lib.inference.answer_file import Reply
from lib.inference.input_rows import InputRows
from lib.inference.source import Habits


def score_answers(rows: InputRows, replies: dict[int, Reply], habits: Habits) -> dict[str, Any]:
    """Task, metrics and intervals over the rows with a reference, as plain JSON."""
    answers = [_answer(rows.examples[index], replies[index]) for index in rows.referenced]
    questions = [answer.question for answer in answers]
    task = guess_task(questions) if habits.task == "auto" else habits.task
    scores = score(answers, task, habits.markers, habits.style)
    return {
        "rows": len(rows),
        "rows_with_reference": len(answers),
        "task": task,
        "headline": headline(task, habits.style),
        "metrics": scores.metrics,
        "intervals": scores.intervals,
    }


def _answer(example: Example, reply: Reply) -> Answer:
    labels = {label.field: label.value for label in example.labels}
    question = Question(example.row_id, [], example.messages[-1].content, labels)
    return Answer(question, reply.answer, reply.tokens, reply.stopped)
