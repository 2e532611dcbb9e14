"""Useful tokens per second of whole training steps: ours packed, against TRL's packing and padded batches.

    python -m bench.packing                                      the embedded rows and tokenizer
    python -m bench.packing --data rows.parquet --tokenizer DIR  or BENCH_DATA and BENCH_TOKENIZER

A small random Qwen3-MoE on the CPU in fp32. Its vocabulary are the tokens that occur: the share of the output
layer is then about that of a large model (bench/loss.py measures it alone). The same rows, the same LoRA
(experts in split form for all), one update over all rows in a round, interleaved, the first round to warm up.
TRL's SFTTrainer packs as its documents advise (`packing=True`, best-fit decreasing, padding-free, a batch of
one sequence; SDPA, since flash attention needs a GPU); padded batches hold as many rows as `--batch` says.
The bound are our steps with attention left out. The last line is JSON; `ratio` is the time of TRL's packing
over ours, `losses` those of the last round.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in training, read when torch is loaded

import torch
from datasets import Dataset
from transformers import AttentionInterface, AutoTokenizer, PrinterCallback, Qwen3MoeConfig, TrainerCallback
from transformers import Qwen3MoeForCausalLM as Model
from trl import SFTConfig, SFTTrainer

from bench.timing import load
from lib.data.chat.model_chat import chat_of
from lib.data.prepare import PreparedData, prepare_rows
from lib.model.adapter import attach_lora
from lib.model.targets import find_targets
from lib.settings import StageSettings, load_stage
from lib.training.batches import choose_batch_form
from lib.training.processes.launch import keep_freed_memory
from lib.training.processes.process_group import Processes
from lib.training.progress import ProgressCallback
from lib.training.quiet import quiet_libraries
from lib.training.sizing.world import World
from lib.training.trainer import build_trainer

ROWS, TOKENIZER = "data/general_conversion.jsonl", "assets/tiny-moe"
RATE = 1e-3
REQUIRED = {"TRL packing": 1.2, "padded": 2.0}
SIZES = {
    "hidden_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "num_experts": 32,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": 192,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default=os.environ.get("BENCH_DATA", ROWS))
    parser.add_argument("--tokenizer", default=os.environ.get("BENCH_TOKENIZER", TOKENIZER))
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--length", type=int, default=2048, help="tokens of a packed sequence")
    parser.add_argument("--batch", type=int, default=16, help="rows of a batch that is not packed")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    quiet_libraries()
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, Path(folder))
        runs = {
            "ours": bench.ours(packing=True),
            "ours, rows": bench.ours(packing=False),
            "TRL packing": bench.trl(packing=True),
            "padded": bench.trl(packing=False),
            "without attention": bench.without_attention(),
        }
        report(measure(runs, options.rounds), runs, bench, options)


class Bench:
    """The rows, the model, and trainers of one kind each."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
        # The token of number 0 pads: it is in any vocabulary.
        self.tokenizer.pad_token = self.tokenizer.convert_ids_to_tokens(0)
        self.data = self.prepared(packing=True)[1]
        self.tokens = sum(len(row.input_ids) for row in self.data.train)
        self.supervised = sum(row.supervised_tokens for row in self.data.train)
        torch.manual_seed(0)
        largest = max(max(row.input_ids) for row in self.data.train)
        config = Qwen3MoeConfig(vocab_size=math.ceil((largest + 1) / 64) * 64, **SIZES)
        self.base = Model._from_config(config, attn_implementation="sdpa").requires_grad_(False)

    def prepared(self, *, packing: bool) -> tuple[StageSettings, PreparedData]:
        keys = {
            "SFT_BASE_MODEL": self.options.tokenizer,
            "SFT_OUT_LORA_DIR": self.folder / "ours",
            "SFT_DATASET_ID": self.options.data,
            "SFT_DATASET_MIX_TOTAL_SIZE": self.options.rows,
            "SFT_VAL_RATIO": 0,
            "SFT_GEN_EVAL_SAMPLES": 0,
            "SFT_MAX_SEQ_LEN": self.options.length,
            "SFT_PACKING": int(packing),
            "SFT_PER_DEVICE_TRAIN_BS": 1 if packing else self.options.batch,
            "SFT_GRAD_ACCUM": self.options.rows,  # the epoch ends before: one update over all rows
            "SFT_MAX_STEPS": 1,
            "SFT_LR": RATE,
            "SFT_WARMUP_RATIO": 0,
            "SFT_LORA_DROPOUT": 0,
        }
        (self.folder / "stage1.env").write_text("".join(f"{k}='{v}'\n" for k, v in keys.items()))
        settings = load_stage(self.folder, 1, environ={})
        data = prepare_rows(settings, chat_of(self.tokenizer, ""))
        occurring = sorted({token for row in data.train for token in row.input_ids})
        number = {token: i for i, token in enumerate(occurring)}
        rows = (replace(row, input_ids=[number[token] for token in row.input_ids]) for row in data.train)
        return settings, replace(data, train=tuple(rows))

    def adapted(self, base: Any, settings: StageSettings) -> Any:
        targets = find_targets(base, settings.lora.target_modules)
        return attach_lora(base, targets, settings.lora, seed=1)[0]

    def ours(self, *, packing: bool, base: Any = None) -> Run:
        settings, data = self.prepared(packing=packing)
        model = deepcopy(self.base) if base is None else base
        form = choose_batch_form(model, data.train, packing=False)
        processes = Processes(settings, World(1, 0), torch.float32, evaluates=False)
        adapted = self.adapted(model, settings)
        return Run(build_trainer(adapted, self.tokenizer, data, (), settings, processes, form, (), None))

    def without_attention(self) -> Run:
        """What is left of a step when tokens attend to nothing."""
        AttentionInterface.register(
            "none", lambda module, q, k, v, mask, **options: (q.transpose(1, 2), None)
        )
        base = deepcopy(self.base)
        base.set_attn_implementation("none")
        return self.ours(packing=True, base=base)

    def trl(self, *, packing: bool) -> Run:
        settings, _ = self.prepared(packing=packing)
        rows = Dataset.from_dict(
            {
                "input_ids": [row.input_ids for row in self.data.train],
                "labels": [row.targets() for row in self.data.train],
            }
        )
        trainer = SFTTrainer(
            model=self.adapted(deepcopy(self.base), settings),
            args=SFTConfig(
                output_dir=str(self.folder / f"trl-{packing}"),
                packing=packing,
                packing_strategy="bfd",
                max_length=self.options.length,
                per_device_train_batch_size=1 if packing else self.options.batch,
                gradient_accumulation_steps=self.options.rows,
                max_steps=1,
                learning_rate=RATE,
                router_aux_loss_coef=0.0,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
                dataloader_pin_memory=False,
            ),
            train_dataset=rows,
            processing_class=self.tokenizer,
        )
        return Run(trainer)

    def padded_share(self) -> float:
        """Of the places in the padded batches, those that hold a token (in the order of the rows)."""
        lengths = [len(row.input_ids) for row in self.data.train]
        batches = [lengths[i : i + self.options.batch] for i in range(0, len(lengths), self.options.batch)]
        return self.tokens / sum(len(batch) * max(batch) for batch in batches)


