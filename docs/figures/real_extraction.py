"""The shape of the news curriculum on real sentences: names from Japanese Wikipedia, by the tiny base.

    python docs/figures/real_extraction.py ../shared/data/ner_wikipedia_ja [--steps 240 240]

Stage 1 learns from sentences that name a person, stage 2 from these and sentences that name none, 1 : 1.2.
The record has persons, places and organisations; nobody here is an offender, so the task is structured
output, and names found and invented are counted here from the samples that a stage leaves. Prints numbers
for docs/log.md. Nothing that is written holds sentences but the folder --work.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 44
"""Characters of a sentence: about 120 tokens of the tiny base."""
LISTS = {"人名": "persons", "地名": "places", "法人名": "organisations", "政治的組織名": "organisations"}
HELD_OUT_EACH = 40
COMMON = {
    "SFT_STRICT": 1,
    "SFT_BASE_MODEL": ROOT / "assets/tiny-moe",
    "SFT_VAL_RATIO": 0,
    "SFT_MAX_SEQ_LEN": 384,
    "SFT_MASK_COT": 0,
    "SFT_PER_DEVICE_TRAIN_BS": 4,
    "SFT_GRAD_ACCUM": 1,
    "SFT_WARMUP_RATIO": 0.05,
    "SFT_LOGGING_STEPS": 40,
    "SFT_GEN_EVAL_TASK": "structured",
    "SFT_GEN_EVAL_SAMPLES": 2 * HELD_OUT_EACH,
    "SFT_GEN_EVAL_BATCH_SIZE": 80,
    "SFT_GEN_EVAL_MAX_NEW_TOKENS": 100,
    "SFT_GEN_EVAL_EVERY": 0,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="the folder with ner.json")
    parser.add_argument("--work", type=Path, default=Path("/tmp/real_extraction"))
    parser.add_argument("--steps", type=int, nargs=2, default=(240, 240), help="SFT_MAX_STEPS of each stage")
    options = parser.parse_args()
    work = options.work.resolve()
    write_rows(options.data / "ner.json", work)
    write_stages(work, options.steps)
    print(f"load before: {os.getloadavg()[0]:.1f}")
    for stage in (1, 2):
        command = [sys.executable, "train.py", "--stages-dir", work / "stages", "--stage", stage, "--force"]
        environ = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{work}/mlflow.db"}
        subprocess.run([*map(str, command)], cwd=ROOT, env=environ, check=True)
        print(f"stage {stage}: {json.dumps(measure(work / f'lora_stage{stage}'))}")
    print(f"load after: {os.getloadavg()[0]:.1f}")


def write_rows(source: Path, work: Path) -> None:
    """positives.jsonl and negatives.jsonl to train on, heldout.jsonl with the first of each."""
    work.mkdir(parents=True, exist_ok=True)
    found = [as_row(entry) for entry in json.loads(source.read_text(encoding="utf-8"))]
    short = [row for row in found if len(row["input"]) <= LONGEST]
    positives = [row for row in short if row["metadata"]["type"] == "named"]
    negatives = [row for row in short if row["metadata"]["type"] == "nameless"]
    parts = {
        "heldout": [*positives[:HELD_OUT_EACH], *negatives[:HELD_OUT_EACH]],
        "positives": positives[HELD_OUT_EACH:],
        "negatives": negatives[HELD_OUT_EACH:],
    }
    for name, rows in parts.items():
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (work / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        print(f"{name}: {len(rows)} sentences")


def as_row(entry: Mapping[str, Any]) -> dict[str, Any]:
    record: dict[str, list[str]] = {name: [] for name in LISTS.values()}
    for entity in entry["entities"]:
        names = record.get(LISTS.get(entity["type"], ""))
        if names is not None and entity["name"] not in names:
            names.append(entity["name"])
    return {
        "instruction": "人物を抽出してください。",
        "input": entry["text"],
        "output": json.dumps(record, ensure_ascii=False),
        "metadata": {"format": "json", "type": "named" if record["persons"] else "nameless"},
    }


def write_stages(work: Path, steps: Sequence[int]) -> None:
    mix = [{"id": f"{work}/positives.jsonl"}, {"id": f"{work}/negatives.jsonl", "weight": 1.2}]
    own = {
        1: {"SFT_DATASET_ID": work / "positives.jsonl", "SFT_LR": 3e-3},
        2: {"SFT_DATASET_MIX": json.dumps(mix), "SFT_LR": 2e-3},
    }
    (work / "stages").mkdir(exist_ok=True)
    for stage, keys in own.items():
        shared = {"SFT_OUT_LORA_DIR": work / "lora", "SFT_GEN_EVAL_DATASET_ID": work / "heldout.jsonl"}
        values = {**COMMON, **shared, **keys, "SFT_MAX_STEPS": steps[stage - 1]}
        text = "".join(f"{key}='{value}'\n" for key, value in values.items())
        (work / f"stages/stage{stage}.env").write_text(text, encoding="utf-8")


def measure(stage_dir: Path) -> dict[str, float | None]:
    """Micro F1 over names of persons, and of the answers to nameless sentences that could be read the share
    with a person; None when none could be read."""
    record = json.loads((stage_dir / "stage.json").read_text(encoding="utf-8"))
    last = max(stage_dir.glob("gen_metrics_step*.json"), key=lambda path: path.stat().st_mtime)
    samples = json.loads(last.read_text(encoding="utf-8"))["samples"]
    pairs = [(persons(sample["reference"]), persons(sample["document"])) for sample in samples]
    hits = sum(len(gold & (said or set())) for gold, said in pairs if gold is not None)
    names = sum(len(gold or ()) + len(said or ()) for gold, said in pairs)
    nameless = [said for gold, said in pairs if not gold and said is not None]
    return {
        "persons_f1": round(2 * hits / names, 3) if names else 0.0,
        "fp_rate_on_nameless": round(sum(map(bool, nameless)) / len(nameless), 3) if nameless else None,
        "read": sum(said is not None for _, said in pairs),
        "answers": len(pairs),
        "leaf_f1": round(record["evaluation"]["after"]["metrics"]["gen_leaf_f1"], 3),
        "seconds": round(record["training"]["seconds"]),
    }


def persons(text: str) -> set[str] | None:
    """None when it is no record."""
    try:
        found = json.loads(text)["persons"]
    except (ValueError, KeyError, TypeError):
        return None
    return {name for name in found if isinstance(name, str)} if isinstance(found, list) else None


if __name__ == "__main__":
    main()
