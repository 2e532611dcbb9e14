"""What only a GPU can show, at the real dimensions of Qwen3-30B-A3B with random weights.

    python -m bench.gpu                          on the first CUDA device, in under nine minutes
    python -m bench.gpu --device cpu --small     the same code on small sizes: whether it runs at all

Four parts: probes of correctness; one block of experts under LoRA, ours against PEFT over grouped products
and the frozen block; the loss at the full vocabulary; whole training steps on four layers and as many as fit,
with tokens per second and peak beside the estimates of `--plan` (`estimates`: within 15 % or not). Each part
prints what it finds at once; parts that the time does not reach, or that fail, are named. The last line is
JSON; `ratio` is PEFT's time over ours for one block. Without a CUDA device it says so, and ends with exit
code 0.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")  # read when torch is loaded

from bench.gpu_estimates import verdict
from bench.gpu_sizes import FAST, FULL, RANK, Sizes
from bench.gpu_steps import training_steps
from bench.timing import load, median_and_spread, ratios, seconds_of

SECONDS = 520


class Clock:
    """The time that is left for all parts together."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return self._end - time.monotonic()


class OutOfTimeError(Exception):
    """Raised by the alarm, and before work that the time would not suffice for."""


def main() -> int:
    options = parsed()
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        reason = "there is no CUDA device"
        print(f"{reason}: nothing measured (try --device cpu --small)")
        print(json.dumps({"bench": "gpu", "ratio": None, "skipped": reason}))
        return 0
    device = torch.device(options.device)
    sizes, clock = FAST if options.small else FULL, Clock(options.seconds)
    results: dict[str, Any] = {}
    signal.signal(signal.SIGALRM, lambda *_: alarm())
    for name, part in PARTS.items():
        if name in options.parts:
            results[name] = guarded(name, part, sizes, device, clock)
    return report(results, device, options)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="sizes for a test of the script itself")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="for all parts together")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    return parser.parse_args()


def alarm() -> None:
    raise OutOfTimeError


def guarded(name: str, part: Callable[..., Iterator[Any]], *arguments: Any) -> dict[str, Any]:
    """What a part has yielded, with the reason where it did not get to its end."""
    clock: Clock = arguments[-1]
    result: dict[str, Any] = {}
    started = time.monotonic()
    if clock.left < 5:
        return {"unfinished": "no time left"}
    signal.setitimer(signal.ITIMER_REAL, clock.left)
    try:
        for found in part(*arguments):
            result |= found
            print(f"{name:<12} {json.dumps(found)}", flush=True)
    except OutOfTimeError:
        result["unfinished"] = "out of time"
    except Exception as error:  # one part that fails must not hide what the others found
        traceback.print_exc()
        result["unfinished"] = f"{type(error).__name__}: {error}"[:500]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return result | {"seconds": round(time.monotonic() - started, 1)}


def correctness(sizes: Sizes, device: Any, clock: Clock) -> Iterator[dict[str, Any]]:
    """Whether grouped products are right here, and gradients of a small block against float64 on the CPU."""
    import torch

    from bench.expert_lora import Bench, Case, routing
    from lib.model.expert_lora.products import grouped_products_are_right

    for name in ("bfloat16", "float32"):
        yield {f"grouped products right in {name}": grouped_products_are_right(device, getattr(torch, name))}
    for name, rank in (("float32", 8), ("bfloat16", 8), ("bfloat16", 5)):
        case = Case(8, 64, 32, 2, rank, 96, name, 0.0)
        for skewed in (False, True):
            block = Bench(case, str(device))
            drawn = routing(case, skewed=skewed, seed=1)
            reference = reference_gradients(block, drawn)
            block.step("ours", drawn)
            found = [p.grad.double().cpu() for p in block.wrapped.parameters() if p.grad is not None]
            errors = [((f - r).norm() / r.norm()).item() for f, r in zip(found, reference, strict=True)]
            how = f"{name}, rank {rank}, {'skewed' if skewed else 'random'}"
            yield {f"gradient error, {how}": float(f"{max(errors):.2e}")}


def reference_gradients(block: Any, drawn: Any) -> list[Any]:
    """By PEFT's own W + BA and transformers' plain loop, in float64 on the CPU."""
    import copy

    wrapped = copy.deepcopy(block.wrapped).cpu().double()
    wrapped.get_base_layer().config._experts_implementation = "eager"
    weights = drawn[1].to(block.dtype).double()
    wrapped(block.hidden.cpu().double(), drawn[0], weights).backward(block.gradient.cpu().double())
    return [parameter.grad for parameter in wrapped.parameters() if parameter.grad is not None]


