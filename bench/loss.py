"""The loss over a real vocabulary, forward and backward: ours against full logits and TRL's own chunked head.

    python -m bench.loss
    python -m bench.loss --cases "fp32, all" --rounds 9

One body without layers under a frozen head of 151,936 entries; each peer is called as a trainer calls it: the
model's own forward with labels, TRL's `add_fused_lm_head` with what SFTTrainer asks of it, our LabelledLoss.
Interleaved in one process, medians over rounds after one to warm up; peak memory in a child process each. The
last line is JSON; `ratio` is the time of full logits over ours where answers alone are labelled, in fp32.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in training, read when torch is loaded

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from trl.trainer.utils import add_fused_lm_head

from bench.timing import load
from lib.training.loss import LabelledLoss
from lib.training.sizing.peak_memory import resident_bytes

PEERS = ("full logits", "trl", "ours")
VOCABULARY = 151_936
TIME_BOUND, MEMORY_BOUND = 1.0, 0.25
# Largest distance of losses (relative) and gradients (norm) from those of full logits.
TOLERANCE = {"float32": 2e-6, "bfloat16": 1e-2}


@dataclass(frozen=True)
class Case:
    tokens: int
    labelled: float
    """Share of the tokens: what is learned of structeval_sft is 0.53 (300 rows, SFT_MASK_COT=1)."""
    hidden: int
    dtype: str


CASES = {
    "fp32, answers": Case(1024, 0.53, 512, "float32"),
    "fp32, all": Case(1024, 1.0, 512, "float32"),
    "bf16, answers": Case(1024, 0.53, 1024, "bfloat16"),
    "bf16, all": Case(1024, 1.0, 1024, "bfloat16"),
    "fp32, few": Case(320, 0.53, 1024, "float32"),
}
HEADLINE = "fp32, answers"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = {}
    for name in options.cases:
        memory = {peer: peak_memory(peer, CASES[name]) for peer in PEERS}
        results[name] = compared(Bench(CASES[name]).measure(options.rounds), memory)
        print(f"{name:<14} {json.dumps(results[name])}", flush=True)
    report(results, options)


class Bench:
    """Head, hidden states and labels of a case, and the three ways to the loss."""

    def __init__(self, case: Case) -> None:
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=case.hidden, num_hidden_layers=0, tie_word_embeddings=True
        )
        self.model = LlamaForCausalLM(config).to(getattr(torch, case.dtype)).requires_grad_(False)
        self.loss = LabelledLoss(self.model)
        assert not self.loss.obstacle, self.loss.obstacle
        add_fused_lm_head(self.model, outputs=("log_probs", "entropy", "is_top1"))
        self.dtype = case.dtype
        self.hidden = torch.randn(1, case.tokens, case.hidden).to(self.model.dtype)
        self.labels = torch.full((1, case.tokens), -100)
        # The answer stands at the end of a row.
        first = case.tokens - round(case.tokens * case.labelled)
        self.labels[0, first:] = torch.randint(VOCABULARY, (case.tokens - first,))

    def runs(self) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
        inputs = {"labels": self.labels, "use_cache": False}
        return {
            "full logits": lambda states: self.model(inputs_embeds=states, **inputs).loss,
            "trl": lambda states: self.model(inputs_embeds=states, **inputs, fused_lm_head=True).loss,
            "ours": lambda states: self.loss(inputs_embeds=states, labels=self.labels).losses.mean(),
        }

    def step(self, peer: str) -> tuple[float, float, torch.Tensor]:
        """Seconds of a forward and backward, the loss, and the gradient of the hidden states."""
        states = self.hidden.clone().requires_grad_()
        run = self.runs()[peer]
        started = time.perf_counter()
        loss = run(states)
        loss.backward()
        seconds = time.perf_counter() - started
        assert states.grad is not None
        return seconds, loss.item(), states.grad

    def measure(self, rounds: int) -> dict[str, list[float]]:
        """Seconds of every round; who begins changes from round to round. Fails where our loss is off."""
        seconds: dict[str, list[float]] = {peer: [] for peer in PEERS}
        for number in range(rounds + 1):
            taken = {peer: self.step(peer) for peer in PEERS[number % 3 :] + PEERS[: number % 3]}
            if not number:
                self.check(taken["full logits"], taken["ours"])
                continue
            for peer in PEERS:
                seconds[peer].append(taken[peer][0])
        return seconds

    def check(self, full: tuple[float, float, torch.Tensor], ours: tuple[float, float, torch.Tensor]) -> None:
        loss = abs(full[1] - ours[1]) / full[1]
        gradient = float((full[2] - ours[2]).float().norm() / full[2].float().norm())
        print(f"  distance from full logits: loss {loss:.1e}, gradient {gradient:.1e}")
        assert max(loss, gradient) < TOLERANCE[self.dtype]


def compared(seconds: dict[str, list[float]], memory: dict[str, int]) -> dict[str, Any]:
    def ratio(peer: str) -> tuple[float, list[float]]:
        each = [theirs / mine for theirs, mine in zip(seconds[peer], seconds["ours"], strict=True)]
        return round(statistics.median(each), 2), [round(min(each), 2), round(max(each), 2)]

    full, spread = ratio("full logits")
    trl, trl_spread = ratio("trl")
    return {
        "ratio": full,
        "spread": spread,
        "trl_ratio": trl,
        "trl_spread": trl_spread,
        "time_of_full": round(1 / full, 3),
        "memory_of_full": round(memory["ours"] / memory["full logits"], 3),
        "memory_of_trl": round(memory["ours"] / memory["trl"], 3),
        "seconds": {peer: round(statistics.median(values), 4) for peer, values in seconds.items()},
        "peak_megabytes": {peer: round(value / 1e6) for peer, value in memory.items()},
    }


def peak_memory(peer: str, case: Case) -> int:
    """Bytes above head and hidden states at the highest point of one step, in a fresh process."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_of_one_step, (peer, case))


def _peak_of_one_step(peer: str, case: Case) -> int:
    torch.set_num_threads(1)
    small = Case(64, 1.0, case.hidden, case.dtype)
    Bench(small).step(peer)  # libraries load and compile what they need
    bench = Bench(case)
    before = resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # starts the peak anew
    bench.step(peer)
    return resident_bytes("VmHWM") - before


def report(results: dict[str, Any], options: argparse.Namespace) -> None:
    headline = results.get(HEADLINE, next(iter(results.values())))
    line = {
        "bench": "loss",
        "ratio": headline["ratio"],
        "spread": headline["spread"],
        "trl_ratio": headline["trl_ratio"],
        "memory_of_full": headline["memory_of_full"],
        "bound": {"time_of_full": TIME_BOUND, "memory_of_full": MEMORY_BOUND},
        "kept": all(
            case["time_of_full"] <= TIME_BOUND and case["memory_of_full"] <= MEMORY_BOUND
            for case in results.values()
        ),
        "cases": results,
        "sizes": {name: asdict(CASES[name]) for name in results},
        "rounds": options.rounds,
        "threads": torch.get_num_threads(),
        "load": load(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
