"""The failures of the user's log, and those of the table that can be provoked here, through the real command:
what it says, that it says it once, and how it ends."""

import json
import re
import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from provoked import (
    BROKEN_FLASH_ATTENTION,
    USERS_AXOLOTL,
    bound_by_permissions,
    deepspeed_json,
    fake_gpus,
    fake_package,
    limited,
    refusing_hub,
)
from tiny_curriculum import Curriculum, make_curriculum

Result = subprocess.CompletedProcess[str]
NO_ANSWERS = ("--set", "SFT_GEN_EVAL_SAMPLES=0")


@pytest.fixture
def curriculum(tmp_path: Path, tiny_base: Path) -> Curriculum:
    return make_curriculum(tmp_path / "curriculum", tiny_base)


def refused(result: Result, *says: str) -> None:
    """Wrong input: found before any weight is loaded, nothing written."""
    assert result.returncode == 2, result.stdout + result.stderr
    said = result.stdout + result.stderr
    assert [part for part in says if part not in said] == [], said
    assert "Traceback" not in said
    assert "remedy:" in said


def explained(result: Result, curriculum: Curriculum, name: str, *says: str, log: str = "failure.log") -> str:
    """A failure of the run: the remedy, once; the traceback in the log alone. The text of the log."""
    assert result.returncode == 1, result.stdout + result.stderr
    assert len(re.findall(rf"stage 1 failed: {name}\n    remedy:", result.stderr)) == 1, result.stderr
    assert [part for part in says if part not in result.stderr] == [], result.stderr
    path = curriculum.stage_dir(1) / log
    assert f"log:      {path.relative_to(curriculum.folder)}" in result.stderr
    text = path.read_text()
    assert "Traceback (most recent call last):" in text
    assert not (curriculum.stage_dir(1) / "stage.json").exists()
    return text


def verdicts(result: Result) -> dict[str, dict[str, str]]:
    """By name, from --json; of several under one name the worst."""
    (stage,) = json.loads(result.stdout)
    order = ("ok", "warning", "failed")
    return {v["name"]: v for v in sorted(stage["verdicts"], key=lambda v: order.index(v["state"]))}


# The user's log, failures 1, 3 and 5; 2 and 4 are about plugins, below.
def test_the_users_failures_are_found_together_before_anything_is_loaded(
    curriculum: Curriculum, tmp_path: Path
) -> None:
    own = deepspeed_json(tmp_path, train_batch_size=64)
    keys = {"SFT_CHAT_TEMPLATE": "qwen3_instruct", "SFT_DEEPSPEED_CONFIG": own, "SFT_GRAD_ACCUM": 8}
    curriculum.set(1, **keys)
    before = curriculum.left_behind()
    environ = fake_package(tmp_path / "site", "flash_attn", BROKEN_FLASH_ATTENTION, version="2.8.3")
    result = curriculum.command("--stage", 1, "--check", "--json", **environ)
    assert result.returncode == 2, result.stderr
    found = verdicts(result)
    assert found["chat template"]["state"] == "failed"
    assert "a bundled template (alpaca, chatml, gemma" in found["chat template"]["found"]
    assert found["flash-attn"]["state"] == "warning"
    assert "built for another torch, CUDA or C++ ABI" in found["flash-attn"]["found"]
    assert "--no-build-isolation" in found["flash-attn"]["remedy"]
    assert found["attention"]["found"].startswith("sdpa")
    assert found["DeepSpeed"]["state"] == "failed"
    assert '64: expected "auto" or 16 ' in found["DeepSpeed"]["found"]
    assert found["DeepSpeed"]["remedy"] == 'write "train_batch_size": "auto"'
    assert "left out" in found["probe"]["found"]
    assert curriculum.left_behind() == before


def test_a_plugin_is_no_key_of_this_trainer(curriculum: Curriculum) -> None:
    """Failures 2 and 4: a plugin's path without its module, and an interface half implemented. There is
    nothing to plug in."""
    curriculum.set(1, SFT_PLUGINS="src.callbacks.GenerationEvalCallback")
    refused(curriculum.command("--stage", 1), "SFT_PLUGINS", "a key that this trainer knows")


def test_the_users_axolotl_file_is_taken_over_without_its_plugins(curriculum: Curriculum) -> None:
    (curriculum.folder / "axolotl.yml").write_text(USERS_AXOLOTL)
    said = curriculum.command("--import-config", "axolotl.yml")
    text = said.stdout + "".join(path.read_text() for path in curriculum.folder.glob("stages-imported/*.env"))
    assert "plugins" in text
    assert "metrics by generation are built in" in text


