"""Checks of the machine, each provoked."""

import json
import sqlite3
import sys
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from lib.preflight import machine, store
from lib.preflight.check import preflight
from lib.preflight.machine import attention, built_for_cuda, deepspeed, disk, memory, number_type, torch_build
from lib.preflight.store import tracking_server, tracking_store
from lib.preflight.subject import Subject
from lib.preflight.text import context_length
from lib.preflight.verdict import Verdict
from lib.settings import InputError
from lib.training.sizing.devices import DeviceMemory
from lib.training.sizing.world import World

MakeSubject = Callable[..., Subject]


def only(verdicts: Any) -> Verdict:
    (verdict,) = verdicts
    return verdict


def test_a_gpu_needs_the_cuda_build(subject: MakeSubject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "built_for_cuda", lambda: "")
    assert only(torch_build(subject())).state == "ok"
    found = only(torch_build(subject(World(2, 2))))
    assert found.state == "failed"
    assert "2 GPUs visible" in found.found
    assert "CUDA_VISIBLE_DEVICES=''" in found.remedy
    monkeypatch.setattr(machine, "built_for_cuda", lambda: "12.8")
    assert "for CUDA 12.8" in only(torch_build(subject(World(2, 2)))).found


def test_the_build_is_read_from_torchs_own_file() -> None:
    import torch

    assert built_for_cuda() == (torch.version.cuda or "")


@pytest.mark.parametrize(("processes", "right"), [(1, 16), (2, 32), (4, 64)])
def test_the_users_deepspeed_json_against_so_many_processes(
    subject: MakeSubject, tmp_path: Path, processes: int, right: int
) -> None:
    own = tmp_path / "own.json"
    own.write_text(json.dumps({"train_batch_size": 64}))
    found = only(deepspeed(subject(World(processes, 0), SFT_DEEPSPEED_CONFIG=own)))
    assert found.state == ("ok" if right == 64 else "failed")
    if right != 64:
        assert f'"auto" or {right} ' in found.found
        assert "for another number of processes" in found.found
        assert found.remedy == 'write "train_batch_size": "auto"'


def test_the_numbers_are_shown_with_their_arithmetic(subject: MakeSubject, tmp_path: Path) -> None:
    own = tmp_path / "own.json"
    own.write_text(
        json.dumps({"train_batch_size": 64, "gradient_clipping": 9, "zero_optimization": {"stage": 3}})
    )
    keys = {"SFT_PER_DEVICE_TRAIN_BS": 2, "SFT_GRAD_ACCUM": 4, "SFT_DEEPSPEED_CONFIG": own}
    batch, clipping, stage = deepspeed(subject(World(2, 0), **keys))
    assert "16 (2 rows x 4 passes x 2 processes)" in batch.found
    assert "1.0 (SFT_MAX_GRAD_NORM)" in clipping.found
    assert not [found for found in (clipping, stage) if "number of processes" in found.found]
    own.write_text(json.dumps({"zero_optimization": 2}))
    assert "expected an object" in only(deepspeed(subject(World(2, 0), **keys))).found


def test_a_deepspeed_json_that_one_process_does_not_use(subject: MakeSubject, tmp_path: Path) -> None:
    own = tmp_path / "own.json"
    own.write_text("{}")
    assert only(deepspeed(subject(SFT_DEEPSPEED_CONFIG=own))).state == "warning"
    assert only(deepspeed(subject())).state == "ok"


@pytest.mark.parametrize(("gigabytes", "state"), [(2.0, "ok"), (1.0, "warning"), (0.5, "failed")])
def test_memory_against_what_is_there(subject: MakeSubject, gigabytes: float, state: str) -> None:
    """About 0.8 GB are needed; usable is half of what there is."""
    there = DeviceMemory(int(gigabytes * 5e8), "half of this machine", int(gigabytes * 1e9))
    found = only(memory(replace(subject(SFT_LORA_R=64, SFT_MAX_SEQ_LEN=2048), device=there)))
    assert found.state == state
    if state != "ok":
        assert (
            "SFT_PER_DEVICE_TRAIN_BS=1 with SFT_GRAD_ACCUM=16 (the same batch in more passes)" in found.remedy
        )
        assert "SFT_MAX_SEQ_LEN=1024" in found.remedy
        assert "all of these" in found.remedy


def test_memory_of_a_family_that_is_not_known(subject: MakeSubject, curriculum: Any) -> None:
    (curriculum.base / "config.json").write_text('{"model_type": "unheard_of"}')
    assert "not known" in only(memory(subject())).found
    assert "not estimated" in only(disk(subject())).found


def test_nothing_is_said_of_a_base_that_is_not_here(subject: MakeSubject) -> None:
    absent = replace(subject(), base=None, architecture=None)
    for check in (memory, disk, context_length):
        assert only(check(absent)).state == "warning"
        assert "the base is not on this machine" in only(check(absent)).found


def test_a_disk_that_is_too_small(subject: MakeSubject, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    assert only(disk(subject())).state == "ok"
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda folder: usage(10**6, 10**6, 1000))
    found = only(disk(subject()))
    assert found.state == "failed"
    assert "1.0 kB free" in found.found
    assert "SFT_MERGE_MODE=stack" in found.remedy


