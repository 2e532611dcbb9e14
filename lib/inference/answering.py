"""Answers a file of rows, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from lib.evaluation.answers import Question
from lib.evaluation.generation import in_batches
from lib.inference.answer_file import AnswerFile, Reply
from lib.inference.assistant import Assistant, say
from lib.inference.input_rows import InputRows
from lib.inference.progress import RowProgress

WINDOW = 16
"""Batches within which rows are sorted by length: a batch then pads little, and the output is never far
behind."""

Asked = tuple[int, Question]


def answer_rows(
    assistant: Assistant, rows: InputRows, answers: AnswerFile, batch_size: int, seed: int
) -> None:
    """Add what `answers` lacks. A run that was stopped and begun again makes the same batches as one that was
    not, so the answers are the same, sampled ones too."""
    longest, cut = assistant.longest_prompt, 0
    progress = RowProgress(len(rows), len(answers.replies))
    with answers.writing(), progress:
        for batch in _batches(assistant, rows, answers, batch_size):
            cut += sum(len(question.prompt_ids) > longest for _, question in batch)
            questions = [replace(asked, prompt_ids=asked.prompt_ids[-longest:]) for _, asked in batch]
            given = assistant.answer(questions, seed=seed + batch[0][0])
            replies = [Reply(answer.text, answer.tokens, answer.stopped) for answer in given]
            answers.add(dict(zip((index for index, _ in batch), replies, strict=True)))
            progress.update(len(batch), sum(reply.tokens for reply in replies))
    if cut:
        say(f"  [WARNING] prompts cut on the left to the {longest} tokens that the context leaves: {cut}")


def _batches(
    assistant: Assistant, rows: InputRows, answers: AnswerFile, size: int
) -> Iterator[Sequence[Asked]]:
    """The longest prompts of a window first; rows are tokenised as their window comes."""
    for window in in_batches(range(len(rows)), WINDOW * size):
        left = [index for index in window if index not in answers.replies]
        asked = [(index, rows.question(index, assistant.chat)) for index in left]
        yield from in_batches(sorted(asked, key=_longest_first), size)


def _longest_first(asked: Asked) -> tuple[int, int]:
    index, question = asked
    return -len(question.prompt_ids), index
