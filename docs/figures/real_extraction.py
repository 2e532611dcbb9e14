"""The shape of the news curriculum on real sentences: names from Japanese Wikipedia, by the tiny base.

    python docs/figures/real_extraction.py ../shared/data/ner_wikipedia_ja [--steps 600 200]

Stage 1 learns from sentences that name a person, stage 2 from these and sentences that name none, 1 : 1.2.
Nobody here is an offender, so the record has names alone, and what is found and invented is counted here from
the answers that a stage leaves.

The base writes a character that it does not know as bytes, which it cannot copy. So judged are real
sentences, unchanged, whose names it can spell; and in the sentences to learn from, each name is replaced by
one that it can spell, in several ways, so that finding a name pays and remembering one does not. Prints a
table for docs/log.md. Nothing that is written holds sentences but the folder --work.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from lib.evaluation.tally import Tally, intervals, ratios  # noqa: E402  (found by the line above)

BASE = ROOT / "assets/tiny-moe"
LONGEST = 60
"""Characters of a sentence: about 75 tokens of the tiny base."""
WAYS = 6
"""How often a sentence is there to learn from, with other names each time."""
COMMON = {
    "SFT_STRICT": 1,
    "SFT_BASE_MODEL": BASE,
    "SFT_VAL_RATIO": 0,
    "SFT_MAX_SEQ_LEN": 384,
    "SFT_MASK_COT": 0,
    "SFT_EPOCHS": 100,
    "SFT_PER_DEVICE_TRAIN_BS": 8,
    "SFT_GRAD_ACCUM": 1,
    "SFT_WARMUP_RATIO": 0.05,
    "SFT_LOGGING_STEPS": 100,
    "SFT_EVAL_STEPS": 200,
    "SFT_SAVE_STEPS": 200,
    "SFT_SAVE_TOTAL_LIMIT": 1,
    "SFT_GEN_EVAL_TASK": "structured",
    "SFT_GEN_EVAL_SAMPLES": 200,
    "SFT_GEN_EVAL_BATCH_SIZE": 100,
    "SFT_GEN_EVAL_MAX_NEW_TOKENS": 60,
    "SFT_GEN_EVAL_EVERY": 0,
}


@dataclass(frozen=True)
class Sentence:
    """`spans` are the places of the names of persons, from left to right, none over another."""

    text: str
    spans: tuple[tuple[int, int], ...]

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(self.text[start:end] for start, end in self.spans))

    def renamed(self, others: Mapping[str, str]) -> Sentence:
        """With every name replaced."""
        text, spans, done = "", [], 0
        for start, end in self.spans:
            text += self.text[done:start]
            spans.append((len(text), len(text) + len(others[self.text[start:end]])))
            text, done = text + others[self.text[start:end]], end
        return Sentence(text + self.text[done:], tuple(spans))

    def row(self) -> dict[str, Any]:
        return {
            "instruction": "人物を抽出してください。",
            "input": self.text,
            "output": json.dumps({"persons": self.names}, ensure_ascii=False),
            "metadata": {"format": "json", "type": "named" if self.spans else "nameless"},
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="the folder with ner.json")
    parser.add_argument("--work", type=Path, default=Path("/tmp/real_extraction"))
    parser.add_argument("--steps", type=int, nargs=2, default=(600, 200), help="SFT_MAX_STEPS of each stage")
    options = parser.parse_args()
    work = options.work.resolve()
    write_rows(options.data / "ner.json", work)
    write_stages(work, options.steps)
    columns = []
    for stage in (1, 2):
        command = [sys.executable, "train.py", "--stages-dir", work / "stages", "--stage", stage, "--force"]
        environ = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{work}/mlflow.db"}
        subprocess.run([*map(str, command)], cwd=ROOT, env=environ, check=True)
        columns.append(measure(work / f"lora_stage{stage}"))
        print(f"load after stage {stage}: {os.getloadavg()[0]:.1f}")
    print_table(columns)


def write_rows(source: Path, work: Path) -> None:
    """positives.jsonl and negatives.jsonl to train on; heldout.jsonl, half of it without names."""
    work.mkdir(parents=True, exist_ok=True)
    found = [as_sentence(entry) for entry in json.loads(source.read_text(encoding="utf-8"))]
    spelt = spellable()
    short = [sentence for sentence in found if len(sentence.text) <= LONGEST]
    nameless = [sentence for sentence in short if not sentence.spans]
    named = [sentence for sentence in short if sentence.spans]
    judged = [sentence for sentence in named if all(map(spelt, sentence.names))]
    held = {name for sentence in judged for name in sentence.names}
    pool = sorted({name for sentence in found for name in sentence.names if spelt(name)} - held)
    learned = [sentence for sentence in named if sentence not in judged]
    parts = {
        "heldout": [*judged, *nameless[: len(judged)]],
        "positives": renamed(learned, pool),
        "negatives": nameless[len(judged) :],
    }
    print(f"{len(learned)} sentences under {len(pool)} names, each in {WAYS} ways")
    for name, sentences in parts.items():
        lines = (json.dumps(sentence.row(), ensure_ascii=False) + "\n" for sentence in sentences)
        (work / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        print(f"{name}: {len(sentences)} sentences")


def as_sentence(entry: Mapping[str, Any]) -> Sentence:
    spans: list[tuple[int, int]] = []
    for start, end in sorted(tuple(e["span"]) for e in entry["entities"] if e["type"] == "人名"):
        if not spans or start >= spans[-1][1]:
            spans.append((start, end))
    return Sentence(entry["text"], tuple(spans))


def spellable() -> Callable[[str], bool]:
    """Whether the base's tokenizer knows every character of a name."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(BASE / "tokenizer.json"))
    return lambda name: all(len(tokenizer.encode(character).ids) == 1 for character in name)


