"""The conversations in cat style."""

from pathlib import Path

import regex

from data.nya.make_nya import TRAINING_ROWS, VALIDATION_ROWS, make_rows, write_files
from lib.settings import load_stage

ROOT = Path(__file__).parents[4]


def test_every_answer_keeps_to_the_style_of_the_stage_and_no_question_comes_twice() -> None:
    rows = make_rows(1)
    assert len(rows) == TRAINING_ROWS + VALIDATION_ROWS == 55 + 10
    style = load_stage(ROOT / "stages/chat-rinna", 1, environ={}).evaluation.style
    questions, answers = zip(*([m["content"] for m in row["messages"]] for row in rows), strict=True)
    assert len(set(questions)) == len(rows)
    assert all(regex.search(style, answer) for answer in answers)
    assert not any(regex.search(style, question) for question in questions)


def test_the_shipped_files_are_what_the_generator_writes(tmp_path: Path) -> None:
    write_files(tmp_path, 1)
    for name in ("training.jsonl", "validation.jsonl"):
        assert (tmp_path / name).read_bytes() == (ROOT / "data/nya" / name).read_bytes()