def test_bf16_that_is_only_emulated(
    subject: MakeSubject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert only(number_type(subject())).state == "ok"
    flags = tmp_path / "cpuinfo"
    monkeypatch.setattr(machine, "CPU_FLAGS", flags)
    flags.write_text("flags : fpu avx2\n")
    found = only(number_type(subject(SFT_DTYPE="bf16")))
    assert (found.state, "emulates" in found.found) == ("warning", True)
    flags.write_text("flags : fpu avx512_bf16\n")
    assert only(number_type(subject(SFT_DTYPE="bf16"))).state == "ok"


BROKEN = (
    'raise ImportError("/venv/flash_attn_2_cuda.cpython-311-x86_64-linux-gnu.so: undefined symbol: '
    '_ZN3c105ErrorC2ENS_14SourceLocationE")\n'
)


@pytest.fixture
def flash_attn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """flash_attn(code): a package of that name with this code."""

    def install(code: str) -> None:
        (tmp_path / "site/flash_attn").mkdir(parents=True)
        (tmp_path / "site/flash_attn/__init__.py").write_text(code)
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        monkeypatch.delitem(sys.modules, "flash_attn", raising=False)

    return install


def test_a_flash_attention_of_another_torch(subject: MakeSubject, flash_attn: Callable[[str], None]) -> None:
    flash_attn(BROKEN)
    fault, chosen = attention(subject())
    assert fault.state == "warning"
    assert "built for another torch, CUDA or C++ ABI" in fault.found
    assert "--no-build-isolation" in fault.remedy
    assert chosen.found.startswith("sdpa (no flash attention")
    with pytest.raises(InputError, match="there is no CUDA device"):
        list(attention(subject(SFT_ATTENTION="flash_attention_2")))


def test_a_flash_attention_that_loads(subject: MakeSubject, flash_attn: Callable[[str], None]) -> None:
    flash_attn("")
    assert only(attention(subject())).state == "ok"


def store_found(subject: MakeSubject, uri: object) -> Verdict:
    made = subject(MLFLOW_TRACKING_URI=uri)
    return only([*tracking_store(made), *tracking_server(made)])


def test_a_store_that_can_be_written(subject: MakeSubject, tmp_path: Path) -> None:
    path = tmp_path / "new/folder/mlflow.db"
    assert store_found(subject, f"sqlite:///{path}").state == "ok"
    assert not path.parent.exists()
    path = tmp_path / "mlflow.db"
    sqlite3.connect(path).execute("create table runs (id)").connection.close()
    assert store_found(subject, f"sqlite:///{path}").state == "ok"
    assert [*tmp_path.glob("mlflow.db*")] == [path]


def test_a_store_that_is_locked_or_no_database(
    subject: MakeSubject, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(store, "LOCK_SECONDS", 0.05)
    path = tmp_path / "mlflow.db"
    with sqlite3.connect(path, isolation_level=None) as writer:
        writer.execute("create table runs (id)")
        writer.execute("BEGIN IMMEDIATE")
        found = store_found(subject, f"sqlite:///{path}")
        writer.execute("ROLLBACK")
    assert (found.state, "locked" in found.found) == ("warning", True)
    path.write_text("no database, and longer than the header of one would be: " * 20)
    assert "not a database" in store_found(subject, f"sqlite:///{path}").found
    (tmp_path / "file").write_text("")
    assert "cannot be written" in store_found(subject, f"sqlite:///{tmp_path}/file/mlflow.db").found


def test_a_store_of_plain_files(subject: MakeSubject) -> None:
    assert "plain files" in store_found(subject, "file:./mlruns").found


def test_a_server_that_answers_and_one_that_does_not(subject: MakeSubject) -> None:
    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 500)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Health)
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"127.0.0.1:{server.server_address[1]}"
    assert store_found(subject, f"http://{address}").state == "ok"
    server.shutdown()
    server.server_close()
    found = store_found(subject, f"http://somebody:secret@{address}")
    assert found.state == "warning"
    assert "secret" not in found.found


def test_a_run_begins_with_these_checks_and_says_all_at_once(
    subject: MakeSubject, curriculum: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own.json"
    own.write_text(json.dumps({"train_batch_size": 64, "gradient_accumulation_steps": 3}))
    stage = subject(SFT_DEEPSPEED_CONFIG=own, MLFLOW_TRACKING_URI="file:./mlruns").stage
    monkeypatch.setattr(machine, "existing_folder", lambda folder: Path("/"))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda folder: usage(1, 1, 0))
    with pytest.raises(InputError) as caught:
        preflight(stage, World(1, 0))
    assert [problem.key for problem in caught.value.problems] == [
        "gradient_accumulation_steps", "train_batch_size", "SFT_OUT_LORA_DIR",
    ]  # fmt: skip
    monkeypatch.undo()
    own.write_text("{}")
    notices = preflight(stage, World(1, 0))
    assert [notice.split(":")[0] for notice in notices] == [
        "[WARNING] DeepSpeed", "[WARNING] MLflow", "[WARNING] context length",
    ]  # fmt: skip
