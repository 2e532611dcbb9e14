"""The first stage of the embedded curriculum over 100 steps of one row, by code that every processor takes.

What picks its code by the processor is told which to take: torch's own kernels, MKL, oneDNN. docs/log.md says
which of them matter, as far as one machine can show it.
"""

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TORCH = version("torch").partition("+")[0]
GOLDEN = Path(__file__).parent / f"torch-{TORCH}.json"
STEPS = 100
SETTINGS = {
    "SFT_MAX_STEPS": str(STEPS),
    "SFT_PER_DEVICE_TRAIN_BS": "1",
    "SFT_GRAD_ACCUM": "1",
    "SFT_LOGGING_STEPS": "1",
    "SFT_SAVE_STEPS": str(STEPS),
    "SFT_VAL_RATIO": "0",
    "SFT_GEN_EVAL_DATASET_ID": "",
    "SFT_GEN_EVAL_SAMPLES": "0",
    "SFT_GEN_EVAL_BEFORE": "0",
    # Nobody listens there: making a database would take as long as the training.
    "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
}
CODE_PATHS = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OMP_NUM_THREADS": "1",
}
NOT_PASSED_ON = (
    "SFT_",
    "MLFLOW_",
    "HF_",
    "RANK",
    "WORLD_SIZE",
    "LOCAL_",
    "MASTER_",
    "PYTEST_",
    "MKL_",
    "OMP_",
)
LIMIT_SECONDS = 600


def trained(output: Path, **others: str) -> dict[str, Any]:
    """The record of a run of the real command that writes to `output`; `others` on top of its environment."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(NOT_PASSED_ON)}
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    own = {**offline, **SETTINGS, **CODE_PATHS, "SFT_OUT_LORA_DIR": str(output / "golden"), **others}
    done = subprocess.run(
        [sys.executable, "train.py", "--stage", "1"],
        cwd=ROOT,
        env={**kept, **own},
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((output / "golden_stage1" / "stage.json").read_text(encoding="utf-8"))


def curve(record: dict[str, Any]) -> dict[str, Any]:
    """What is compared: every bit of the losses and gradient norms, and the adapter."""
    steps = [entry for entry in record["training"]["history"] if "loss" in entry]
    return {
        "losses": [entry["loss"].hex() for entry in steps],
        "grad_norms": [entry["grad_norm"].hex() for entry in steps],
        "adapter_sha256": record["adapter_sha256"],
    }


def processor() -> str:
    """Its maker, and the widest vectors that it has: `GenuineIntel avx512f`."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").is_file() else ""
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    facts = {name.strip(): value.split() for name, value in lines.items()}
    widest = next((isa for isa in ("avx512f", "avx2", "avx") if isa in facts.get("flags", [])), "sse")
    return f"{' '.join(facts.get('vendor_id', ['unknown']))} {widest}"


def golden_file(kind: str) -> Path:
    """That of this kind of processor where it has one of its own, else the one for all."""
    own = GOLDEN.with_name(f"{GOLDEN.stem}-{kind.replace(' ', '-')}.json")
    return own if own.is_file() else GOLDEN


def comparable() -> str:
    """Why this machine cannot be compared; empty where it can."""
    if platform.machine() != "x86_64" or platform.libc_ver()[0] != "glibc":
        return f"the golden curve is of x86-64 with glibc, not of {platform.machine()}"
    if not GOLDEN.is_file():
        return f"no golden curve of torch {TORCH}: python tests/golden/record.py makes one"
    return ""
