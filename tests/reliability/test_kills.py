"""SIGKILL at random moments of a curriculum of three stages, again and again: in the end the adapters are
byte for byte those of a curriculum that nobody disturbed, and so are the records but for times."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from forked_runs import ForkServer
from killed_runs import adapters, kill_until, record
from tiny_curriculum import STAGES, Curriculum, make_curriculum, texts
from tiny_model import make_model
from train_command import ROOT

SEED = 20261125
# The embedded curriculum, with its own base and data, in a fraction of its time.
SHORTENED = {
    "SFT_MAX_STEPS": 8, "SFT_PER_DEVICE_TRAIN_BS": 2, "SFT_GRAD_ACCUM": 2, "SFT_SAVE_STEPS": 3,
    "SFT_EVAL_STEPS": 3, "SFT_LOGGING_STEPS": 2, "SFT_GEN_EVAL_SAMPLES": 3, "SFT_GEN_EVAL_MAX_NEW_TOKENS": 8,
}  # fmt: skip


def left_alone_or_killed(
    server: ForkServer, make: Callable[[Path], Curriculum], folder: Path, *, kills: int, share: float
) -> None:
    """Each of the kills comes within `share` of the time that the whole curriculum takes."""
    whole, killed = make(folder / "whole"), make(folder / "killed")
    assert server.run(whole.folder, "--stage", "all") == 0  # makes the tracking store, which takes long
    shutil.copytree(whole.folder / "mlruns", killed.folder / "mlruns")
    began = time.monotonic()
    assert server.run(whole.folder, "--stage", "all", "--force") == 0
    longest = share * (time.monotonic() - began)
    done = kill_until(server, killed.folder, kills, seed=SEED, longest=longest)
    print(f"{done} within {longest:.1f} s each")
    for stage in STAGES:
        left, right = whole.stage_dir(stage), killed.stage_dir(stage)
        assert adapters([left]) == adapters([right]), stage
        assert record(left) == record(right), stage
    assert [line.split()[2] for line in killed.status()] == ["complete"] * len(STAGES)


@pytest.mark.parametrize("kills", [8, pytest.param(60, marks=pytest.mark.slow)])
def test_kills_of_a_tiny_curriculum(
    kills: int, server: ForkServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = make_model(tmp_path_factory.mktemp("base") / "tiny-moe", texts())
    folder = tmp_path_factory.mktemp("kills")
    left_alone_or_killed(server, lambda place: make_curriculum(place, base), folder, kills=kills, share=0.4)


def embedded(place: Path) -> Curriculum:
    """Base and data of the repository itself."""
    place.mkdir()
    shutil.copytree(ROOT / "stages", place / "stages", ignore=shutil.ignore_patterns("*-*"))
    for name in ("assets", "data"):
        (place / name).symlink_to(ROOT / name)
    curriculum = Curriculum(place)
    for stage in STAGES:
        curriculum.set(stage, SFT_OUT_LORA_DIR="out/lora", **SHORTENED)
    return curriculum


@pytest.mark.slow
def test_sixty_kills_of_the_embedded_curriculum(
    server: ForkServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    left_alone_or_killed(server, embedded, tmp_path_factory.mktemp("kills"), kills=60, share=0.3)
