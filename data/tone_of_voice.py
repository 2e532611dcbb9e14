"""Short conversations whose answers keep one tone of voice: what `data.nya` and `data.noda` are made with."""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Pair = tuple[str, str]
"""Question and answer."""


def draw_pairs(
    fixed: Sequence[Pair], forms: Sequence[tuple[Sequence[str], str, str]], *, seed: str, rows: int
) -> list[Pair]:
    """`rows` of the fixed pairs and of the forms, filled with each word of their pool; each question once."""
    formed = [
        (question.format(word), answer.format(word)) for pool, question, answer in forms for word in pool
    ]
    return random.Random(seed).sample([*fixed, *formed], rows)


def write_split(folder: Path, rows: Sequence[Row], training: int) -> None:
    """The first `training` rows to training.jsonl, the others to validation.jsonl."""
    for name, part in (("training", rows[:training]), ("validation", rows[training:])):
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in part)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")


def command(description: str | None, folder: Path, write_files: Callable[[Path, int], None]) -> None:
    """The command line of one such generator."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=folder)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    write_files(arguments.output, arguments.seed)