def renamed(sentences: Sequence[Sentence], pool: Sequence[str]) -> list[Sentence]:
    draw = random.Random(1)
    return [
        sentence.renamed(dict(zip(sentence.names, draw.sample(pool, len(sentence.names)), strict=True)))
        for sentence in sentences
        for _ in range(WAYS)
    ]


def write_stages(work: Path, steps: Sequence[int]) -> None:
    mix = [{"id": f"{work}/positives.jsonl"}, {"id": f"{work}/negatives.jsonl", "weight": 1.2}]
    own = {
        1: {"SFT_DATASET_ID": work / "positives.jsonl", "SFT_LR": 1e-3},
        2: {"SFT_DATASET_MIX": json.dumps(mix), "SFT_LR": 5e-4},  # at 1e-3 it hardly names anybody
    }
    (work / "stages").mkdir(exist_ok=True)
    for stage, keys in own.items():
        shared = {"SFT_OUT_LORA_DIR": work / "lora", "SFT_GEN_EVAL_DATASET_ID": work / "heldout.jsonl"}
        values = {**COMMON, **shared, **keys, "SFT_MAX_STEPS": steps[stage - 1]}
        text = "".join(f"{key}='{value}'\n" for key, value in values.items())
        (work / f"stages/stage{stage}.env").write_text(text, encoding="utf-8")


def measure(stage_dir: Path) -> dict[str, str]:
    """Scores with 95 % intervals over the held-out sentences."""
    last = max(stage_dir.glob("gen_metrics_step*.json"), key=lambda path: path.stat().st_mtime)
    samples = json.loads(last.read_text(encoding="utf-8"))["samples"]
    tallies = [
        tally(persons(sample["reference"]) or set(), persons(sample["document"])) for sample in samples
    ]
    bounds = intervals(tallies)
    return {
        name: f"{value:.3f} [{bounds[name][0]:.2f}, {bounds[name][1]:.2f}]"
        for name, value in ratios(tallies).items()
    }


def tally(gold: set[str], said: set[str] | None) -> Tally:
    """What one answer contributes; `said` is None for one that cannot be read."""
    found = said or set()
    hits, is_named = len(gold & found), bool(gold) and bool(found)
    counts = {
        "parse_rate": (float(said is not None), 1.0),
        "name_f1": (2.0 * hits, float(len(gold) + len(found))),
        "name_precision": (float(hits), float(len(found))),
        "name_recall": (float(hits), float(len(gold))),
        "presence_f1": (2.0 * is_named, float(bool(gold)) + bool(found)),
    }
    if not gold:
        counts["unparsed_rate_on_nameless"] = (float(said is None), 1.0)
        if said is not None:
            counts["fp_rate_on_nameless"] = (float(bool(said)), 1.0)
    return counts


def persons(text: str) -> set[str] | None:
    """None when it is no record."""
    try:
        found = json.loads(text)["persons"]
    except (ValueError, KeyError, TypeError):
        return None
    return {name for name in found if isinstance(name, str)} if isinstance(found, list) else None


def print_table(columns: Sequence[Mapping[str, str]]) -> None:
    print("| | stage 1 | stage 2 |\n|---|---|---|")
    for name in dict.fromkeys(name for column in columns for name in column):
        print(f"| `{name}` | " + " | ".join(column.get(name, "-") for column in columns) + " |")


if __name__ == "__main__":
    main()
