"""One stage on two machines: the same result as on one, and the same end on both."""

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster_tools import cluster_tools
from machines import Machine, two_machines, why_not
from several_machines import EXAMPLES, Ended, Run, digest, losses, started, worker
from tiny_curriculum import Curriculum
from train_command import ROOT

pytestmark = pytest.mark.slow
Pair = tuple[Machine, Machine]
New = Callable[[Path], Curriculum]
ENOUGH_TO_BE_KILLED = {
    "SFT_MAX_STEPS": 60,
    "SFT_SAVE_STEPS": 10,
    "SFT_EVAL_STEPS": 10,
    "SFT_GEN_EVAL_EVERY": 0,
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    if reason := why_not():
        pytest.skip(reason)
    with two_machines(tmp_path_factory.mktemp("machines")) as machines:
        yield machines


@pytest.fixture(scope="module")
def on_one(tmp_path_factory: pytest.TempPathFactory, new_curriculum: New) -> Curriculum:
    """All stages by two processes of one machine, and the long form of the first."""
    curriculum = new_curriculum(tmp_path_factory.mktemp("one") / "curriculum")
    curriculum.train("all", "--nproc", 2)
    return curriculum


@pytest.fixture(scope="module")
def long_on_one(tmp_path_factory: pytest.TempPathFactory, new_curriculum: New) -> Curriculum:
    curriculum = new_curriculum(tmp_path_factory.mktemp("long") / "curriculum")
    curriculum.set(1, **ENOUGH_TO_BE_KILLED)
    curriculum.train(1, "--nproc", 2)
    return curriculum


def apart(pair: Pair, folder: Path, second: Path) -> None:
    """`folder` of the second machine is `second` from now on: the machines share nothing there."""
    pair[1].run("mount", "--bind", second, folder)


def same(one: Curriculum, other: Curriculum, stage: int = 1) -> bool:
    return (digest(one, stage), losses(one, stage)) == (digest(other, stage), losses(other, stage))


def test_the_same_result_as_on_one_machine(
    pair: Pair, on_one: Curriculum, new_curriculum: New, tmp_path: Path
) -> None:
    curriculum = new_curriculum(tmp_path / "curriculum")
    with started(pair, curriculum.folder, "--stage", 1) as run:
        first, second = run.done()
    assert "2 processes on CPU on 2 machines, DeepSpeed ZeRO-2" in first
    assert "adapter in out/lora_stage1" in first
    assert "stage 1" not in second
    assert same(on_one, curriculum)
    again = [one.said for one in _ended(pair, curriculum, "--stage", 1)]
    assert "up to date, left alone" in again[0]
    assert "up to date" not in again[1]


def test_machines_that_share_no_files(
    pair: Pair, on_one: Curriculum, new_curriculum: New, tmp_path: Path
) -> None:
    """The second has its own folder: adapters, records and evaluation sets come to it; each merges."""
    curriculum = new_curriculum(tmp_path / "curriculum")
    second = curriculum.copy_to(tmp_path / "second")
    apart(pair, curriculum.folder, second.folder)
    with started(pair, curriculum.folder, "--stage", "all") as run:
        run.done()
    for stage in (1, 2, 3):
        assert same(on_one, curriculum, stage)
        assert same(curriculum, second, stage)
    assert (second.merged_base(3) / "merge.json").exists()
    assert not list(second.folder.glob("mlruns/*.db-journal"))
    for left in ("*.copying", "*.part", ".seen-by-all-*"):
        assert not list(tmp_path.rglob(left))
    # A machine that comes new has none of it.
    shutil.rmtree(second.folder / "out")
    curriculum.set(3, SFT_LR=2e-3)
    shutil.copy(curriculum.stage_file(3), second.stage_file(3))
    with started(pair, curriculum.folder, "--stage", 3) as run:
        run.done()
    assert same(curriculum, second, 3)


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "unshared"])
def test_a_killed_rank_ends_the_other_and_the_same_command_goes_on(
    shared: bool, pair: Pair, long_on_one: Curriculum, new_curriculum: New, tmp_path: Path
) -> None:
    curriculum = new_curriculum(tmp_path / "curriculum")
    curriculum.set(1, **ENOUGH_TO_BE_KILLED)
    if not shared:
        second = curriculum.copy_to(tmp_path / "second")
        apart(pair, curriculum.folder, second.folder)
    with started(pair, curriculum.folder, "--stage", 1) as run:
        _wait_for(curriculum.stage_dir(1) / "checkpoint-20/manifest.json", run)
        elsewhere = curriculum.command("--stage", 1)
        assert elsewhere.returncode == 2
        assert "on node0 is training it" in elsewhere.stderr
        dead, other = (1, 0) if shared else (0, 1)
        os.kill(worker(dead, curriculum.folder), signal.SIGKILL)
        killed = time.monotonic()
        left = run.ended()[other]
        assert time.monotonic() - killed < 30
    assert left.code == 1
    assert f"[rank {other}] ended, because rank {dead} on node{dead} ended without a word" in left.said
    with started(pair, curriculum.folder, "--stage", 1) as run:
        assert "going on from step" in run.done()[0]
    assert same(long_on_one, curriculum)


