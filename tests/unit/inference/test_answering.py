"""A file of rows through a tiny model: any batch gives the same answers, a resumed run the same batches."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib.inference import answering
from lib.inference.answer_file import AnswerFile
from lib.inference.answering import answer_rows
from lib.inference.assistant import Assistant
from lib.inference.input_rows import InputRows, read_input

QUESTIONS = [
    "a",
    "a longer question",
    "b",
    "the longest question of all of them",
    "c d",
    "e",
    "f g h",
    "last",
]


@pytest.fixture
def rows(tmp_path: Path) -> InputRows:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": question}) + "\n" for question in QUESTIONS))
    return read_input(path)


def answered(folder: Path, rows: InputRows, assistant: Assistant, size: int) -> list[dict[str, Any]]:
    answers = AnswerFile(folder / f"{size}.jsonl", rows.rows, {})
    answer_rows(assistant, rows, answers, size, 1)
    return [json.loads(line) for line in answers.path.read_text().splitlines()]


def test_greedy_answers_do_not_depend_on_the_batch(
    rows: InputRows, assistant: Callable[..., Assistant], tmp_path: Path
) -> None:
    made = [answered(tmp_path, rows, assistant(), size) for size in (1, 3, 8)]
    assert made[0] == made[1] == made[2]
    assert [row["prompt"] for row in made[0]] == QUESTIONS
    assert len({row["answer"] for row in made[0]}) > 1
    assert all((row["tokens"], row["stopped"]) == (8, False) for row in made[0])


@pytest.mark.parametrize("stopped_after", range(1, 5))
def test_a_stopped_run_goes_on_with_the_same_samples(
    rows: InputRows,
    assistant: Callable[..., Assistant],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stopped_after: int,
) -> None:
    monkeypatch.setattr(answering, "WINDOW", 2)
    whole = answered(tmp_path, rows, assistant(temperature=2.0), 3)
    assert whole != answered(tmp_path, rows, assistant(temperature=2.0), 4), "samples belong to batches"
    answers = AnswerFile(tmp_path / "stopped.jsonl", rows.rows, {})
    add, calls = AnswerFile.add, []

    def stopped(self: AnswerFile, replies: Any) -> None:
        add(self, replies)
        calls.append(len(replies))
        if len(calls) == stopped_after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(AnswerFile, "add", stopped)
        if stopped_after < 4:
            with pytest.raises(KeyboardInterrupt):
                answer_rows(assistant(temperature=2.0), rows, answers, 3, 1)
        else:
            answer_rows(assistant(temperature=2.0), rows, answers, 3, 1)
    assert calls == [3, 3, 2][:stopped_after]
    answers = AnswerFile(tmp_path / "stopped.jsonl", rows.rows, {})
    if not answers.complete:
        answer_rows(assistant(temperature=2.0), rows, answers, 3, 1)
    assert answers.path.read_bytes() == (tmp_path / "3.jsonl").read_bytes()


def test_prompts_that_do_not_fit_are_cut_and_counted(
    rows: InputRows, assistant: Callable[..., Assistant], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = assistant(longest_prompt=50)
    answered(tmp_path, rows, made, 3)
    too_long = sum(len(rows.question(i, made.chat).prompt_ids) > 50 for i in range(len(rows)))
    assert too_long == 1
    assert "prompts cut on the left to the 50 tokens that the context leaves: 1" in capsys.readouterr().err
