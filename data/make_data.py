"""Write the embedded fine-tuning sets, from the repository root:

    python -m data.make_data

The same seed gives the same bytes. No row stands in two files, and the held-out rows are about schemas
that no training row and no pretraining text is about.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import dataclass
from pathlib import Path

from data.formats import FORMATS
from data.schemas import HELD_OUT, TRAINING, Schema
from data.tasks import Row, make_row

MAX_CHARACTERS = 850
"""Longest row, a Japanese character counting three: about 320 tokens of the tiny base."""


@dataclass(frozen=True)
class DataSet:
    """One file: how many rows, of which formats in which proportions, and the share of hard cases."""

    name: str
    rows: int
    weights: dict[str, int]
    hard_share: float
    schemas: list[Schema]


SETS = (
    DataSet(
        "general_conversion", 1600, {"json": 28, "yaml": 28, "xml": 28, "toml": 8, "csv": 8}, 0.0, TRAINING
    ),
    DataSet("toml_csv", 700, {"toml": 50, "csv": 50}, 0.1, TRAINING),
    DataSet("hard_cases", 500, dict.fromkeys(FORMATS, 20), 1.0, TRAINING),
    DataSet("heldout", 200, dict.fromkeys(FORMATS, 20), 0.25, HELD_OUT),
    DataSet("heldout_toml_csv", 100, {"toml": 50, "csv": 50}, 0.1, HELD_OUT),
    DataSet("heldout_hard", 100, dict.fromkeys(FORMATS, 20), 1.0, HELD_OUT),
)


def width(row: Row) -> int:
    """Characters, a non-ASCII one counting three."""
    return sum(3 if ord(char) > 127 else 1 for message in row["messages"] for char in message["content"])


def make_set(rng: random.Random, data_set: DataSet, seen: set[str]) -> list[Row]:
    """Rows in the wanted proportions, each prompt new across all files, none too long."""
    total = sum(data_set.weights.values())
    rows: list[Row] = []
    for target, weight in data_set.weights.items():
        wanted = data_set.rows * weight // total
        hard_rows = round(wanted * data_set.hard_share)
        made = 0
        while made < wanted:
            row = make_row(rng, rng.choice(data_set.schemas), target, hard=made < hard_rows)
            prompt = row["messages"][1]["content"]
            if prompt not in seen and width(row) <= MAX_CHARACTERS:
                seen.add(prompt)
                rows.append(row)
                made += 1
    rng.shuffle(rows)
    return rows


def write_sets(folder: Path, seed: int) -> dict[str, list[Row]]:
    """All files, one JSON object a line; returns the rows by file name."""
    seen: set[str] = set()
    made = {}
    for data_set in SETS:
        rows = make_set(random.Random(f"{data_set.name} {seed}"), data_set, seen)
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{data_set.name}.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")
        made[data_set.name] = rows
    return made


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    for name, rows in write_sets(arguments.output, arguments.seed).items():
        print(f"{name}: {len(rows)} rows")


if __name__ == "__main__":
    main()
