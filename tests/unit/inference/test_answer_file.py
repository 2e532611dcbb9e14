"""The output of a file of rows: in order, resumable after a kill at any byte, never of two kinds."""

import json
from pathlib import Path
from typing import Any

import pytest

from lib.inference.answer_file import AnswerFile, Reply
from lib.settings import InputError

ROWS: list[dict[str, Any]] = [{"prompt": f"質問 {i}", "id": i} for i in range(7)]
MADE_FROM = {"input": "abc", "adapter": "def"}
# Not the order of the rows, as when they are sorted by length.
BATCHES = ((3, 1), (0, 6), (5, 2), (4,))


def answer_file(folder: Path, **keywords: Any) -> AnswerFile:
    made_from = keywords.pop("made_from", MADE_FROM)
    return AnswerFile(folder / "out.jsonl", ROWS, made_from, **keywords)


def reply(index: int) -> Reply:
    return Reply(f"答え {index}\n", 3 + index, index % 2 == 0)


def run(answers: AnswerFile, batches: int = len(BATCHES)) -> None:
    """Answer what is left, at most so many batches."""
    with answers.writing():
        for batch in BATCHES[:batches]:
            left = {index: reply(index) for index in batch if index not in answers.replies}
            if left:
                answers.add(left)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_rows_with_their_answers_in_the_order_of_the_input(tmp_path: Path) -> None:
    answers = answer_file(tmp_path)
    run(answers)
    assert answers.complete
    expected = [
        {**ROWS[i], "answer": f"答え {i}\n", "tokens": 3 + i, "stopped": i % 2 == 0} for i in range(7)
    ]
    assert lines(tmp_path / "out.jsonl") == expected
    assert "答え 0" in (tmp_path / "out.jsonl").read_text(encoding="utf-8")
    assert lines(tmp_path / "out.journal.jsonl") == [{"made_from": MADE_FROM}]
    again = answer_file(tmp_path)
    assert again.complete
    assert again.replies == {i: reply(i) for i in range(7)}


def test_the_output_holds_what_is_answered_up_to_the_first_gap(tmp_path: Path) -> None:
    written = []
    for batches in range(1, 5):
        run(answer_file(tmp_path), batches)
        written.append(len(lines(tmp_path / "out.jsonl")))
    assert written == [0, 2, 4, 7]


@pytest.mark.parametrize("batches", range(4))
def test_a_kill_at_any_byte_loses_a_batch_at_most(tmp_path: Path, batches: int) -> None:
    """The files as they were after some batches, and any part of what the next one wrote."""
    whole = tmp_path / "whole"
    run(answer_file(whole))
    run(answer_file(tmp_path / "before"), batches)
    names = ("out.journal.jsonl", "out.jsonl")
    before = {name: (tmp_path / "before" / name).read_bytes() for name in names}
    run(answer_file(tmp_path / "before"), batches + 1)
    after = {name: (tmp_path / "before" / name).read_bytes() for name in names}
    journal_after = after[names[0]] if batches < 3 else before[names[0]]  # the last batch cuts it back
    stages = [
        (journal_after[:size], before[names[1]])
        for size in range(len(before[names[0]]), len(journal_after) + 1, 7)
    ] + [
        (journal_after, after[names[1]][:size])
        for size in range(len(before[names[1]]), len(after[names[1]]) + 1, 7)
    ]
    for number, contents in enumerate(stages):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, content in zip(names, contents, strict=True):
            (folder / name).write_bytes(content)
        resumed = answer_file(folder)
        lost = {index for batch in BATCHES[:batches] for index in batch} - resumed.replies.keys()
        assert not lost
        run(resumed)
        assert (folder / "out.jsonl").read_bytes() == (whole / "out.jsonl").read_bytes()


def test_a_run_killed_before_its_first_line_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "out.journal.jsonl").write_text('{"made_from": {"inp')
    (tmp_path / "out.jsonl").touch()
    run(answer_file(tmp_path))
    assert len(lines(tmp_path / "out.jsonl")) == 7


def refusal(folder: Path, **keywords: Any) -> str:
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(InputError) as caught:
        run(answer_file(folder, **keywords))
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    return str(caught.value)