def test_a_machine_that_is_gone(pair: Pair, new_curriculum: New, tmp_path: Path) -> None:
    """The cable is pulled: nobody is told, the kernel finds out."""
    curriculum = new_curriculum(tmp_path / "curriculum")
    curriculum.set(1, **{**ENOUGH_TO_BE_KILLED, "SFT_MAX_STEPS": 5000, "SFT_SAVE_STEPS": 5000})
    with started(pair, curriculum.folder, "--stage", 1) as run:
        _wait_for(curriculum.stage_dir(1) / "tracking.json", run)
        try:
            pair[1].run("ip", "link", "set", "eth0", "down")
            pulled = time.monotonic()
            first, second = run.ended()
            assert time.monotonic() - pulled < 40
        finally:
            pair[1].run("ip", "link", "set", "eth0", "up")
    gone = "no longer answers (Connection timed out): its machine or the network is down"
    assert f"ended, because rank 1 on node1 {gone}" in first.said
    assert f"ended, because rank 0 on node0 {gone}" in second.said


def test_a_stop_on_one_machine_saves_on_all(
    pair: Pair, long_on_one: Curriculum, new_curriculum: New, tmp_path: Path
) -> None:
    """Told twice within a moment, as by a scheduler and by the launcher that it has told too."""
    curriculum = new_curriculum(tmp_path / "curriculum")
    curriculum.set(1, **ENOUGH_TO_BE_KILLED)
    with started(pair, curriculum.folder, "--stage", 1) as run:
        _wait_for(curriculum.stage_dir(1) / "checkpoint-10/manifest.json", run)
        for _ in range(2):
            os.kill(worker(1, curriculum.folder), signal.SIGTERM)
            time.sleep(0.2)
        first, _ = run.ended()
    assert "interrupted: checkpoint saved at step" in first.said
    with started(pair, curriculum.folder, "--stage", 1) as run:
        run.done()
    assert same(long_on_one, curriculum)


def test_what_differs_is_named_before_training(pair: Pair, new_curriculum: New, tmp_path: Path) -> None:
    curriculum = new_curriculum(tmp_path / "curriculum")
    other_rate = {1: {"SFT_LR": "1e-4", "SFT_EVAL_STEPS": "3"}}
    ended = _ended(pair, curriculum, "--stage", 1, own=other_rate)
    for one in ended:
        assert (
            "node1 (rank 1): SFT_LR\n    given:    1e-4\n    expected: 0.005, as on node0 (rank 0)"
            in one.said
        )
        assert "node1 (rank 1): SFT_EVAL_STEPS" in one.said
    second = curriculum.copy_to(tmp_path / "second")
    text = (second.folder / "general.jsonl").read_text()
    (second.folder / "general.jsonl").write_text(text.replace("amber", "umber"))
    apart(pair, curriculum.folder, second.folder)
    for one in _ended(pair, curriculum, "--stage", 1):
        assert "node1 (rank 1): data set general.jsonl" in one.said
    assert not list(curriculum.stage_dir(1).glob("*"))


def test_wrong_input_on_one_machine_is_said_on_both(pair: Pair, new_curriculum: New, tmp_path: Path) -> None:
    curriculum = new_curriculum(tmp_path / "curriculum")
    first, second = _ended(pair, curriculum, "--stage", 1, own={1: {"SFT_LR": "fast"}})
    assert "[rank 1] environment: SFT_LR\n    given:    fast" in second.said
    assert (
        "[rank 0] ended, because rank 1 on node1 failed:\nenvironment: SFT_LR\n    given:    fast"
        in first.said
    )
    assert max(first.seconds, second.seconds) < 60


