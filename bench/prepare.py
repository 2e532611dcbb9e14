"""Rows per second from a file to rows that are ready to be trained on: ours, against TRL's own preprocessing.

    python -m bench.prepare                          174,663 rows of the news data, and up to a million
    python -m bench.prepare --rows 20000 --sizes 1000,10000          less of it

Generated articles as `messages`, the Qwen3 tokenizer where ../shared/data has it (else --tokenizer DIR or
that of the embedded base), as many processes for both, each run in a fresh process with empty caches. TRL's
time is that of SFTTrainer's `_prepare_dataset` (chat template, tokens, assistant masks, truncation) on a data
set that is loaded already; ours begins at the file and ends with the trainer's data set: reading, mixing,
tokens, masks, ledger, order. Rounds of both in turn, over the first --peer-rows rows. Then ours alone, over
--rows rows with the highest resident memory and a second start, and over each of --sizes, with a line fitted
to seconds against rows. The bound is tokenising alone, by the tokenizer's own threads.
The last line is JSON; `ratio` is TRL's time over ours.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

from bench.timing import load, ratios
from data.news.make_news import distinct, long_offender, long_other
from data.news.records import INSTRUCTION, as_row

ROOT = Path(__file__).parents[1]
QWEN3 = ROOT.parent / "shared" / "data" / "tokenizer_qwen3"
REQUIRED = {"ratio": 3.0, "resident_gb": 2.0, "second_start_s": 5.0}
LENGTH = 1_536


def write_rows(path: Path, count: int) -> None:
    """Articles that name an offender and articles that name none, in turn."""
    articles = distinct(random.Random("bench"), (long_offender, long_other), count, set())
    with path.open("w", encoding="utf-8") as file:
        for article in articles:
            row = as_row(article, INSTRUCTION)
            question = {"role": "user", "content": f"{row['instruction']}\n\n{row['input']}"}
            answer = {"role": "assistant", "content": row["output"]}
            file.write(json.dumps({"messages": [question, answer]}, ensure_ascii=False) + "\n")


def first_rows(path: Path, count: int, folder: Path) -> Path:
    part = folder / f"rows_{count}.jsonl"
    if not part.exists():
        with path.open(encoding="utf-8") as whole, part.open("w", encoding="utf-8") as file:
            file.writelines(islice(whole, count))
    return part


def measure_ours(rows: Path, tokenizer: Path, processes: int, cache: Path) -> dict[str, float]:
    import resource

    from lib.data.chat.chat_format import ChatFormat
    from lib.data.prepare import prepare_rows
    from lib.settings import load_stage
    from lib.training.row_tables import training_dataset
    from lib.training.sizing.peak_memory import peak_resident_bytes

    values = {
        "SFT_BASE_MODEL": tokenizer, "SFT_OUT_LORA_DIR": "output", "SFT_DATASET_ID": rows, "SFT_VAL_RATIO": 0,
        "SFT_MAX_SEQ_LEN": LENGTH, "SFT_MASK_COT": 0, "SFT_STRICT": 1, "SFT_CACHE_DIR": cache,
        "SFT_DATASET_NUM_PROC": processes,
    }  # fmt: skip
    (cache.parent / "stage1.env").write_text("".join(f"{key}='{value}'\n" for key, value in values.items()))
    settings = load_stage(cache.parent, 1, environ={})
    started = time.perf_counter()
    chat = ChatFormat.load(tokenizer)
    assert chat is not None
    data = prepare_rows(settings, chat)
    dataset = training_dataset(data.train, data.packs)
    seconds = time.perf_counter() - started
    counted = data.ledger.encoded
    return {
        "seconds": seconds,
        "rows": len(dataset),
        "tokens": counted.tokens if counted else 0,
        "resident_gb": peak_resident_bytes() / 1e9,
        "resident_child_gb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9,
    }


def measure_trl(rows: Path, tokenizer: Path, processes: int, cache: Path) -> dict[str, float]:
    from datasets import load_dataset
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM
    from trl import SFTConfig, SFTTrainer

    class Timed(SFTTrainer):  # type: ignore[misc]
        seconds = 0.0

        def _prepare_dataset(self, *args: Any, **options: Any) -> Any:
            started = time.perf_counter()
            prepared = super()._prepare_dataset(*args, **options)
            Timed.seconds += time.perf_counter() - started
            return prepared

    words = AutoTokenizer.from_pretrained(tokenizer)
    one = dict.fromkeys(("num_hidden_layers", "num_attention_heads", "num_key_value_heads"), 1)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "head_dim": 8, "vocab_size": len(words), **one}
    dataset = load_dataset("json", data_files=str(rows), split="train")
    arguments = SFTConfig(
        output_dir=str(cache / "out"), assistant_only_loss=True, max_length=LENGTH,
        dataset_num_proc=processes, report_to=[], use_cpu=True, bf16=False, disable_tqdm=True,
    )  # fmt: skip
    model = Qwen3ForCausalLM(Qwen3Config(**sizes))
    trainer = Timed(model=model, args=arguments, train_dataset=dataset, processing_class=words)
    tokens = sum(map(len, trainer.train_dataset["input_ids"]))
    return {"seconds": Timed.seconds, "rows": len(trainer.train_dataset), "tokens": tokens}


def measure_tokens(rows: Path, tokenizer: Path, processes: int, cache: Path) -> dict[str, float]:
    from tokenizers import Tokenizer

    own = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    with rows.open(encoding="utf-8") as file:
        texts = ["".join(message["content"] for message in json.loads(line)["messages"]) for line in file]
    started = time.perf_counter()
    tokens = 0
    for first in range(0, len(texts), 512):
        tokens += sum(map(len, own.encode_batch_fast(texts[first : first + 512], add_special_tokens=False)))
    return {"seconds": time.perf_counter() - started, "rows": len(texts), "tokens": tokens}


MEASURES = {"ours": measure_ours, "trl": measure_trl, "tokens": measure_tokens}


def run(name: str, rows: Path, options: argparse.Namespace, folder: Path, *, fresh: bool = True) -> Any:
    """One measurement in a process of its own, whose caches are empty unless they are to be found again."""
    cache = folder / "cache"
    if fresh:
        shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(cache / "datasets"),
        "RAYON_NUM_THREADS": str(options.processes),
    }
    command = [sys.executable, "-m", "bench.prepare", "--measure", name, str(rows), str(folder / "tokenizer")]
    command += [str(options.processes), str(cache)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr[-4000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    speed = found["rows"] / found["seconds"]
    print(
        f"{name:<7}{found['rows']:>10,} rows {found['seconds']:8.2f} s {speed:8,.0f} rows/s  load {load()}",
        flush=True,
    )
    return found


def line_through(points: list[tuple[int, float]]) -> dict[str, float]:
    """Least squares: seconds = start + rows · each."""
    sizes, seconds = [size for size, _ in points], [taken for _, taken in points]
    slope, start = statistics.linear_regression(sizes, seconds)
    errors = [abs(taken - start - slope * size) / taken for size, taken in points if size >= 10_000]
    return {
        "start_s": round(start, 3),
        "microseconds_a_row": round(slope * 1e6, 1),
        "r_squared": round(statistics.correlation(sizes, seconds) ** 2, 5),
        "largest_relative_error_from_10000": round(max(errors, default=0.0), 3),
    }


def prepared_tokenizer(source: Path, folder: Path) -> None:
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(source).save_pretrained(folder)


def compare(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    rows = options.data or folder / "rows.jsonl"
    largest = max(*options.sizes, options.rows, options.peer_rows)
    if not rows.exists():
        started = time.perf_counter()
        write_rows(rows, largest)
        print(f"{largest:,} rows written in {time.perf_counter() - started:.0f} s", flush=True)
    part = first_rows(rows, options.peer_rows, folder)
    rounds = [
        {name: run(name, part, options, folder) for name in ("ours", "trl", "tokens")}
        for _ in range(options.rounds)
    ]
    seconds = {name: [one[name]["seconds"] for one in rounds] for name in MEASURES}
    tokens = {name: rounds[0][name]["tokens"] for name in ("ours", "trl")}
    whole = run("ours", first_rows(rows, options.rows, folder), options, folder)
    again = run("ours", first_rows(rows, options.rows, folder), options, folder, fresh=False)
    points = [(options.rows, whole["seconds"])]
    for size in options.sizes:
        points.append((size, run("ours", first_rows(rows, size, folder), options, folder)["seconds"]))
    found, bound = ratios(seconds["trl"], seconds["ours"]), ratios(seconds["trl"], seconds["tokens"])
    return {
        "bench": "prepare",
        "ratio": round(statistics.median(found), 2),
        "spread": [round(min(found), 2), round(max(found), 2)],
        "bound": round(statistics.median(bound), 2),
        "required": REQUIRED,
        "seconds": {name: [round(value, 2) for value in values] for name, values in seconds.items()},
        "tokens": tokens,
        "rows": options.rows,
        "first_start_s": round(whole["seconds"], 2),
        "second_start_s": round(again["seconds"], 2),
        "resident_gb": round(max(whole["resident_gb"], whole["resident_child_gb"]), 3),
        "points": [[size, round(taken, 2)] for size, taken in sorted(points)],
        "line": line_through(points),
        "processes": options.processes,
        "load": load(),
    }


def main() -> None:
    if sys.argv[1:2] == ["--measure"]:
        name, rows, tokenizer, processes, cache = sys.argv[2:]
        print(json.dumps(MEASURES[name](Path(rows), Path(tokenizer), int(processes), Path(cache))))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=174_663)
    parser.add_argument("--peer-rows", type=int, default=174_663)
    parser.add_argument(
        "--sizes", type=lambda text: [*map(int, text.split(","))], default="1000,10000,100000,1000000"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, help="a file of rows: written once, a quarter of an hour")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--tokenizer", type=Path, default=QWEN3 if QWEN3.exists() else ROOT / "assets/tiny-moe"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        prepared_tokenizer(options.tokenizer, Path(folder) / "tokenizer")
        print(json.dumps(compare(options, Path(folder))))


if __name__ == "__main__":
    main()