def test_answers_of_two_kinds_do_not_stand_in_one_file(tmp_path: Path) -> None:
    run(answer_file(tmp_path), 2)
    said = refusal(tmp_path, made_from={**MADE_FROM, "input": "other"})
    assert "input changed since it was begun" in said
    assert "--force" in said
    anew = answer_file(tmp_path, made_from={"input": "other"}, anew=True)
    assert anew.replies == {}
    run(anew)
    assert lines(tmp_path / "out.journal.jsonl") == [{"made_from": {"input": "other"}}]
    assert len(lines(tmp_path / "out.jsonl")) == 7


def test_force_takes_old_metrics_away(tmp_path: Path) -> None:
    run(answer_file(tmp_path))
    (tmp_path / "out.metrics.json").write_text("{}")
    run(answer_file(tmp_path, anew=True))
    assert not (tmp_path / "out.metrics.json").exists()


@pytest.mark.parametrize("anew", [False, True])
def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path, anew: bool) -> None:
    (tmp_path / "out.jsonl").write_text('{"precious": 1}\n')
    said = refusal(tmp_path, anew=anew)
    assert "holds something else" in said
    assert "delete it" in said


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda text: text.replace("答え 1", "別の"), ""),
        (lambda text: text.replace("質問 1", "別の"), "out.jsonl:2: "),
        (lambda text: text.replace('{"prompt": "質問 1"', "prompt"), "out.jsonl:2: "),
        (lambda text: text + text, "out.jsonl:8: "),
    ],
)
def test_lines_that_are_not_the_rows_are_refused(tmp_path: Path, change: Any, where: str) -> None:
    """An edited answer is still an answer to its row; anything else is not what this command wrote."""
    run(answer_file(tmp_path))
    path = tmp_path / "out.jsonl"
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    if where:
        assert where in refusal(tmp_path)
    else:
        assert answer_file(tmp_path).replies[1].answer == "別の\n"


def test_a_damaged_journal_is_refused(tmp_path: Path) -> None:
    run(answer_file(tmp_path), 2)
    with (tmp_path / "out.journal.jsonl").open("a") as file:
        file.write("no json\n")
    assert "out.journal.jsonl:4" in refusal(tmp_path)


def test_one_run_at_a_time(tmp_path: Path) -> None:
    first, second = answer_file(tmp_path), answer_file(tmp_path)
    with first.writing(), pytest.raises(InputError, match="another run is writing it"), second.writing():
        pass
    with first.writing(), pytest.raises(InputError, match="another run is writing it"):
        answer_file(tmp_path)
    run(second)


@pytest.mark.parametrize("batches", [2, 4])
def test_what_another_run_answered_in_between_counts(tmp_path: Path, batches: int) -> None:
    """This run looked at the files, then loaded its model; meanwhile the other one came and went."""
    run(answer_file(tmp_path), 1)
    waiting = answer_file(tmp_path)
    run(answer_file(tmp_path), batches)
    with waiting.writing():
        assert waiting.replies.keys() == {index for batch in BATCHES[:batches] for index in batch}
    assert b"\0" not in (tmp_path / "out.journal.jsonl").read_bytes()
    run(waiting)
    assert [line["id"] for line in lines(tmp_path / "out.jsonl")] == list(range(7))


@pytest.mark.parametrize("name", ["out.json", "out", "folder.jsonl", "file/out.jsonl"])
def test_places_that_will_not_do(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="--output"):
        AnswerFile(tmp_path / name, ROWS, MADE_FROM)


def test_a_new_folder_is_made_by_the_run_and_not_before(tmp_path: Path) -> None:
    answers = answer_file(tmp_path / "new" / "er")
    assert not (tmp_path / "new").exists()
    run(answers)
    assert len(lines(tmp_path / "new" / "er" / "out.jsonl")) == 7


@pytest.mark.parametrize("name", ["out.jsonl", "out.journal.jsonl", "out.metrics.json"])
def test_nothing_is_written_through_a_link(tmp_path: Path, name: str) -> None:
    (tmp_path / "precious").write_text("")
    (tmp_path / name).symlink_to(tmp_path / "precious")
    for anew in (False, True):
        assert "symbolic link" in refusal(tmp_path, anew=anew)
