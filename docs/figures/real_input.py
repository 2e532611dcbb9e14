"""Runs the user's three stage files, unchanged, on real rows; then one stage with the real Qwen3 tokenizer.

    python docs/figures/real_input.py ../shared/data [--steps 10 40 40]

Everything but the base model, the output folder and the data set ids comes from the stage files; they are
overridden from the environment, as the contract allows. Stage 1's own 100 steps of 256 rows are 24 million
tokens, hours on two cores; `--steps` caps SFT_MAX_STEPS of each stage. The run with the real tokenizer is
always short.
Writes docs/figures/real_input.png and prints a table for docs/log.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FIGURE = ROOT / "docs" / "figures" / "real_input.png"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "data", type=Path, help="the folder with structeval_sft, stage_files, tokenizer_qwen3, …"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("/tmp/real_input"), help="where models and stages go"
    )
    parser.add_argument(
        "--steps",
        type=int,
        nargs=3,
        default=(0, 0, 0),
        help="SFT_MAX_STEPS of each stage; 0: its own",
    )
    options = parser.parse_args()
    data, work = options.data.resolve(), options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    mixtral = run_user_files(data, work, options.steps)
    qwen = run_real_tokenizer(data, work)
    draw([*mixtral, qwen])
    print_table([*mixtral, qwen])


def run_user_files(data: Path, work: Path, steps: Sequence[int]) -> list[dict[str, Any]]:
    """Stages 1 to 3 of the user's files on the tiny Mixtral."""
    rows = str(data / "structeval_sft")
    toml = subset(data, work / "additional_toml.jsonl", lambda meta: meta["format"] == "toml")
    hard = subset(data, work / "hard_cases.jsonl", lambda meta: meta["complexity"] == "complex")
    sources = {
        1: {"SFT_DATASET_ID": rows},
        2: {"SFT_DATASET_MIX": mix((rows, 1.0), (toml, 2.0))},
        3: {"SFT_DATASET_MIX": mix((rows, 1.0), (hard, 1.5))},
    }
    output = work / "mixtral"
    for stage, overrides in sources.items():
        environment = {
            "SFT_BASE_MODEL": str(data / "tiny_mixtral_stories260k"),
            "SFT_OUT_LORA_DIR": str(output),
            "SFT_GEN_EVAL_SAMPLES": "0",  # a model of 0.3 M parameters answers nothing
            **({"SFT_MAX_STEPS": str(steps[stage - 1])} if steps[stage - 1] else {}),
            **overrides,
        }
        train(stage, data / "stage_files", environment)
    return [labelled(f"user's stage {n}, tiny Mixtral", Path(f"{output}_stage{n}")) for n in sources]


def run_real_tokenizer(data: Path, work: Path) -> dict[str, Any]:
    """Stage 1 on a Qwen3-MoE of random weights with the real Qwen3 tokenizer."""
    base, output = work / "qwen3_moe", work / "qwen"
    make_qwen3_moe(data / "tokenizer_qwen3", base)
    environment = {
        "SFT_BASE_MODEL": str(base),
        "SFT_OUT_LORA_DIR": str(output),
        "SFT_DATASET_ID": str(data / "structeval_sft"),
        "SFT_MAX_STEPS": "30",
        "SFT_GRAD_ACCUM": "1",
        "SFT_PER_DEVICE_TRAIN_BS": "8",
        "SFT_LR": "1e-3",
        "SFT_GEN_EVAL_SAMPLES": "0",
    }
    train(1, data / "stage_files", environment)
    return labelled("stage 1, random Qwen3-MoE, real tokenizer", Path(f"{output}_stage1"))


def make_qwen3_moe(tokenizer_folder: Path, folder: Path) -> None:
    """A Qwen3-MoE of 21 M parameters (most of them the embedding of 151,936 entries), seeded."""
    import torch
    from transformers import AutoTokenizer, Qwen3MoeConfig, Qwen3MoeForCausalLM

    if (folder / "config.json").exists():
        return
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    config = Qwen3MoeConfig(
        vocab_size=151936, hidden_size=128, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
        head_dim=32, num_experts=8, num_experts_per_tok=2, moe_intermediate_size=96, intermediate_size=256,
        tie_word_embeddings=True, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    Qwen3MoeForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def subset(data: Path, target: Path, keeps: Callable[[dict[str, Any]], bool]) -> str:
    """Rows of structeval_sft whose metadata passes, as a file of their own."""
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(data / "structeval_sft" / "train.parquet")
    kept = [row for row in table.to_pylist() if keeps(row["metadata"])]
    target.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept), encoding="utf-8")
    return str(target)


def mix(*entries: tuple[str, float]) -> str:
    return json.dumps([{"id": name, "weight": weight} for name, weight in entries])


def train(stage: int, stages_dir: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "train.py", "--stage", str(stage), "--stages-dir", str(stages_dir)]
    load = os.getloadavg()
    print(f"stage {stage}: load {load[0]:.1f} {load[1]:.1f}", flush=True)
    subprocess.run(command, cwd=ROOT, env=os.environ | environment, check=True)


def labelled(name: str, folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "stage.json").read_text(encoding="utf-8"))
    return {"name": name, **record}


def curve(record: dict[str, Any], metric: str) -> tuple[list[float], list[float]]:
    points = [(entry["step"], entry[metric]) for entry in record["training"]["history"] if metric in entry]
    return [step for step, _ in points], [value for _, value in points]


def draw(records: Iterable[dict[str, Any]]) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 4, figsize=(16, 3.6), layout="constrained")
    for axis, record in zip(axes, records, strict=True):
        axis.plot(*curve(record, "loss"), label="loss", linewidth=1.5)
        axis.plot(*curve(record, "eval_loss"), "o-", label="eval_loss", markersize=4)
        axis.set_title(record["name"], fontsize=10)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    axes[0].set_ylabel("nats per learned token")
    figure.savefig(FIGURE, dpi=90)


def print_table(records: Iterable[dict[str, Any]]) -> None:
    print("| run | steps | tokens | seconds | tokens/s | peak memory | loss first → last | eval_loss |")
    print("|---|---|---|---|---|---|---|---|")
    for record in records:
        training = record["training"]
        losses = curve(record, "loss")[1]
        final = training["final_eval"].get("eval_loss", float("nan"))
        memory = f"{training['peak_memory_bytes'] / 1e9:.2f} GB"
        cells = [
            record["name"],
            training["steps"],
            f"{training['tokens']:,}",
            f"{training['seconds']:.0f}",
            f"{training['tokens_per_second']:,.0f}",
            memory,
            f"{losses[0]:.3f} → {losses[-1]:.3f}",
            f"{final:.3f}",
        ]
        print("| " + " | ".join(map(str, cells)) + " |")


if __name__ == "__main__":
    main()
