"""The conversations of stages/qlora-gemma2: as their script writes them, and as it says they are."""

import json
from pathlib import Path

from data.noda.make_noda import TRAINING_ROWS, VALIDATION_ROWS, write_files

FOLDER = Path(__file__).parents[4] / "data/noda"


def test_the_committed_files_are_what_the_script_writes(tmp_path: Path) -> None:
    write_files(tmp_path, seed=1)
    for name in ("training.jsonl", "validation.jsonl"):
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes(), name


def test_every_answer_keeps_the_tone_and_no_question_is_asked_twice() -> None:
    rows = [
        json.loads(line)["messages"]
        for name in ("training.jsonl", "validation.jsonl")
        for line in (FOLDER / name).read_text(encoding="utf-8").splitlines()
    ]
    assert len(rows) == TRAINING_ROWS + VALIDATION_ROWS
    assert {tuple(message["role"] for message in row) for row in rows} == {("system", "user", "assistant")}
    assert all(row[2]["content"].endswith("のだ。") for row in rows)
    assert len({row[1]["content"] for row in rows}) == len(rows)