class Run(TrainerCallback):
    """Trains with a trainer, once per call; answers with the seconds of its one step."""

    started = seconds = 0.0

    def __init__(self, trainer: SFTTrainer) -> None:
        self.trainer = trainer
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(self)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.started = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds = time.perf_counter() - self.started

    def __call__(self) -> float:
        self.loss = self.trainer.train().training_loss
        return self.seconds


def measure(runs: dict[str, Run], rounds: int) -> dict[str, list[float]]:
    """Seconds of every run in every round; who begins changes from round to round."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for number in range(rounds + 1):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            taken = runs[name]()
            if number:
                seconds[name].append(taken)
    return seconds


def ratios(theirs: Sequence[float], mine: Sequence[float]) -> dict[str, Any]:
    values = [peer / own for peer, own in zip(theirs, mine, strict=True)]
    return {
        "ratio": round(statistics.median(values), 2),
        "spread": [round(min(values), 2), round(max(values), 2)],
    }


def report(
    seconds: dict[str, list[float]], runs: dict[str, Run], bench: Bench, options: argparse.Namespace
) -> None:
    median = {name: statistics.median(values) for name, values in seconds.items()}
    speed = {name: round(bench.tokens / value, 1) for name, value in median.items()}
    for name, values in seconds.items():
        print(f"{name:<18} {speed[name]:8,.0f} useful tokens/s  {min(values):6.1f} to {max(values):6.1f} s")
    bound = ratios(seconds["ours"], seconds["without attention"])
    packed = bench.data.ledger.packed
    line = {
        "bench": "packing",
        **ratios(seconds["TRL packing"], seconds["ours"]),
        "padded": ratios(seconds["padded"], seconds["ours"]),
        "ours_by_rows": ratios(seconds["ours, rows"], seconds["ours"]),
        "bound": bound["ratio"],
        "bound_spread": bound["spread"],
        "required": REQUIRED,
        "useful_tokens_per_second": speed,
        "losses": {name: round(run.loss, 5) for name, run in runs.items()},
        "rows": len(bench.data.train),
        "tokens": bench.tokens,
        "supervised_tokens": bench.supervised,
        "sequences": packed.packs if packed else None,
        "fill": packed.fill if packed else None,
        "rows_per_padded_batch": options.batch,
        "tokens_in_padded_batches": round(bench.padded_share(), 3),
        "vocabulary": bench.base.config.vocab_size,
        "rounds": options.rounds,
        "threads": torch.get_num_threads(),
        "load": load(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
