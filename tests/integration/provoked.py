"""Surroundings in which a run fails in a known way: packages, drivers, limits, a Hub that refuses."""

import ctypes
import json
import os
import re
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

# What flash-attn says that was built for another torch (the user's log; axolotl#3142).
BROKEN_FLASH_ATTENTION = (
    "raise ImportError('/venv/site-packages/flash_attn_2_cuda.cpython-311-x86_64-linux-gnu.so: "
    "undefined symbol: _ZN3c105ErrorC2ENS_14SourceLocationENSt7__cxx1112basic_stringIcSt11char_traitsIcE')\n"
)
# The user's configuration of Axolotl, as far as the failures are about it.
USERS_AXOLOTL = """
base_model: Qwen/Qwen3-30B-A3B-Instruct-2507
chat_template: qwen3_instruct
datasets:
  - path: train.jsonl
    type: chat_template
plugins:
  - src.callbacks.GenerationEvalCallback
deepspeed: deepspeed_configs/zero2.json
flash_attention: true
adapter: lora
lora_r: 8
lora_alpha: 16
lora_target_linear: true
sequence_len: 1536
micro_batch_size: 2
gradient_accumulation_steps: 8
num_epochs: 1
learning_rate: 0.0001
output_dir: out
"""


def fake_package(folder: Path, name: str, code: str, *, version: str) -> dict[str, str]:
    """The environment in which `import name` runs this code; with a version it has the metadata of pip."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(code)
    if version:
        information = folder / f"{name}-{version}.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return {"PYTHONPATH": str(folder)}


def fake_gpus(folder: Path, count: int) -> dict[str, str]:
    """The environment of a machine whose driver lists so many GPUs of 80 GB."""
    folder.mkdir(parents=True)
    listed = "".join(f"GPU {i}: NVIDIA H100 (UUID: GPU-{i})\n" for i in range(count))
    sizes = "81559\n" * count
    tool = folder / "nvidia-smi"
    answers = f"then cat <<END\n{listed}END\nelse cat <<END\n{sizes}END\nfi\n"
    tool.write_text(f'#!/bin/sh\nif [ "$1" = "-L" ]; {answers}')
    tool.chmod(0o755)
    visible = ",".join(map(str, range(count)))
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES": visible}


def limited(which: int, count: int) -> Callable[[], None]:
    """For a process about to start: RLIMIT_AS (memory) or RLIMIT_FSIZE (the largest file), in bytes."""
    return lambda: resource.setrlimit(which, (count, count))


@contextmanager
def refusing_hub(status: int, code: str) -> Iterator[dict[str, str]]:
    """The environment of a Hub that answers everything with this status and error code."""

    class Refusal(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", f"{code}: ask the owner")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD  # noqa: N815 (http.server chooses the names)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Refusal)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_address[1]}"
        yield {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0"}
    finally:
        server.shutdown()
        server.server_close()


def deepspeed_json(folder: Path, **keys: object) -> Path:
    path = folder / "deepspeed.json"
    path.write_text(json.dumps(keys))
    return path


def bound_by_permissions() -> None:
    """For a process about to start: root, too, then reads and writes only what a file's mode allows."""
    drop, read_and_write, read = 24, 1, 2  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in (read_and_write, read):
        if os.geteuid() == 0 and libc.prctl(drop, capability, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")


def explained(said: str, name: str) -> None:
    """The remedy first and once, no traceback on the screen."""
    assert len(re.findall(rf"failed: {name}\n    remedy:", said)) == 1, said
    assert "Traceback" not in said
