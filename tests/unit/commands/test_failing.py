"""What is said when a stage fails while it runs."""

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib.commands import failing
from lib.commands.failing import evaluation_explained, explained, failures_explained
from lib.planning.stage_batch import with_batch
from lib.settings import InputError
from lib.training.sizing.world import World

ALONE = World(1, 0)


@pytest.fixture
def failed(curriculum: Any, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """failed(error): stderr of stage 1 when it raises that."""
    curriculum.stage(1, SFT_LORA_R=5000)

    def run(error: BaseException, world: World = ALONE) -> str:
        stage = with_batch(curriculum.surveyed(1), world)
        with pytest.raises(SystemExit) as caught, failures_explained(stage, world):
            raise error
        assert caught.value.code == 1
        return capsys.readouterr().err

    return run


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_the_remedy_is_said_and_the_traceback_kept(failed: Callable[..., str], curriculum: Any) -> None:
    said = failed(FULL)
    log = curriculum.folder(1) / "failure.log"
    assert said.splitlines()[0] == "stage 1 failed: disk full"
    assert said.splitlines()[1].startswith("    remedy:   free some space")
    assert said.splitlines()[-1] == f"    log:      {log}"
    assert "Traceback" not in said
    text = log.read_text()
    assert text.endswith("OSError: [Errno 28] No space left on device\n")
    assert "Traceback (most recent call last):" in text


def test_memory_comes_with_numbers_from_the_estimate(failed: Callable[..., str]) -> None:
    said = failed(MemoryError())
    assert "SFT_PER_DEVICE_TRAIN_BS=1 with SFT_GRAD_ACCUM=16 (the same batch in more passes): about" in said
    assert "SFT_LORA_R=2500 (a smaller adapter): about" in said


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str) -> None:
        raise FULL

    monkeypatch.setattr(failing, "write_text", full)


@pytest.mark.usefixtures("full_disk")
def test_a_disk_that_takes_no_log_sends_it_elsewhere(
    failed: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    said = failed(FULL)
    assert said.startswith("stage 1 failed: disk full\n    remedy:")
    (log,) = tmp_path.glob("failure_*.log")
    assert said.splitlines()[-1].startswith(f"    log:      {log} (")
    assert said.splitlines()[-1].endswith("failure.log: No space left on device)")
    assert "Traceback (most recent call last):" in log.read_text()


@pytest.mark.usefixtures("full_disk")
def test_without_any_disk_the_traceback_is_on_the_screen(
    failed: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    said = failed(FULL)
    assert said.startswith("stage 1 failed: disk full\n    remedy:")
    assert "not written (No space left on device)" in said
    assert "Traceback (most recent call last):" in said


def test_every_rank_has_a_log_of_its_own(
    failed: Callable[..., str], curriculum: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert failed(FULL, World(2, 0)).startswith("[rank 1] stage 1 failed")
    assert (curriculum.folder(1) / "failure_rank1.log").exists()


def test_no_password_is_written(failed: Callable[..., str], curriculum: Any) -> None:
    error = ConnectionError("Max retries exceeded: https://somebody:hunter2@tracking.example/api")
    assert "hunter2" not in failed(error)
    assert "hunter2" not in (curriculum.folder(1) / "failure.log").read_text()


@pytest.mark.parametrize(
    "error", [KeyError("ours"), InputError.of(where="settings", remedy="mend it"), KeyboardInterrupt()]
)
def test_others_pass_as_they_are(curriculum: Any, error: BaseException) -> None:
    curriculum.stage(1)
    stage = with_batch(curriculum.surveyed(1), World(1, 0))
    with pytest.raises(type(error)) as caught, failures_explained(stage, World(1, 0)):
        raise error
    assert caught.value is error
    assert not curriculum.folder(1).exists()


def test_a_worker_leaves_an_unknown_error_to_the_command_that_started_it(
    failed: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORA_CURRICULUM_LAUNCHER", "1")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    assert failed(KeyError("ours"), World(2, 0)) == ""
    assert "Traceback (most recent call last)" in (tmp_path / "error.json").read_text()


def test_a_run_that_ends_well_takes_the_old_log_away(failed: Callable[..., str], curriculum: Any) -> None:
    failed(FULL)
    stage = with_batch(curriculum.surveyed(1), World(1, 0))
    with failures_explained(stage, World(1, 0)):
        pass
    assert list(curriculum.folder(1).iterdir()) == []


def test_an_evaluation_says_what_it_could_do_with_less(
    curriculum: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing of training, and a log beside that of a run."""
    curriculum.stage(1)
    settings = curriculum.surveyed(1).settings
    with pytest.raises(SystemExit), evaluation_explained(settings, 0, ALONE):
        raise MemoryError
    said = capsys.readouterr().err
    assert said.startswith("evaluating stage 0 failed: host memory\n    remedy:")
    assert "SFT_GEN_EVAL_BATCH_SIZE=8 (answers take longer)" in said
    assert "TRAIN_BS" not in said
    assert "MemoryError" in (curriculum.folder(0) / "evaluation_failure.log").read_text()


def test_a_log_that_cannot_be_taken_away_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "unlink", refused)
    with explained("it failed", tmp_path / "old.log", list):
        pass
