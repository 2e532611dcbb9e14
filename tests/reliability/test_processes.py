"""Two processes: stopped together, saved together, gone on together; another number of them is refused."""

from pathlib import Path

import pytest
from killed_runs import adapters, record
from tiny_curriculum import Curriculum, make_curriculum, texts
from tiny_model import make_model

from lib.training.checkpoints.manifest import verified

pytestmark = pytest.mark.slow
KEYS = {
    "SFT_MAX_STEPS": 24, "SFT_SAVE_STEPS": 8, "SFT_EVAL_STEPS": 8, "SFT_GRAD_ACCUM": 2,
    "SFT_PER_DEVICE_TRAIN_BS": 1, "SFT_LORA_DROPOUT": 0.1,
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("base") / "tiny-moe", texts())


def begun(folder: Path, base: Path, zero: str) -> Curriculum:
    curriculum = make_curriculum(folder, base)
    curriculum.set(1, SFT_ZERO_STAGE=zero, **KEYS)
    return curriculum


@pytest.mark.parametrize("zero", ["2", "0"])
def test_two_processes_go_on_byte_for_byte(zero: str, base: Path, tmp_path: Path) -> None:
    whole, cut = begun(tmp_path / "whole", base, zero), begun(tmp_path / "cut", base, zero)
    whole.train(1, "--nproc", 2)
    for at in ("step     5/24", "step    13/24"):  # in the second epoch and in the fourth
        code, out, err = cut.command.interrupted("--stage", 1, "--nproc", 2, at=at)
        assert code == 130, out + err
        assert err.count("interrupted: checkpoint saved at step") == 1
    newest = max(cut.stage_dir(1).glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    files = verified(newest).files
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= files.keys()
    shards = [name for name in files if name.endswith("_optim_states.pt")]
    assert len(shards) == (2 if zero == "2" else 0)
    refused = cut.command("--stage", 1, "--nproc", 1)
    assert refused.returncode == 2
    assert "processes changed from 2 to 1" in refused.stderr
    assert "--nproc" in refused.stderr
    cut.train(1, "--nproc", 2)
    assert adapters([whole.stage_dir(1)]) == adapters([cut.stage_dir(1)])
    assert record(whole.stage_dir(1)) == record(cut.stage_dir(1))
