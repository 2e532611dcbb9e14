"""Generated tokens per second: ours against plain `generate` on the PEFT model, one prompt at a time and with
the same batch.

    python -m bench.generation

Interleaved in one process, medians over the rounds; greedy, the same prompts, the same number of new tokens.
The bound is the base without any adapter. The last line is JSON; `ratio` is the time of `generate` with one
prompt at a time over ours.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in training, read when torch is loaded

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from bench.timing import load
from lib.evaluation.answers import Question
from lib.evaluation.generation import GenerationLimits, generate_answers

BASE = Path("assets/tiny-moe")
ROWS = Path("data/heldout.jsonl")
NEVER = 10**6  # no token has this number: every answer runs to the limit
TARGETS = {
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=32, help="prompts at a time")
    parser.add_argument("--tokens", type=int, default=48, help="new tokens per prompt")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    questions = prompts(tokenizer, options.batch)
    base = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32).eval()
    peft_model = with_adapter()
    few = questions[:4]  # one prompt at a time is slow; speed does not depend on how many there are
    runs: dict[str, Callable[[], int]] = {
        "generate, batch 1": lambda: plain(peft_model, few, 1, options.tokens),
        "generate, same batch": lambda: plain(peft_model, questions, options.batch, options.tokens),
        "ours": lambda: ours(peft_model, tokenizer, questions, options.batch, options.tokens),
        "base without adapter": lambda: ours(base, tokenizer, questions, options.batch, options.tokens),
    }
    report(measure(runs, options.rounds), options)


def prompts(tokenizer: Any, count: int) -> list[Question]:
    rows = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()[:count]]
    rendered = [
        tokenizer.apply_chat_template(row["messages"][:-1], add_generation_prompt=True, return_dict=False)
        for row in rows
    ]
    return [Question(str(i), ids, "", {}) for i, ids in enumerate(rendered)]


def with_adapter() -> Any:
    """The base under a LoRA of rank 16 on attention and experts whose B is not zero."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, **TARGETS))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.01)
    return model.eval()


def plain(model: Any, questions: Sequence[Question], batch: int, tokens: int) -> int:
    """What one would write by hand: left padding, `generate`, nothing else. Returns the tokens generated."""
    made = 0
    for first in range(0, len(questions), batch):
        rows = [question.prompt_ids for question in questions[first : first + batch]]
        width = max(map(len, rows))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        config = GenerationConfig(
            do_sample=False, max_new_tokens=tokens, eos_token_id=NEVER, pad_token_id=0, use_cache=True
        )
        with torch.no_grad():
            output = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
        made += output[:, width:].numel()
    return made


def ours(model: Any, tokenizer: Any, questions: Sequence[Question], batch: int, tokens: int) -> int:
    """Folding the adapter in and out again is part of the time."""
    limits = GenerationLimits((NEVER,), batch_size=batch, max_new_tokens=tokens)
    return generate_answers(model, tokenizer, questions, limits).tokens


def measure(runs: dict[str, Callable[[], int]], rounds: int) -> dict[str, list[float]]:
    """Tokens per second of every run in every round, after one round to warm up."""
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    for round_number in range(rounds + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            made = run()
            if round_number:
                speeds[name].append(made / (time.perf_counter() - started))
    return speeds


def report(speeds: dict[str, list[float]], options: argparse.Namespace) -> None:
    median = {name: statistics.median(values) for name, values in speeds.items()}
    for name, values in speeds.items():
        print(f"{name:<22} {median[name]:8.0f} tokens/s  ({min(values):.0f} to {max(values):.0f})")
    one, same = (
        [mine / theirs for mine, theirs in zip(speeds["ours"], speeds[peer], strict=True)]
        for peer in ("generate, batch 1", "generate, same batch")
    )
    result = {
        "bench": "generation",
        "ratio": round(statistics.median(one), 2),
        "spread": [round(min(one), 2), round(max(one), 2)],
        "ratio_same_batch": round(statistics.median(same), 2),
        "spread_same_batch": [round(min(same), 2), round(max(same), 2)],
        "bound": round(median["base without adapter"] / median["ours"], 2),
        "required": {"ratio": 4.0, "ratio_same_batch": 1.5},
        "batch": options.batch,
        "new_tokens": options.tokens,
        "threads": torch.get_num_threads(),
        "load": load(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
