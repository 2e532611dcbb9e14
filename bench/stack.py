"""A training step over a base with two earlier stages: their adapters beside the weights
(SFT_MERGE_MODE=stack) against merged into them (merge).

    python -m bench.stack
    python -m bench.stack --intermediate 192 --rounds 15

A random Qwen3-MoE and two adapters of rank 16 on attention and experts are made up on disk; both bases are
obtained as a stage obtains them, and each gets a new adapter of rank 16. Forward and backward, interleaved in
one process on the same tokens, medians over rounds after two to warm up. The merged base is the bound: it
multiplies with the weights alone. The last line is JSON; `ratio` is the time of merge over that of stack.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in training, read when torch is loaded

import torch
from peft import LoraConfig, get_peft_model
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from bench.timing import load
from lib.model.adapter import attach_lora
from lib.model.base import ComputeChoice
from lib.model.stage_base import load_stage_base, obtain_stage_base
from lib.model.targets import find_targets
from lib.settings import LoraSettings, StageSettings, load_stage
from lib.training.quiet import quiet_libraries

MODES = ("merge", "stack")
RANK, STAGES = 16, 2
TIMES_MERGE_ALLOWED = 1.10


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--intermediate", type=int, default=256, help="width of an expert")
    parser.add_argument("--tokens", type=int, default=2048, help="in four rows")
    parser.add_argument("--dropout", type=float, default=LoraSettings().dropout)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    quiet_libraries()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        make(place, options)
        models = {mode: trainable(place, mode, options.dropout) for mode in MODES}
        report(measure(models, options), options)


def make(place: Path, options: argparse.Namespace) -> None:
    """The base in bf16, and the adapters of the earlier stages; all of it random."""
    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=8192,
        hidden_size=512,
        moe_intermediate_size=options.intermediate,
        num_hidden_layers=options.layers,
        num_experts=64,
        num_experts_per_tok=8,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=64,
    )
    model = Qwen3MoeForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(place / "base")
    targets = find_targets(model, LoraSettings().target_modules)
    lora = LoraConfig(
        r=RANK,
        lora_alpha=2 * RANK,
        target_modules=list(targets.modules),
        target_parameters=list(targets.parameters),
    )
    adapted = get_peft_model(model, lora)
    for stage in range(1, STAGES + 1):
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.data.normal_(std=0.01)
        adapted.save_pretrained(place / f"lora_stage{stage}", save_embedding_layers=False)


def trainable(place: Path, mode: str, dropout: float) -> Any:
    """The model of the next stage, its new adapter attached."""
    settings = stage_settings(place, mode)
    adapters = [place / f"lora_stage{stage}" for stage in range(1, STAGES + 1)]
    base = obtain_stage_base(
        settings.model, adapters, settings.merged_base_dir, key=mode, mode=settings.model.merge_mode
    )
    compute = ComputeChoice(torch.float32, "sdpa", "")
    model, _ = load_stage_base(base, settings.model, compute, on_gpu=False)
    lora = LoraSettings(rank=RANK, alpha=2 * RANK, dropout=dropout)
    adapted, census = attach_lora(model, find_targets(model, lora.target_modules), lora, seed=1)
    assert not census.notices
    return adapted.train()


def stage_settings(place: Path, mode: str) -> StageSettings:
    values = {
        "SFT_BASE_MODEL": place / "base",
        "SFT_OUT_LORA_DIR": place / "lora",
        "SFT_DATASET_ID": "none",
        "SFT_MERGE_MODE": mode,
    }
    (place / f"stage{STAGES + 1}.env").write_text(
        "".join(f"{key}={value}\n" for key, value in values.items())
    )
    return load_stage(place, STAGES + 1, environ={})


def measure(models: dict[str, Any], options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of every round; who begins changes from round to round."""
    seconds: dict[str, list[float]] = {mode: [] for mode in MODES}
    for number in range(options.rounds + 2):
        ids = torch.randint(8192, (4, options.tokens // 4), generator=torch.Generator().manual_seed(number))
        for mode in MODES[:: 1 if number % 2 else -1]:
            taken = step(models[mode], ids)
            if number >= 2:
                seconds[mode].append(taken)
    return seconds


def step(model: Any, ids: torch.Tensor) -> float:
    model.zero_grad()
    started = time.perf_counter()
    model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    return time.perf_counter() - started


def report(seconds: dict[str, list[float]], options: argparse.Namespace) -> None:
    ratios = [merge / stack for merge, stack in zip(seconds["merge"], seconds["stack"], strict=True)]
    times_merge = [1 / ratio for ratio in ratios]
    result = {
        "bench": "stack",
        "ratio": round(statistics.median(ratios), 3),
        "spread": [round(min(ratios), 3), round(max(ratios), 3)],
        "times_merge": round(statistics.median(times_merge), 3),
        "times_merge_spread": [round(min(times_merge), 3), round(max(times_merge), 3)],
        "required": {"times_merge": TIMES_MERGE_ALLOWED},
        "seconds": {mode: round(statistics.median(seconds[mode]), 4) for mode in MODES},
        "sizes": {
            "experts": 64,
            "hidden": 512,
            "intermediate": options.intermediate,
            "layers": options.layers,
            "tokens": options.tokens,
            "rank": RANK,
            "earlier_stages": STAGES,
            "dropout": options.dropout,
        },
        "rounds": options.rounds,
        "threads": torch.get_num_threads(),
        "load": load(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