def test_the_plan_is_said_once(pair: Pair, new_curriculum: New, tmp_path: Path) -> None:
    curriculum = new_curriculum(tmp_path / "curriculum")
    with started(pair, curriculum.folder, "--stage", 1, "--plan") as run:
        first, second = run.done()
    assert "2 processes on CPU on 2 machines" in first
    assert "stage 1" not in second
    with started(pair, curriculum.folder, "--stage", 1, "--check") as run:
        first, second = run.done()
    assert "a step" in first
    assert "a step" not in second


@pytest.mark.parametrize("by_ssh", [True, False], ids=["pdsh", "no_ssh"])
def test_deepspeeds_launcher(
    by_ssh: bool, pair: Pair, on_one: Curriculum, new_curriculum: New, tmp_path: Path
) -> None:
    curriculum = new_curriculum(tmp_path / "curriculum")
    hostfile = tmp_path / "hostfile"
    hostfile.write_text((EXAMPLES / "hostfile").read_text().replace("slots=4", "slots=1"))
    given = {"HOSTFILE": str(hostfile), "PORT": "29511"}
    if by_ssh:
        tools = cluster_tools(tmp_path / "bin", pair)
        environ = {
            **given,
            "PATH": f"{tools}:{os.environ['PATH']}",
            "PYTHON": sys.executable,
            "FIRST": "node0",
        }
        command = pair[0].begun(["sh", EXAMPLES / "deepspeed.sh", "--stage", 1], curriculum.folder, **environ)
        said, _ = command.communicate(timeout=240)
        assert command.returncode == 0, said
    else:
        with started(pair, curriculum.folder, "--stage", 1, script="deepspeed.sh", **given) as run:
            said = run.done()[0]
    assert "2 processes on CPU on 2 machines, DeepSpeed ZeRO-2" in said
    assert same(on_one, curriculum)


def test_a_slurm_job(pair: Pair, on_one: Curriculum, new_curriculum: New, tmp_path: Path) -> None:
    curriculum = new_curriculum(tmp_path / "curriculum")
    (curriculum.folder / "docs").symlink_to(ROOT / "docs")
    tools = cluster_tools(tmp_path / "bin", pair)
    job = {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_NODELIST": "node[0-1]",
        "SLURM_JOB_ID": "4711",
        "PROCESSES": "1",
        "PYTHON": sys.executable,
    }
    command = pair[0].begun(["bash", EXAMPLES / "slurm.sbatch", "--stage", 1], curriculum.folder, **job)
    said, _ = command.communicate(timeout=240)
    assert command.returncode == 0, said
    assert "2 processes on CPU on 2 machines, DeepSpeed ZeRO-2" in said
    assert same(on_one, curriculum)


def test_a_model_is_downloaded_once_on_each_machine(
    pair: Pair, tiny_base: Path, new_curriculum: New, tmp_path: Path
) -> None:
    """Two processes on each of them, by a Hub that counts."""
    curriculum = new_curriculum(tmp_path / "curriculum")
    curriculum.set(1, SFT_BASE_MODEL="tiny/moe", SFT_MAX_STEPS=2, SFT_GLOBAL_BATCH_SIZE=8)
    curriculum.unset(1, "SFT_GRAD_ACCUM")
    log = tmp_path / "fetched.txt"
    command = [sys.executable, Path(__file__).with_name("loopback_hub.py"), tiny_base, pair[0].address, log]
    hub = pair[0].begun(command, tmp_path)
    try:
        assert hub.stdout is not None
        address = f"http://{pair[0].address}:{hub.stdout.readline().strip()}"
        online = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0"}
        with started(pair, curriculum.folder, "--stage", 1, PROCESSES="2", **online) as run:
            said = run.done()[0]
    finally:
        hub.kill()
        hub.communicate()
    assert "4 processes on CPU on 2 machines" in said
    fetched = [line for line in log.read_text().splitlines() if line.endswith("model.safetensors")]
    assert sorted(fetched) == [f"{machine.address} model.safetensors" for machine in pair]
    assert len(log.read_text().splitlines()) == len(set(log.read_text().splitlines()))


def _ended(pair: Pair, curriculum: Curriculum, *arguments: object, **options: object) -> list[Ended]:
    with started(pair, curriculum.folder, *arguments, **options) as run:  # type: ignore[arg-type]
        return run.ended()


def _wait_for(path: Path, run: Run, seconds: float = 180) -> None:
    until = time.monotonic() + seconds
    while not path.exists():
        over = [command for command in run.commands if command.poll() is not None]
        assert not over, "\n----\n".join(ended.said for ended in run.ended())
        assert time.monotonic() < until, f"no {path}"
        time.sleep(0.1)
