"""The held-out rows that a stage is judged on, kept beside its adapter so that every later stage is asked the
same questions."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.data.chat.masks import EncodingRules
from lib.data.reading.labels import Label
from lib.data.reading.rows import Example, Message
from lib.evaluation.answers import Question
from lib.evaluation.generation import choose
from lib.evaluation.scores import guess_task, headline, perfect_scores
from lib.files import read_json, write_json
from lib.settings import InputError, StageSettings

if TYPE_CHECKING:
    from lib.data.chat.chat_format import ChatFormat
    from lib.data.chat.encoded import EncodedRow

EVALUATION_SET = "evaluation_set.json"


@dataclass(frozen=True)
class EvaluationSet:
    """Rows, and how answers to them are judged."""

    stage: int
    task: str
    """structured, extraction or chat; "" when there are no rows."""
    style: str
    """For chat, the regular expression of SFT_GEN_EVAL_STYLE."""
    markers: tuple[str, ...]
    max_new_tokens: int
    max_seq_len: int
    examples: tuple[Example, ...]

    @property
    def headline(self) -> str:
        """The metric by which models are compared on this set."""
        return headline(self.task, self.style) if self.task else ""

    def questions(self, chat: ChatFormat) -> list[Question]:
        return [as_question(chat, example, self.max_seq_len) for example in self.examples]

    def encoded(self, chat: ChatFormat) -> list[EncodedRow]:
        """The rows for their loss. Whole answers, whatever the stage's own mask, so that the losses of
        different stages can be compared."""
        rules = EncodingRules(self.max_seq_len, False, self.markers, "from_marker")
        return [row for row in chat.encode(self.examples, rules).rows if row.usable]

    def save(self, folder: Path) -> None:
        write_json(folder / EVALUATION_SET, asdict(self))


def as_question(chat: ChatFormat, example: Example, longest: int = sys.maxsize) -> Question:
    """The prompt up to the last answer, cut from the left to `longest` tokens, and that answer."""
    prompt = example.messages[:-1]
    return Question(
        row_id=example.row_id,
        prompt_ids=chat.prompt_ids(prompt)[-longest:],
        reference=example.messages[-1].content,
        labels={label.field: label.value for label in example.labels},
        prompt="\n\n".join(message.content for message in prompt),
    )


def evaluation_set(
    settings: StageSettings, examples: Sequence[Example], chat: ChatFormat
) -> tuple[EvaluationSet, tuple[str, ...]]:
    """At most SFT_GEN_EVAL_SAMPLES of `examples` (plain texts are left out), and notices.

    Raises InputError when SFT_BEST_METRIC cannot come out of them: found before anything is trained.
    """
    options = settings.evaluation
    conversations = [example for example in examples if example.messages]
    chosen = tuple(choose(conversations, samples=options.samples, seed=options.seed))
    made = EvaluationSet(
        stage=settings.stage,
        task="" if options.task == "auto" or not chosen else options.task,
        style=options.style,
        markers=tuple(settings.data.output_markers),
        max_new_tokens=options.max_new_tokens,
        max_seq_len=settings.data.max_seq_len,
        examples=chosen,
    )
    questions = made.questions(chat)
    if chosen and not made.task:
        made = replace(made, task=guess_task(questions))
    best_possible = perfect_scores(questions, made.task, made.markers, made.style).metrics if chosen else {}
    _check_best_metric(settings, made.task, best_possible)
    return made, _reference_notices(best_possible)


def read_evaluation_set(folder: Path) -> EvaluationSet | None:
    """The set of a finished stage; None where it has none, or where it is damaged."""
    try:
        content = read_json(folder / EVALUATION_SET)
        examples = tuple(_example(row) for row in content.pop("examples"))
        return EvaluationSet(**content | {"markers": tuple(content["markers"]), "examples": examples})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _example(row: dict[str, Any]) -> Example:
    messages = tuple(Message(**message) for message in row["messages"])
    labels = tuple(Label(*label) for label in row["labels"])
    return Example(**row | {"messages": messages, "labels": labels})


def _check_best_metric(settings: StageSettings, task: str, possible: dict[str, float]) -> None:
    metric = settings.training.best_metric
    if not metric.startswith("gen_") or metric in possible:
        return
    raise InputError.of(
        where=settings.origins["SFT_BEST_METRIC"],
        key="SFT_BEST_METRIC",
        value=metric,
        expected=f"a metric of the task {task!r} on these rows: {', '.join(sorted(possible))}"
        if possible
        else "eval_loss: there are no rows to generate answers for",
        remedy="choose one of them, or set SFT_GEN_EVAL_TASK if the task was guessed wrongly",
    )


def _reference_notices(possible: dict[str, float]) -> tuple[str, ...]:
    unusable = possible.get("gen_unusable_reference_rate", 0.0)
    if not unusable:
        return ()
    return (
        f"[WARNING] {unusable:.0%} of the evaluation rows have a reference that does not parse itself; "
        "they are counted (gen_unusable_reference_rate) and judged by nothing else",
    )
