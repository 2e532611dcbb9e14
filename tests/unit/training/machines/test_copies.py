"""Folders of machines that share nothing, as folders of this one."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from runs_of_threads import MemoryStore, in_each, places

from lib.settings.errors import Problem, RunError
from lib.training.machines import copies
from lib.training.machines.copies import Copies
from lib.training.machines.meeting import Meeting

T = TypeVar("T")
HOSTS = places("a", "a", "b", "b", "c")


@pytest.fixture
def on_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[Copies, Path], T]], list[T]]:
    """Calls a function in each process, with the folder as its machine sees it: a and c share, b does not."""

    monkeypatch.setattr(copies, "LOOK_PAUSE", 0.01)

    def run(work: Callable[[Copies, Path], T], store: MemoryStore | None = None) -> list[T]:
        def one(meeting: Meeting) -> T:
            mine = Copies(meeting)
            folder = tmp_path / ("b" if meeting.place.host == "b" else "a") / "stage"
            mine.look(folder.parent)
            return work(mine, folder)

        return in_each(HOSTS, one, store)

    return run


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in files}


def test_who_does_not_see_the_folder_is_apart(on_each: Callable, tmp_path: Path) -> None:
    found = on_each(lambda mine, folder: (mine.apart, mine.is_apart))
    assert found == [((2,), rank == 2) for rank in range(5)]
    assert list((tmp_path / "a").iterdir()) == []


def test_a_mirror_is_the_same_and_keeps_what_is_its_own(on_each: Callable, tmp_path: Path) -> None:
    a, b = tmp_path / "a/stage", tmp_path / "b/stage"
    write(a, adapter="重み", checkpoint__state="3", checkpoint__manifest="whole", lock="a's")
    write(b, adapter="old", old__deep="x", lock="b's", checkpoint__state="3")
    kept = lambda name: name != "lock"  # noqa: E731
    on_each(lambda mine, folder: mine.mirror(folder, kept))
    assert contents(b) == {**contents(a), "lock": "b's"}
    assert not (b / "old").exists()
    assert (b / "adapter").stat().st_mtime_ns == (a / "adapter").stat().st_mtime_ns


def test_only_what_differs_is_sent(on_each: Callable, tmp_path: Path) -> None:
    write(tmp_path / "a/stage", large="x" * 100_000, small="y")
    on_each(lambda mine, folder: mine.mirror(folder))
    inode = (tmp_path / "b/stage/large").stat().st_ino
    write(tmp_path / "a/stage", small="z")
    store = MemoryStore()
    on_each(lambda mine, folder: mine.mirror(folder), store)
    assert contents(tmp_path / "b/stage")["small"] == "z"
    assert (tmp_path / "b/stage/large").stat().st_ino == inode
    assert store.largest < 10_000


def test_large_files_go_in_parts_and_few_are_underway(
    on_each: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "PART", 1000)
    (tmp_path / "a/stage").mkdir(parents=True)
    content = os.urandom(23_456)
    for name, size in (("odd", 23_456), ("even", 2000), ("empty", 0)):
        (tmp_path / "a/stage" / name).write_bytes(content[:size])
    store = MemoryStore()
    on_each(lambda mine, folder: mine.mirror(folder), store)
    for name, size in (("odd", 23_456), ("even", 2000), ("empty", 0)):
        assert (tmp_path / "b/stage" / name).read_bytes() == content[:size]
    assert store.most_bytes < 30_000


def test_rank_0_gets_the_parts_of_the_others(on_each: Callable, tmp_path: Path) -> None:
    write(tmp_path / "a/stage", rank0="0", shared="of a")
    write(tmp_path / "b/stage", zero__rank2="2", zero__rank3="3", shared="of b")
    on_each(lambda mine, folder: mine.collect(folder))
    expected = {"rank0": "0", "shared": "of a", "zero/rank2": "2", "zero/rank3": "3"}
    assert contents(tmp_path / "a/stage") == expected


def refused(work: Callable[[Copies, Path], None]) -> Callable[[Copies, Path], str]:
    """What one of them refuses, while the others wait."""
    found = threading.Event()

    def run(mine: Copies, folder: Path) -> str:
        def look_up() -> None:
            if found.is_set():
                raise RunError(Problem("another one has ended"))

        mine.meeting.look_up = look_up
        with pytest.raises(RunError) as caught:
            work(mine, folder)
        found.set()
        return str(caught.value)

    return run


def test_what_only_another_machine_has_is_not_removed(on_each: Callable, tmp_path: Path) -> None:
    """Numbered in another order than before, the machines have a first one that is empty."""
    write(tmp_path / "b/stage", adapter="of days", stage="whole")
    said = on_each(refused(lambda mine, folder: mine.mirror(folder, empties=False)))
    assert "b has files there, and rank 0's machine, whose folder counts, has none" in said[2]
    assert "start with b as machine 0" in said[2]
    assert contents(tmp_path / "b/stage") == {"adapter": "of days", "stage": "whole"}
    on_each(lambda mine, folder: mine.mirror(folder))
    assert contents(tmp_path / "b/stage") == {}


def test_a_link_is_not_followed(on_each: Callable, tmp_path: Path) -> None:
    write(tmp_path / "a/stage", adapter="x")
    (tmp_path / "b/stage").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "b/stage/checkpoint").symlink_to(tmp_path / "outside")

    said = on_each(refused(lambda mine, folder: mine.mirror(folder)))
    assert "a link inside a stage's folder" in said[2]
    assert not list((tmp_path / "outside").iterdir())