def test_a_deepspeed_json_of_another_number_of_processes_stops_the_run_once(
    curriculum: Curriculum, tmp_path: Path
) -> None:
    own = deepspeed_json(tmp_path, train_batch_size=64, zero_optimization={"stage": 3})
    before = curriculum.left_behind()
    result = curriculum.command("--stage", 1, "--nproc", 2, "--set", f"SFT_DEEPSPEED_CONFIG={own}")
    refused(
        result,
        'expected: "auto" or 4 ',
        "2 rows x 1 pass x 2 processes",
        "for another number of processes",
        '"stage": 2',
    )
    assert result.stderr.count("train_batch_size\n") == 1
    assert curriculum.left_behind() == before


def test_a_gpu_and_the_cpu_build_of_torch(curriculum: Curriculum, tmp_path: Path) -> None:
    import torch

    if torch.version.cuda:
        pytest.skip("the installed torch is a CUDA build")
    result = curriculum.command("--stage", 1, **fake_gpus(tmp_path / "bin", 2))
    refused(result, "2 GPUs visible", "has no CUDA", "pytorch.org", "CUDA_VISIBLE_DEVICES=''")


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (403, "GatedRepo", ("HF_TOKEN", "accept the terms")),
        pytest.param(
            404, "RepoNotFound", ("SFT_BASE_REVISION", "there is no such repository"), marks=pytest.mark.slow
        ),
    ],
)
def test_a_base_that_the_hub_does_not_give_out(
    curriculum: Curriculum, tmp_path: Path, status: int, code: str, says: tuple[str, ...]
) -> None:
    curriculum.set(1, SFT_BASE_MODEL="somebody/some-model")
    with refusing_hub(status, code) as environ:
        refused(
            curriculum.command("--stage", 1, HF_HOME=str(tmp_path), **environ), "somebody/some-model", *says
        )


def test_a_hub_that_does_not_answer_and_one_that_is_switched_off(
    curriculum: Curriculum, tmp_path: Path
) -> None:
    curriculum.set(1, SFT_BASE_MODEL="somebody/some-model")
    closed = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    no_folder = (
        f"a model folder, but there is none at {curriculum.folder}/somebody/some-model; or a Hub id, but"
    )
    refused(curriculum.command("--stage", 1, **closed), no_folder, "does not answer", "HTTPS_PROXY")
    refused(
        curriculum.command("--stage", 1, HF_HOME=str(tmp_path)),
        f"{no_folder} it is not in the local cache, and HF_HUB_OFFLINE",
        "if a path is meant, correct it: a relative one starts at the working directory",
        "if a Hub id is meant, unset",
    )


@pytest.mark.slow
def test_the_check_asks_the_hub_without_a_download(curriculum: Curriculum, tmp_path: Path) -> None:
    curriculum.set(1, SFT_BASE_MODEL="somebody/some-model")
    with refusing_hub(403, "GatedRepo") as environ:
        result = curriculum.command("--stage", 1, "--check", "--json", HF_HOME=str(tmp_path), **environ)
    assert result.returncode == 2
    assert "accept the terms" in verdicts(result)["base model"]["remedy"]


@pytest.mark.slow
def test_a_flash_attention_that_transformers_itself_trips_over(
    curriculum: Curriculum, tmp_path: Path
) -> None:
    """Built from source into the path, without metadata: transformers imports it to ask for its version."""
    environ = fake_package(tmp_path / "site", "flash_attn", BROKEN_FLASH_ATTENTION, version="")
    explained(curriculum.command("--stage", 1, **environ), curriculum, "flash-attn ABI", "no-build-isolation")
    result = curriculum.command("--stage", 1, "--check", "--json", **environ)
    assert result.returncode == 2
    assert "pip uninstall flash-attn" in verdicts(result)["targets"]["remedy"]


@pytest.mark.slow
def test_a_broken_flash_attention_does_not_stop_a_run(
    new_curriculum: Callable[[Path], Curriculum], tmp_path: Path
) -> None:
    curriculum = new_curriculum(tmp_path / "curriculum")
    environ = fake_package(tmp_path / "site", "flash_attn", BROKEN_FLASH_ATTENTION, version="2.8.3")
    said = curriculum.command.done("--stage", 1, *NO_ANSWERS, **environ)
    assert "attention sdpa (no flash attention" in said


