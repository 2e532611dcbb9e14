"""Whatever happens to a file of a checkpoint is seen, and the newest whole one is gone on from."""

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from interrupted_runs import Trained

from lib.settings import RunError
from lib.training.checkpoints.checkpoints import Checkpoints
from lib.training.checkpoints.manifest import MANIFEST, DamagedError, outlined, verified


@pytest.fixture(scope="module")
def trained(make_trained: Callable[..., Trained]) -> Trained:
    """Four steps with checkpoints at 2 and 4."""
    run = make_trained(SFT_MAX_STEPS=4, SFT_SAVE_STEPS=2, SFT_EVAL_STEPS=2)
    run.session()
    return run


@pytest.fixture
def run(trained: Trained, tmp_path: Path) -> Checkpoints:
    """A copy that may be damaged."""
    shutil.copytree(trained.settings.stage_dir, tmp_path / "stage")
    return Checkpoints(tmp_path / "stage", trained.checkpoints.fingerprint)


def flip(path: Path, position: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def test_a_checkpoint_holds_no_pickle_but_what_is_loaded_as_weights_only(run: Checkpoints) -> None:
    names = {path.name for path in run.at(4).iterdir()}
    pickled = {name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))}
    assert pickled == {"optimizer.pt", "scheduler.pt", "rng_state.pth"}
    assert names >= {"adapter_model.safetensors", "trainer_state.json", "session.json", MANIFEST}


def test_every_file_deleted_truncated_or_with_one_bit_flipped_is_detected(run: Checkpoints) -> None:
    folder = run.at(4)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) >= 9
    for path in files:
        content = path.read_bytes()
        middle, last = len(content) // 2, len(content) - 1
        for damage in (
            path.unlink,
            partial(path.write_bytes, content[:-1]),
            partial(path.write_bytes, b""),
            *(
                lambda path=path, at=at, bit=bit: flip(path, at, bit)
                for at in (0, middle, last)
                for bit in (0, 5)
            ),
        ):
            damage()
            with pytest.raises(DamagedError, match="manifest" if path.name == MANIFEST else path.name):
                verified(folder)
            path.write_bytes(content)
    assert verified(folder).step == 4


def test_every_bit_of_the_manifest_counts(run: Checkpoints) -> None:
    path = run.at(4) / MANIFEST
    content = path.read_bytes()
    for position in range(0, len(content), 7):
        flip(path, position, position % 8)
        with pytest.raises(DamagedError, match="manifest"):
            outlined(run.at(4))
        path.write_bytes(content)


def test_a_file_too_many_is_detected(run: Checkpoints) -> None:
    """transformers would load a pytorch_model.bin before the adapter."""
    (run.at(4) / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(DamagedError, match=r"pytorch_model.bin does not belong to it"):
        verified(run.at(4))


def test_a_link_is_not_followed(run: Checkpoints, tmp_path: Path) -> None:
    os.replace(run.at(4), tmp_path / "elsewhere")
    run.at(4).symlink_to(tmp_path / "elsewhere")
    manifest, (notice,) = run.newest_whole(goes_back=False)
    assert manifest is not None
    assert manifest.step == 2
    assert "it is a link" in notice
    assert verified(tmp_path / "elsewhere").step == 4


def test_a_damaged_one_is_named_and_set_aside_and_the_one_before_is_used(run: Checkpoints) -> None:
    (run.at(4) / "optimizer.pt").unlink()
    manifest, (notice,) = run.newest_whole(goes_back=True)
    assert manifest is not None
    assert manifest.step == 2
    assert "checkpoint-4 is damaged (optimizer.pt is missing); set aside as checkpoint-4.damaged" in notice
    assert (run.folder / "checkpoint-4.damaged" / "scheduler.pt").is_file()
    assert run.steps() == [2]


@pytest.mark.parametrize("name", ["checkpoint-99", "checkpoint-100"])
def test_an_empty_newer_folder_is_no_checkpoint(name: str, run: Checkpoints) -> None:
    (run.folder / name).mkdir()
    manifest, (notice,) = run.newest_whole(goes_back=False)
    assert manifest is not None
    assert manifest.step == 4
    assert f"{name} is damaged (it has no manifest.json)" in notice


def test_none_is_left(run: Checkpoints) -> None:
    for step in (2, 4):
        flip(run.at(step) / "adapter_model.safetensors", 5000, 3)
    manifest, notices = run.newest_whole(goes_back=True)
    assert manifest is None
    assert len(notices) == 2


def test_two_of_the_same_step_are_both_kept(run: Checkpoints) -> None:
    (run.folder / "checkpoint-4.damaged").mkdir()
    (run.at(4) / MANIFEST).unlink()
    run.newest_whole(goes_back=False)
    assert (run.folder / "checkpoint-4.damaged-2").is_dir()


def test_what_killed_processes_left_is_cleared_away(run: Checkpoints) -> None:
    for name in ("checkpoint-6.part", "checkpoint-1.removed", "checkpoint-4.old"):
        shutil.copytree(run.at(2), run.folder / name)
    os.replace(run.at(2), run.folder / "checkpoint-2.old")  # killed between the two renames
    manifest, notices = run.newest_whole(goes_back=False)
    assert manifest is not None
    assert (manifest.step, notices) == (4, [])
    names = {path.name for path in run.folder.glob("checkpoint-*")}
    assert names == {"checkpoint-2", "checkpoint-4"}


def test_weights_that_changed_since_are_not_gone_back_to(run: Checkpoints) -> None:
    flip(run.at(2) / "adapter_model.safetensors", 9000, 0)
    with pytest.raises(RunError, match="run the same command again"):
        run.check(2)


def test_training_goes_on_from_the_one_before_and_ends_the_same(
    make_trained: Callable[..., Trained], trained: Trained
) -> None:
    run: Any = make_trained(SFT_MAX_STEPS=4, SFT_SAVE_STEPS=2, SFT_EVAL_STEPS=2)
    expected = run.session()
    flip(run.checkpoints.at(4) / "optimizer.pt", 3000, 2)
    again = run.session()
    assert "checkpoint-4 is damaged (optimizer.pt changed since it was saved)" in run.notices[0]
    assert (again.weights, again.history) == (expected.weights, expected.history)
