"""Merging a LoRA adapter into a mixture-of-experts checkpoint: ours against PEFT's `merge_and_unload` and
`save_pretrained`, and against copying the files.

    python -m bench.merge

A Qwen3-MoE of a little over 1 GB in four shards is made up on disk, with an adapter on attention and experts.
Every run is a child process of its own, so that its peak memory can be told; the runs are interleaved, the
numbers medians over the rounds. Time is that of the work: imports are not counted. The copy is the bound: it
reads and writes the same bytes, and is on disk (fsync) at its end, as ours is.
The last line is JSON; `ratio` is PEFT's time over ours.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.timing import load

KINDS = ("peft", "ours", "copy")
SIZES = {
    "vocab_size": 16384,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "moe_intermediate_size": 512,
    "num_hidden_layers": 6,
    "num_experts": 64,
    "num_experts_per_tok": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 64,
}
TARGETS = {
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
}
RANK = 16


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--place", type=Path, help="folder on the disk to measure (default: the system's)")
    parser.add_argument("--run", choices=(*KINDS, "make"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(RUNS[options.run](options.place)))
        return
    with tempfile.TemporaryDirectory(dir=options.place) as name:
        place = Path(name)
        child("make", place)
        runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
        for number in range(options.rounds):
            for kind in KINDS:
                runs[kind].append(child(kind, place))
                print(f"round {number + 1}  {kind:<5} {describe(runs[kind][-1])}", flush=True)
        report(runs, size(place / "base"))


def child(kind: str, place: Path) -> dict[str, float]:
    """Seconds of the work and peak memory of one run in a process of its own."""
    command = [sys.executable, "-m", "bench.merge", "--run", kind, "--place", str(place)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{kind} failed with {process.returncode}")
    return {**json.loads(output.splitlines()[-1]), "peak_bytes": usage.ru_maxrss * 1024}


def make(place: Path) -> dict[str, float]:
    """The checkpoint and the adapter, both random."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    torch.manual_seed(0)
    config = Qwen3MoeConfig(**SIZES, tie_word_embeddings=False)
    torch.set_default_dtype(torch.bfloat16)
    model = Qwen3MoeForCausalLM(config)
    model.save_pretrained(place / "base", max_shard_size="400MB")
    peft_model = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=2 * RANK, **TARGETS))
    with torch.no_grad():
        for name, parameter in peft_model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.01)
    peft_model.save_pretrained(place / "adapter", save_embedding_layers=False)
    os.sync()
    return {}


def peft(place: Path) -> dict[str, float]:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    def work() -> None:
        model = AutoModelForCausalLM.from_pretrained(place / "base", dtype=torch.bfloat16)
        merged = PeftModel.from_pretrained(model, place / "adapter").merge_and_unload()
        merged.save_pretrained(place / "merged_by_peft", max_shard_size="400MB")

    return timed(work)


def ours(place: Path) -> dict[str, float]:
    import lib.model.shard_writer  # noqa: F401  (torch: not counted here, as it is not counted for PEFT)
    from lib.model.merge import obtain_base
    from lib.settings import ModelSettings

    settings = ModelSettings(base_model=str(place / "base"))
    return timed(lambda: obtain_base(settings, [place / "adapter"], place / "merged", key=str(time.time())))


def copy(place: Path) -> dict[str, float]:
    """By the kernel, file after file. Hard links would cost nothing and are no bound for changed weights."""
    from lib.model.shard_writer import copy_file

    target = place / "copied"
    target.mkdir(exist_ok=True)

    def work() -> None:
        for path in sorted((place / "base").iterdir()):
            (target / path.name).unlink(missing_ok=True)
            copy_file(path, target / path.name)

    return timed(work)


RUNS: dict[str, Callable[[Path], dict[str, float]]] = {"make": make, "peft": peft, "ours": ours, "copy": copy}


def timed(work: Callable[[], Any]) -> dict[str, float]:
    os.sync()  # what an earlier run left to write is not this one's
    started, cpu = time.perf_counter(), time.process_time()
    work()
    return {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}


def describe(run: dict[str, float]) -> str:
    memory = run["peak_bytes"] / 1e9
    return f"{run['seconds']:7.2f} s, {run['cpu_seconds']:6.2f} s of a core, peak memory {memory:.2f} GB"


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def report(runs: dict[str, list[dict[str, float]]], model_bytes: int) -> None:
    median = {
        kind: {name: statistics.median(run[name] for run in found) for name in found[0]}
        for kind, found in runs.items()
    }
    ratios = [
        theirs["seconds"] / mine["seconds"] for theirs, mine in zip(runs["peft"], runs["ours"], strict=True)
    ]
    for kind in KINDS:
        print(f"{kind:<6} {describe(median[kind])}")
    result = {
        "bench": "merge",
        "ratio": round(statistics.median(ratios), 2),
        "spread": [round(min(ratios), 2), round(max(ratios), 2)],
        "memory_share": round(median["ours"]["peak_bytes"] / median["peft"]["peak_bytes"], 3),
        "times_copy": round(median["ours"]["seconds"] / median["copy"]["seconds"], 2),
        "required": {"ratio": 4.0, "memory_share": 0.25, "times_copy": 1.5},
        "model_bytes": model_bytes,
        "seconds": {kind: round(median[kind]["seconds"], 2) for kind in KINDS},
        "cpu_seconds": {kind: round(median[kind]["cpu_seconds"], 2) for kind in KINDS},
        "peak_bytes": {kind: int(median[kind]["peak_bytes"]) for kind in KINDS},
        "cores": len(os.sched_getaffinity(0)),
        "load": load(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
