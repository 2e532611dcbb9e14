"""One block of experts under LoRA, forward and backward: ours against PEFT over grouped products.

    python -m bench.expert_lora
    python -m bench.expert_lora --fresh --rounds 5     another routing every round, nothing compiled before

Interleaved in one process on the same routing, medians over rounds after one to warm up; peak memory in a
child process each. The bound is the frozen block alone, without adapter. The last line is JSON; `ratio` is
PEFT's time over ours in the first case with random routing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in training, read when torch is loaded

import torch
from peft import LoraConfig
from peft.tuners.lora.layer import ParamWrapper
from transformers import Qwen3MoeConfig
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeExperts

from bench.timing import load, seconds_of
from lib.model.expert_lora.plug_in import IMPLEMENTATION, SplitForward, split_experts_forward
from lib.training.sizing.peak_memory import resident_bytes

PEERS = ("frozen base", "peft", "ours")


@dataclass(frozen=True)
class Case:
    experts: int
    hidden: int
    intermediate: int
    choices: int
    rank: int
    tokens: int
    dtype: str
    required: float


CASES = {
    "E=128 fp32": Case(128, 512, 192, 8, 16, 1024, "float32", 2.8),
    "Qwen3-30B-A3B bf16": Case(128, 2048, 768, 8, 8, 512, "bfloat16", 4.5),
    "E=64 bf16": Case(64, 512, 256, 8, 16, 2048, "bfloat16", 1.4),
}
HEADLINE = "E=128 fp32"
BOUND_REQUIRED, MEMORY_REQUIRED = 1.15, 1 / 3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--fresh", action="store_true", help="another routing every round")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = {}
    for name in options.cases:
        block = Bench(CASES[name])
        for skewed in (False, True):
            key = f"{name}, {'skewed' if skewed else 'random'}"
            results[key] = compared(block.measure(options.rounds, skewed=skewed, fresh=options.fresh), key)
        del block
    memory = {peer: peak_memory(peer) for peer in PEERS}
    report(results, memory, options)


class Bench:
    """The block of a case and the three ways to compute it."""

    def __init__(self, case: Case, device: str = "cpu") -> None:
        ALL_EXPERTS_FUNCTIONS.register(IMPLEMENTATION, split_experts_forward)
        self.case, self.device = case, torch.device(device)
        self.dtype = getattr(torch, case.dtype)
        torch.manual_seed(0)
        self.wrapped = wrapped_experts(case, self.dtype, self.device)
        self.experts = self.wrapped.get_base_layer()
        self.hidden = torch.randn(case.tokens, case.hidden).to(self.device, self.dtype)
        self.gradient = torch.randn(case.tokens, case.hidden).to(self.device, self.dtype)
        self.split = SplitForward(self.wrapped)

    def runs(self) -> dict[str, Callable[..., torch.Tensor]]:
        return dict(zip(PEERS, (self.experts, self.wrapped, self.split), strict=True))

    def step(self, peer: str, routing: tuple[torch.Tensor, torch.Tensor]) -> float:
        """Seconds of one forward and backward."""
        self.experts.config._experts_implementation = IMPLEMENTATION if peer == "ours" else "grouped_mm"
        hidden = self.hidden.clone().requires_grad_()
        chosen, weights = routing[0].to(self.device), routing[1].to(self.device, self.dtype).requires_grad_()
        self.wrapped.zero_grad()
        run = self.runs()[peer]
        return seconds_of(lambda: run(hidden, chosen, weights).backward(self.gradient), self.device)

    def measure(self, rounds: int, *, skewed: bool, fresh: bool) -> dict[str, list[float]]:
        """Seconds of every round; who begins changes from round to round."""
        seconds: dict[str, list[float]] = {peer: [] for peer in PEERS}
        for number in range(rounds + 1):
            drawn = routing(self.case, skewed=skewed, seed=number if fresh else 0)
            for peer in PEERS[number % 3 :] + PEERS[: number % 3]:
                taken = self.step(peer, drawn)
                if number:
                    seconds[peer].append(taken)
        return seconds


def wrapped_experts(case: Case, dtype: torch.dtype, device: torch.device) -> Any:
    """Frozen random experts under PEFT's wrappers; factors in fp32, as in training, and none of them zero."""
    config = Qwen3MoeConfig(
        hidden_size=case.hidden, moe_intermediate_size=case.intermediate, num_experts=case.experts
    )
    with torch.device("meta"):
        block: Any = Qwen3MoeExperts(config)
    block = block.to(dtype).to_empty(device=device).requires_grad_(False)
    for parameter in block.parameters():
        parameter.data.normal_(std=0.02)
    for name in ("gate_up_proj", "down_proj"):
        lora = LoraConfig(r=case.rank, lora_alpha=2 * case.rank)
        block = ParamWrapper(block, "default", name, lora, r=case.rank, lora_alpha=2 * case.rank)
    for name, parameter in block.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape).to(device) * 0.02
    return block


