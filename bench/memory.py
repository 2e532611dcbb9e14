"""The memory estimate against what training really takes, through the real command.

    python -m bench.memory
    python -m bench.memory --settings "dense" "moe, checkpointing"

Random models and rows of one length are written to a temporary folder; every setting is trained for two steps
by `train.py` in a process of its own, whose highest resident memory the stage record holds. The last line is
JSON: `ratio` is the estimate of the worst setting over what was measured.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.timing import load

ROOT = Path(__file__).resolve().parents[1]
TOKENIZER = ROOT / "assets/tiny-moe"
BOUND = 0.15
STEPS = 2


@dataclass(frozen=True)
class Setting:
    """A model and how it is trained: sizes of a Qwen3 model, rows per pass, tokens per row."""

    experts: int
    hidden: int
    intermediate: int
    layers: int
    rows: int
    length: int
    rank: int = 16
    checkpointing: bool = False
    dropout: float = 0.05
    processes: int = 1
    zero_stage: int = 2


SETTINGS = {
    "dense": Setting(0, 512, 1536, 6, 2, 512),
    "dense, long rows": Setting(0, 512, 1536, 4, 1, 1024, dropout=0.0),
    "dense, checkpointing": Setting(0, 512, 1536, 8, 4, 512, checkpointing=True),
    "moe": Setting(16, 512, 256, 6, 4, 384),
    "moe, rank 64": Setting(16, 512, 256, 4, 2, 256, rank=64),
    "moe, checkpointing": Setting(16, 512, 256, 8, 4, 512, checkpointing=True),
    "moe, 2 ranks ZeRO-2": Setting(16, 512, 256, 4, 2, 256, processes=2),
    "moe, 2 ranks plain": Setting(16, 512, 256, 4, 2, 256, processes=2, zero_stage=0),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS), choices=list(SETTINGS))
    options = parser.parse_args()
    results = {}
    for name in options.settings:
        with tempfile.TemporaryDirectory() as folder:
            results[name] = measured(name, SETTINGS[name], Path(folder))
        print(f"{name:<24} {json.dumps(results[name])}", flush=True)
    report(results)


def measured(name: str, setting: Setting, folder: Path) -> dict[str, Any]:
    """Bytes estimated by the plan and bytes that the run took."""
    make_model(setting, folder / "base")
    make_rows(setting, folder / "rows.jsonl")
    make_stage(setting, folder)
    (plan,) = json.loads(train(folder, "--plan", "--json", "--nproc", setting.processes))
    train(folder, "--nproc", setting.processes)
    record = json.loads((folder / "out_stage1/stage.json").read_text())
    estimated, peak = plan["estimates"]["memory"]["value"], record["training"]["peak_memory_bytes"]
    return {
        "estimated_gb": round(estimated / 1e9, 2),
        "measured_gb": round(peak / 1e9, 2),
        "error": round(estimated / peak - 1, 3),
        "arithmetic": plan["estimates"]["memory"]["arithmetic"],
        "seconds": round(record["training"]["seconds"], 1),
    }


def make_model(setting: Setting, folder: Path) -> None:
    import torch
    import transformers

    sizes = {
        "vocab_size": json.loads((TOKENIZER / "config.json").read_text())["vocab_size"],
        "hidden_size": setting.hidden,
        "intermediate_size": setting.intermediate,
        "num_hidden_layers": setting.layers,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
    }
    experts = {
        "num_experts": setting.experts,
        "num_experts_per_tok": 4,
        "moe_intermediate_size": setting.intermediate,
    }
    family = "Qwen3Moe" if setting.experts else "Qwen3"
    config = getattr(transformers, f"{family}Config")(**sizes, **(experts if setting.experts else {}))
    torch.manual_seed(0)
    getattr(transformers, f"{family}ForCausalLM")(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(TOKENIZER / name, folder / name)


def make_rows(setting: Setting, path: Path) -> None:
    """Prompts far longer than a row may be: each is cut to the full length."""
    count = STEPS * setting.rows * setting.processes
    rows = [
        {"prompt": f"{number} " + "word and word " * setting.length, "completion": "an answer " * 20}
        for number in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def make_stage(setting: Setting, folder: Path) -> None:
    keys = {
        "SFT_STRICT": 1,
        "SFT_BASE_MODEL": folder / "base",
        "SFT_OUT_LORA_DIR": folder / "out",
        "SFT_DATASET_ID": folder / "rows.jsonl",
        "SFT_VAL_RATIO": 0,
        "SFT_MAX_SEQ_LEN": setting.length,
        "SFT_LORA_R": setting.rank,
        "SFT_LORA_DROPOUT": setting.dropout,
        "SFT_PER_DEVICE_TRAIN_BS": setting.rows,
        "SFT_GRAD_ACCUM": 1,
        "SFT_MAX_STEPS": STEPS,
        "SFT_SAVE_STEPS": 100,
        "SFT_GEN_EVAL_SAMPLES": 0,
        "SFT_GRADIENT_CHECKPOINTING": int(setting.checkpointing),
        "SFT_ZERO_STAGE": setting.zero_stage,
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
    }
    (folder / "stages").mkdir()
    (folder / "stages/stage1.env").write_text("".join(f"{key}={value}\n" for key, value in keys.items()))


def train(folder: Path, *arguments: object) -> str:
    command = [sys.executable, ROOT / "train.py", "--stages-dir", folder / "stages", "--stage", 1, *arguments]
    environ = {key: value for key, value in os.environ.items() if not key.startswith("SFT_")}
    done = subprocess.run(
        [str(part) for part in command], env=environ, cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{done.stdout}\n{done.stderr}")
    return done.stdout


def report(results: dict[str, dict[str, Any]]) -> None:
    worst = max(results.values(), key=lambda result: abs(result["error"]))
    line = {
        "bench": "memory",
        "ratio": round(1 + worst["error"], 3),
        "bound": [1 - BOUND, 1 + BOUND],
        "spread": sorted(result["error"] for result in results.values()),
        "settings": results,
        "load": load(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
