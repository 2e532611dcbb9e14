"""The file in which a run writes down what it has to tell."""

import errno
import math
from pathlib import Path

import pytest

from lib.tracking.journal import Journal, Told, whole_entries


def test_lines_come_back_as_they_were_told(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl")
    for step in range(3):
        journal.add({"op": "metrics", "step": step, "values": {"損失": 1.0}})
    lines = list(journal.after(0))
    assert [line.entry["step"] for line in lines] == [0, 1, 2]
    assert lines[-1].end == journal.size == journal.path.stat().st_size
    assert [line.entry["step"] for line in journal.after(lines[0].end)] == [1, 2]
    assert all(line.entry["time"] > 10**12 for line in lines)
    assert list(whole_entries(journal.path)) == [line.entry for line in lines]


def test_only_one_process_has_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl")
    with pytest.raises(BlockingIOError):
        Journal(tmp_path / "j.jsonl")
    journal.close()
    Journal(tmp_path / "j.jsonl").close()


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    path.write_bytes(b'{"op": "a", "time": 1}\n{"op": "b", "ti')
    assert [entry["op"] for entry in whole_entries(path)] == ["a"]
    journal = Journal(path)
    journal.add({"op": "c"})
    assert [entry["op"] for entry in journal.entries()] == ["a", "c"]


def test_a_damaged_line_is_named_and_tells_nothing(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    deep = b"[" * 100_000
    path.write_bytes(b'{"op": "a", "time": 1}\n\xff\x00\n7\n' + deep + b'\n{"op": 3}\n{"op": "b"}\n')
    assert [entry["op"] for entry in whole_entries(path)] == ["a", *["damaged"] * 4, "b"]
    assert [line.entry["op"] for line in Journal(path).after(0)] == ["a", *["damaged"] * 4, "b"]
    assert Told([{"op": "metrics"}, {"op": "params", "values": 3}]).new_metrics({"a": 1}, 1) == {"a": 1.0}


def test_a_line_that_finds_no_room_leaves_no_trace(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl")
    journal.add({"op": "a"})
    whole = journal._file

    class Full:
        """Takes half a line."""

        def write(self, line: bytes) -> int:
            return whole.write(line[: len(line) // 2])

    journal._file = Full()  # type: ignore[assignment]
    with pytest.raises(OSError, match="No space") as full:
        journal.add({"op": "b"})
    assert full.value.errno == errno.ENOSPC
    journal._file = whole
    journal.add({"op": "c"})
    assert [entry["op"] for entry in journal.entries()] == ["a", "c"]


def test_what_was_told_is_not_told_again() -> None:
    told = Told()
    assert told.new_metrics({"loss": 1, "note": "no number"}, 1) == {"loss": 1.0}
    assert told.new_metrics({"loss": 1, "eval_loss": 2.0}, 1) == {"eval_loss": 2.0}
    assert told.new_metrics({"loss": 1}, 2) == {"loss": 1.0}
    assert told.new_metrics({"a": math.nan, "b": math.inf}, 2) == {}
    assert told.new_params({"a": "1"}) == {"a": "1"}
    assert told.new_params({"a": "2", "b": "1"}) == {"b": "1"}
    metrics = {"op": "metrics", "step": 3, "values": {"system/cpu": 1.0}}
    entries = [metrics, {"op": "params", "values": {"a": "1"}}]
    again = Told(entries)
    assert again.new_metrics({"system/cpu": 2.0}, 3) == {}
    assert again.new_params({"a": "1"}) == {}
    assert (again.next_step("system/"), again.next_step("other/")) == (4, 0)