def routing(case: Case, *, skewed: bool, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(tokens, k) experts and weights. Skewed: the busiest expert has 8 to 14 times the mean, 12 to 53
    experts have nothing."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(case.tokens, case.experts, generator=generator)
    if skewed:
        scores += 1.5 * torch.randn(case.experts, generator=generator)
    weights, chosen = scores.softmax(-1).topk(case.choices)
    return chosen, weights / weights.sum(-1, keepdim=True)


def compared(seconds: dict[str, list[float]], name: str) -> dict[str, Any]:
    ratios = [theirs / mine for theirs, mine in zip(seconds["peft"], seconds["ours"], strict=True)]
    bounds = [mine / base for mine, base in zip(seconds["ours"], seconds["frozen base"], strict=True)]
    median = {peer: statistics.median(values) for peer, values in seconds.items()}
    result = {
        "ratio": round(statistics.median(ratios), 2),
        "spread": [round(min(ratios), 2), round(max(ratios), 2)],
        "bound": round(statistics.median(bounds), 3),
        "bound_spread": [round(min(bounds), 3), round(max(bounds), 3)],
        "seconds": {peer: round(value, 4) for peer, value in median.items()},
    }
    print(f"{name:<28} {json.dumps(result)}", flush=True)
    return result


def peak_memory(peer: str) -> int:
    """Bytes above block and input at the highest point of one step (the second), in a fresh process."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_of_one_step, (peer,))


def _peak_of_one_step(peer: str) -> int:
    torch.set_num_threads(1)
    bench = Bench(CASES[HEADLINE])
    drawn = routing(bench.case, skewed=False, seed=0)
    bench.step(peer, drawn)
    bench.wrapped.zero_grad()
    before = resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # starts the peak anew
    bench.step(peer, drawn)
    return resident_bytes("VmHWM") - before


def report(results: dict[str, Any], memory: dict[str, int], options: argparse.Namespace) -> None:
    share = memory["ours"] / memory["peft"]
    print("peak memory above the weights: " + ", ".join(f"{p} {m / 1e6:.0f} MB" for p, m in memory.items()))
    headline = results.get(f"{HEADLINE}, random", next(iter(results.values())))
    line = {
        "bench": "expert_lora",
        **{key: headline[key] for key in ("ratio", "spread", "bound", "bound_spread")},
        "memory_of_peft": round(share, 3),
        "peak_bytes": memory,
        "cases": results,
        "required": {
            "ratio": {name: case.required for name, case in CASES.items()},
            "bound": BOUND_REQUIRED,
            "memory_of_peft": round(MEMORY_REQUIRED, 3),
        },
        "sizes": {name: asdict(CASES[name]) for name in options.cases},
        "rounds": options.rounds,
        "threads": torch.get_num_threads(),
        "fresh_routing": options.fresh,
        "load": load(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
