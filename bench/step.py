"""Whole optimizer steps of a small Qwen3-MoE: ours against TRL's SFTTrainer with PEFT.

    python -m bench.step --data ROWS.parquet --tokenizer FOLDER

Random weights; data and tokenizer of the options, else BENCH_DATA and BENCH_TOKENIZER, else embedded. Ours is
the path of train.py. The peer is set up as TRL and PEFT document it: SFTTrainer with its chunked loss,
LoraConfig with `target_parameters` for the experts at the same rank, grouped products, no dropout (refused on
parameters). Its packing and padding-free batches are documented for flash attention, which a CPU has not.
Both see the same batches under the same labels, arguments and first adapter.
Each runs in a process of its own and is let through a block of steps in turn; the first block is to warm up.
The last line is JSON; `ratio` is TRL's time for a block over ours. Fails when loss curves or final adapters
differ by more than rounding explains.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # the process that waits must leave the cores alone

import torch
from transformers import AutoTokenizer, Qwen3MoeConfig, Qwen3MoeForCausalLM, TrainerCallback, TrainerState

from bench.timing import load
from lib.settings import StageSettings, load_stage
from lib.training.processes.launch import prepare_environment
from lib.training.sizing.peak_memory import peak_resident_bytes
from lib.training.sizing.world import World

ROOT = Path(__file__).resolve().parents[1]
PEERS = ("trl", "ours")
BOUND = 2.0
RANK = 16
WORLD = World(1, 0)
# fp32 sums in another order differ by 1e-7; Adam divides by the root of small numbers, which lets single
# elements differ more. A loss over other labels or a missing adapter differs from the first digits on.
LOSS_TOLERANCE, ADAPTER_TOLERANCE = 1e-4, 1e-2


@dataclass(frozen=True)
class Trained:
    """What a worker hands back in the end."""

    losses: list[float]
    tokens: list[int]
    """After every step, padding left out."""
    adapter: Path
    peak_bytes: int


def main() -> int:
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        make_stage(Path(folder), options)
        seconds, trained = interleaved(Path(folder), options)
        return report(seconds, trained, options)


def parse() -> argparse.Namespace:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    default_data = os.environ.get("BENCH_DATA", str(ROOT / "data/general_conversion.jsonl"))
    parser.add_argument("--data", default=default_data)
    default_tokenizer = os.environ.get("BENCH_TOKENIZER", str(ROOT / "assets/tiny-moe"))
    parser.add_argument("--tokenizer", default=default_tokenizer)
    parser.add_argument("--blocks", type=int, default=5, help="the first one is not counted")
    parser.add_argument("--steps", type=int, default=2, help="optimizer steps in a block")
    parser.add_argument("--rows", type=int, default=4, help="in a micro-batch; two of them make a step")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--experts", type=int, default=64)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    return parser.parse_args()


def make_stage(folder: Path, options: argparse.Namespace) -> None:
    """A base with random weights beside its tokenizer, and the stage file that trains on it."""
    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=-(-len(tokenizer) // 128) * 128,
        hidden_size=options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=options.hidden // 8,
        moe_intermediate_size=192,
        num_experts=options.experts,
        num_experts_per_tok=8,
        norm_topk_prob=True,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    Qwen3MoeForCausalLM(config).to(torch.bfloat16).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    steps = options.blocks * options.steps
    keys = {
        "SFT_BASE_MODEL": folder / "base",
        "SFT_DTYPE": "fp32",
        "SFT_OUT_LORA_DIR": folder / "lora",
        "SFT_DATASET_ID": Path(options.data).resolve(),
        "SFT_DATASET_MIX_TOTAL_SIZE": steps * 2 * options.rows,
        "SFT_VAL_RATIO": 0,
        "SFT_MAX_SEQ_LEN": 1024,
        "SFT_LORA_R": RANK,
        "SFT_LORA_ALPHA": 2 * RANK,
        "SFT_LORA_DROPOUT": 0,
        "SFT_PER_DEVICE_TRAIN_BS": options.rows,
        "SFT_GRAD_ACCUM": 2,
        "SFT_MAX_STEPS": steps,
        "SFT_LR": "2e-4",
        "SFT_LOGGING_STEPS": 1,
        "SFT_SAVE_STEPS": 10**6,
        "SFT_GEN_EVAL_SAMPLES": 0,
    }
    (folder / "stage1.env").write_text("".join(f"{key}='{value}'\n" for key, value in keys.items()))


def interleaved(folder: Path, options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Trained]]:
    """Seconds of every block but the first, and what was trained; who begins changes from block to block."""
    context = get_context("spawn")
    gates, workers = {}, []
    for peer in PEERS:
        gates[peer], theirs = context.Pipe()
        workers.append(context.Process(target=work, args=(peer, folder, options, theirs), daemon=True))
        workers[-1].start()
        gates[peer].recv()  # ready
    seconds: dict[str, list[float]] = {peer: [] for peer in PEERS}
    for block in range(options.blocks):
        for peer in PEERS if block % 2 else PEERS[::-1]:
            gates[peer].send("go")
            taken = gates[peer].recv()
            print(f"block {block}  {peer:<5} {taken:7.2f} s", flush=True)
            if block:
                seconds[peer].append(taken)
    trained = {peer: gates[peer].recv() for peer in PEERS}
    for worker in workers:
        worker.join()
    return seconds, trained


class Gate(TrainerCallback):
    """Waits before every block until it is let through, and says afterwards how long it took."""

    def __init__(self, pipe: Connection, steps: int) -> None:
        self.pipe, self.steps, self.started = pipe, steps, 0.0

    def on_step_begin(self, args: Any, state: TrainerState, *_: Any, **__: Any) -> None:
        if state.global_step % self.steps == 0:
            self.pipe.recv()
            self.started = time.perf_counter()

    def on_step_end(self, args: Any, state: TrainerState, *_: Any, **__: Any) -> None:
        if state.global_step % self.steps == 0:
            self.pipe.send(time.perf_counter() - self.started)


def work(peer: str, folder: Path, options: argparse.Namespace, pipe: Connection) -> None:
    """One trainer, from its data to its last step, in a process of its own."""
    from lib.training.quiet import quiet_libraries

    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
    torch.set_num_threads(options.threads)
    prepare_environment(WORLD)
    quiet_libraries()
    settings = load_stage(folder, 1, environ={})
    gate = Gate(pipe, options.steps)
    trainer = our_trainer(settings, gate) if peer == "ours" else their_trainer(settings, gate)
    adapter = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    same_start(adapter)
    pipe.send("ready")
    trainer.train()
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    torch.save({name: p.detach() for name, p in adapter.items()}, folder / f"{peer}.pt")
    pipe.send(
        Trained(
            [entry["loss"] for entry in history],
            [int(entry["num_tokens"]) for entry in history],
            folder / f"{peer}.pt",
            peak_resident_bytes(),
        )
    )


def our_trainer(settings: StageSettings, gate: TrainerCallback) -> Any:
    """As `run_stage` in train.py assembles it."""
    from lib.model.adapter import attach_lora
    from lib.training.batches import choose_batch_form
    from lib.training.processes.process_group import Processes
    from lib.training.trainer import build_trainer

    tokenizer, data, model, targets = prepared(settings)
    form = choose_batch_form(model, data.train, packing=False)
    peft_model, _ = attach_lora(model, targets, settings.lora, seed=settings.seed)
    processes = Processes(settings, WORLD, torch.float32, evaluates=False)
    return build_trainer(peft_model, tokenizer, data, [], settings, processes, form, [gate], None)


def their_trainer(settings: StageSettings, gate: TrainerCallback) -> Any:
    """SFTTrainer makes the PEFT model itself; data, batches and optimizer are those of ours."""
    from peft import LoraConfig
    from trl import SFTTrainer

    from lib.training.arguments import trainer_arguments
    from lib.training.row_tables import validation_dataset

    tokenizer, data, model, targets = prepared(settings)
    return SFTTrainer(
        model=model,
        args=trainer_arguments(settings, world=WORLD, dtype=torch.float32, evaluates=False),
        train_dataset=validation_dataset(data.train),
        processing_class=tokenizer,
        callbacks=[gate],
        peft_config=LoraConfig(
            r=RANK,
            lora_alpha=2 * RANK,
            target_modules=list(targets.modules),
            target_parameters=list(targets.parameters),
            task_type="CAUSAL_LM",
        ),
    )


def prepared(settings: StageSettings) -> tuple[Any, Any, Any, Any]:
    """Tokenizer, prepared data, frozen base, and what gets an adapter."""
    from lib.data.chat.model_chat import chat_of
    from lib.data.prepare import prepare_rows
    from lib.model.base import StageBase, choose_compute, load_base, load_tokenizer
    from lib.model.targets import find_targets

    tokenizer = load_tokenizer(settings.model)
    data = prepare_rows(settings, chat_of(tokenizer, settings.data.chat_template))
    path = settings.model.base_model
    base = StageBase(path, "", path, merged=False, reused=False, seconds=0.0)
    model = load_base(base, choose_compute(settings.model), on_gpu=False)
    return tokenizer, data, model, find_targets(model, settings.lora.target_modules)


def same_start(adapter: dict[str, torch.nn.Parameter]) -> None:
    """A as a normal distribution, the same for the same name; B zero."""
    generator = torch.Generator().manual_seed(1)
    for _, parameter in sorted((n, p) for n, p in adapter.items() if "lora_A" in n):
        parameter.data.normal_(std=0.02, generator=generator)


def report(seconds: dict[str, list[float]], trained: dict[str, Trained], options: argparse.Namespace) -> int:
    ours, theirs = trained["ours"], trained["trl"]
    assert ours.tokens == theirs.tokens, "the batches differ"
    ratios = [slow / quick for slow, quick in zip(seconds["trl"], seconds["ours"], strict=True)]
    tokens = ours.tokens[-1] - ours.tokens[options.steps - 1]
    loss = max(abs(a - b) for a, b in zip(ours.losses, theirs.losses, strict=True))
    adapter = adapter_distance(ours.adapter, theirs.adapter)
    agree = loss < LOSS_TOLERANCE and adapter < ADAPTER_TOLERANCE
    print("loss, ours: " + " ".join(f"{value:.4f}" for value in ours.losses))
    print("loss, trl:  " + " ".join(f"{value:.4f}" for value in theirs.losses))
    line = {
        "bench": "step",
        "ratio": round(statistics.median(ratios), 2),
        "spread": [round(min(ratios), 2), round(max(ratios), 2)],
        "bound": BOUND,
        "tokens_per_second": {peer: round(tokens / sum(taken), 1) for peer, taken in seconds.items()},
        "peak_megabytes": {peer: round(result.peak_bytes / 1e6) for peer, result in trained.items()},
        "loss_deviation": loss,
        "adapter_deviation": round(adapter, 6),
        "agree": agree,
        "tolerance": {"loss": LOSS_TOLERANCE, "adapter": ADAPTER_TOLERANCE},
        "tokens": tokens,
        "sizes": {key: value for key, value in vars(options).items() if isinstance(value, int)},
        "load": load(),
    }
    print(json.dumps(line))
    return 0 if agree else 1


def adapter_distance(one: Path, other: Path) -> float:
    """Norm of the difference of all factors over the norm of what was learned, the B, which began at zero."""
    first, second = torch.load(one), torch.load(other)
    assert first.keys() == second.keys(), "the adapters differ in their tensors"
    difference = sum(float((first[name] - second[name]).square().sum()) for name in first)
    learned = sum(float(first[name].square().sum()) for name in first if "lora_B" in name)
    return (difference / learned) ** 0.5


if __name__ == "__main__":
    sys.exit(main())