def begun(curriculum: Curriculum, *arguments: object, **options: Any) -> Result:
    """The command under a limit."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with curriculum.command.begun("--stage", 1, *NO_ANSWERS, *arguments, **pipes, **options) as process:
        out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def test_weights_that_this_user_may_not_read(curriculum: Curriculum, tmp_path: Path, tiny_base: Path) -> None:
    """Found while the base is hashed, before there is a stage to put a log into."""
    base = shutil.copytree(tiny_base, tmp_path / "closed")
    (base / "model.safetensors").chmod(0)
    curriculum.set(1, SFT_BASE_MODEL=base)
    result = begun(curriculum, preexec_fn=bound_by_permissions)
    assert result.returncode == 1, result.stdout + result.stderr
    assert result.stderr.startswith(
        "train.py failed: not allowed\n    remedy:   change its owner or permissions"
    )
    assert f"Permission denied: '{base / 'model.safetensors'}'" in result.stderr
    assert result.stderr.endswith("    log:      train_failure.log\n")
    assert "Traceback (most recent call last):" in (curriculum.folder / "train_failure.log").read_text()
    assert curriculum.left_behind() == []


@pytest.mark.slow
def test_too_little_memory(new_curriculum: Callable[[Path], Curriculum], tmp_path: Path) -> None:
    curriculum = new_curriculum(tmp_path / "curriculum")
    limit = limited(resource.RLIMIT_AS, 3 * 2**30)
    result = begun(curriculum, "--set", "SFT_LORA_R=50000", preexec_fn=limit)
    text = explained(
        result,
        curriculum,
        "host memory",
        "SFT_PER_DEVICE_TRAIN_BS=1 with SFT_GRAD_ACCUM=2",
        "SFT_LORA_R=25000",
    )
    assert "DefaultCPUAllocator" in text
    curriculum.train(1, *NO_ANSWERS)
    assert not (curriculum.stage_dir(1) / "failure.log").exists()


@pytest.mark.slow
@pytest.mark.parametrize("zero", [0, 2])
def test_too_little_memory_for_two_processes_is_said_once(
    new_curriculum: Callable[[Path], Curriculum], tmp_path: Path, zero: int
) -> None:
    curriculum = new_curriculum(tmp_path / "curriculum")
    limit = limited(resource.RLIMIT_AS, 4 * 10**9)
    keys = ("--nproc", 2, "--set", f"SFT_ZERO_STAGE={zero}", "--set", "SFT_LORA_R=50000")
    result = begun(curriculum, *keys, preexec_fn=limit)
    rank = re.search(r"failure_rank(\d)\.log", result.stderr)
    assert rank, result.stderr
    explained(result, curriculum, "host memory", "SFT_LORA_R=25000", log=rank[0])
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_a_disk_that_is_full_while_a_checkpoint_is_written(
    new_curriculum: Callable[[Path], Curriculum], tmp_path: Path
) -> None:
    curriculum = new_curriculum(tmp_path / "curriculum")
    curriculum.set(1, SFT_LORA_R=1000)  # 2.7 million weights; the tracking database has 1 MB
    limit = limited(resource.RLIMIT_FSIZE, 5_000_000)
    text = explained(begun(curriculum, preexec_fn=limit), curriculum, "disk full", "SFT_SAVE_TOTAL_LIMIT")
    assert "Error" in text


@pytest.mark.slow
def test_weights_that_were_cut_off(
    new_curriculum: Callable[[Path], Curriculum], tmp_path: Path, tiny_base: Path
) -> None:
    curriculum = new_curriculum(tmp_path / "curriculum")
    base = shutil.copytree(tiny_base, tmp_path / "cut")
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:50_000])
    curriculum.set(1, SFT_BASE_MODEL=base)
    result = curriculum.command("--stage", 1, *NO_ANSWERS)
    explained(result, curriculum, "damaged weights", "fetch it again")


@pytest.mark.slow
def test_the_probe_takes_the_merged_base_where_it_is_built(trained: Curriculum, tmp_path: Path) -> None:
    """And says what is left out where it is not; either way nothing is written."""
    curriculum = trained.copy_to(tmp_path / "curriculum")
    before = curriculum.left_behind()
    result = curriculum.command("--stage", 3, "--check", "--json")
    assert result.returncode == 0, result.stdout + result.stderr
    shutil.rmtree(curriculum.merged_base(3))
    without = curriculum.command("--stage", 3, "--check", "--json")
    assert "the adapters of stage 1, 2 are not merged yet" in verdicts(without)["base"]["found"]
    assert [path for path in before if "stage3_merged_base" not in path] == curriculum.left_behind()
