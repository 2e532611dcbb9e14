"""A killed build does not stop every later run."""

import os
import time
from pathlib import Path

import pytest
from torch.utils.file_baton import FileBaton

from lib.training.processes import extension_lock
from lib.training.processes.extension_lock import (
    await_other_machines,
    extensions_folder,
    release_orphaned_locks,
)


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "py311_cpu" / "deepspeed_shm_comm" / "lock"
    path.parent.mkdir(parents=True)
    return path


def an_hour_old(path: Path) -> None:
    os.utime(path, (time.time() - 3600,) * 2)


def test_what_a_killed_build_left_is_removed(lock: Path, tmp_path: Path) -> None:
    lock.touch()
    an_hour_old(lock)
    (notice,) = release_orphaned_locks(tmp_path)
    assert str(lock) in notice
    assert not lock.exists()
    assert release_orphaned_locks(tmp_path) == []


def test_a_lock_that_torch_holds_stays(lock: Path, tmp_path: Path) -> None:
    baton = FileBaton(str(lock))
    assert baton.try_acquire()
    an_hour_old(lock)
    assert release_orphaned_locks(tmp_path) == []
    assert lock.exists()
    baton.release()


def test_a_young_one_may_belong_to_another_machine_and_has_its_time(
    lock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether that ends its build, or the time is over: nobody waits for ever."""
    lock.touch()
    assert release_orphaned_locks(tmp_path) == []
    monkeypatch.setattr(extension_lock, "OTHER_MACHINES_SECONDS", 0.2)
    monkeypatch.setattr(extension_lock, "PAUSE", 0.05)
    said: list[str] = []
    await_other_machines("another_operator", said.append, tmp_path)
    assert said == []
    await_other_machines("deepspeed_shm_comm", said.append, tmp_path)
    assert said[0].startswith(f"[WARNING] waiting for {lock}, 0 s at most: ")
    assert said[1].startswith(f"  removed {lock}")
    assert not lock.exists()


def test_nobody_waits_here_for_a_build_of_this_machine(lock: Path, tmp_path: Path) -> None:
    """torch does, and its end is seen."""
    baton = FileBaton(str(lock))
    assert baton.try_acquire()
    await_other_machines("deepspeed_shm_comm", pytest.fail, tmp_path)
    baton.release()


def test_without_any_build_there_is_nothing_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "nowhere"))
    assert extensions_folder() == tmp_path / "nowhere"
    assert release_orphaned_locks() == []