def expert_block(sizes: Sizes, device: Any, clock: Clock) -> Iterator[dict[str, Any]]:
    """Seconds of one block forward and backward, interleaved, by number of tokens and routing."""
    from bench.expert_lora import PEERS, Bench, Case

    model = sizes.model
    dtype = "float32" if device.type == "cpu" else "bfloat16"
    for tokens in sizes.block_tokens:
        block = Bench(
            Case(
                model.experts,
                model.hidden,
                model.intermediate,
                model.experts_per_token,
                RANK,
                tokens,
                dtype,
                4.5,
            ),
            str(device),
        )
        for skewed in (False, True):
            seconds = block.measure(sizes.rounds, skewed=skewed, fresh=True)
            yield {
                f"{tokens} tokens, {'skewed' if skewed else 'random'}": {
                    "peft_over_ours": median_and_spread(ratios(seconds["peft"], seconds["ours"]), 2),
                    "ours_over_frozen": median_and_spread(ratios(seconds["ours"], seconds["frozen base"])),
                    "milliseconds": {
                        peer: median_and_spread([1000 * value for value in seconds[peer]]) for peer in PEERS
                    },
                }
            }
        del block


def vocabulary_loss(sizes: Sizes, device: Any, clock: Clock) -> Iterator[dict[str, Any]]:
    """Loss and gradient of the hidden states: in chunks against full logits."""
    import torch
    from torch.nn.functional import cross_entropy

    from lib.model.head_loss import head_losses
    from lib.model.output_head import OutputHead

    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    model = sizes.model
    layer = torch.nn.Linear(model.hidden, model.vocabulary, bias=False, device=device, dtype=dtype)
    head = OutputHead(layer.requires_grad_(False), model.vocabulary)
    states = torch.randn(sizes.loss_tokens, model.hidden, device=device, dtype=dtype, requires_grad=True)
    targets = torch.randint(model.vocabulary, (sizes.loss_tokens,), device=device)
    runs: dict[str, Callable[[], Any]] = {
        "ours": lambda: head_losses(states, head, targets)[0].mean().backward(),
        "full logits": lambda: cross_entropy(layer(states).float(), targets).backward(),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    peaks: dict[str, int] = {}
    for number in range(sizes.rounds + 1):
        for name, run in runs.items():
            states.grad = None
            with peak_of(device, peaks, name):
                taken = seconds_of(run, device)
            if number:
                seconds[name].append(taken)
    yield {
        "full_over_ours": median_and_spread(ratios(seconds["full logits"], seconds["ours"]), 2),
        "milliseconds": {n: median_and_spread([1000 * s for s in values]) for n, values in seconds.items()},
        "peak_bytes": peaks,
    }


@contextmanager
def peak_of(device: Any, peaks: dict[str, int], name: str) -> Iterator[None]:
    """Bytes allocated on the GPU above what was there before; nothing on a CPU."""
    import torch

    if device.type != "cuda":
        yield
        return
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    yield
    peaks[name] = torch.cuda.max_memory_allocated(device) - before


PARTS: dict[str, Callable[[Sizes, Any, Clock], Iterator[dict[str, Any]]]] = {
    "correctness": correctness,
    "block": expert_block,
    "loss": vocabulary_loss,
    "steps": training_steps,
}


def report(results: dict[str, Any], device: Any, options: argparse.Namespace) -> int:
    import torch

    blocks = [found for found in results.get("block", {}).values() if isinstance(found, dict)]
    headline = blocks[0] if blocks else None
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    line = {
        "bench": "gpu",
        "ratio": headline["peft_over_ours"]["median"] if headline else None,
        "spread": headline["peft_over_ours"]["spread"] if headline else None,
        "bound": headline["ours_over_frozen"]["median"] if headline else None,
        "required": {"ratio": 4.5},
        "device": name,
        "small": options.small,
        "torch": torch.__version__,
        "estimates": verdict(results.get("steps", {})),
        "parts": results,
        "unfinished": [part for part, found in results.items() if "unfinished" in found],
        "load": load(),
    }
    print(json.dumps(line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
