"""Write the news sets, from the repository root:

    python -m data.news.make_news            262 + 1,000 articles and 200 to judge by, into data/news/small
    python -m data.news.make_news --full     26,221 + 100,000, and 27,798 to judge by, into data/news/full
    python -m data.news.make_news --short    one-sentence articles for the embedded tiny base, into data/news/short

positives.jsonl has articles that name an offender, negatives.jsonl those that name none, heldout.jsonl
both in equal parts. The same seed gives the same bytes; no article stands twice. Rows are written as they
are made: what is kept in memory is one short hash an article.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from data.news.bystanders import other_article
from data.news.offenders import offender_article
from data.news.records import INSTRUCTION, SHORT_INSTRUCTION, Article, as_row
from data.news.short import short_offender, short_other
from data.news.world import World

Maker = Callable[[random.Random], Article]


@dataclass(frozen=True)
class NewsSet:
    """A folder of three files: rows in each, and what they are made of."""

    folder: str
    positives: int
    negatives: int
    heldout: int
    instruction: str
    offender: Maker
    other: Maker

    @property
    def files(self) -> dict[str, tuple[int, tuple[Maker, ...]]]:
        """File name → its rows, and the makers that take turns. The held-out rows come first: they are the
        same, and in no other file, however many rows the others have."""
        return {
            "heldout": (self.heldout, (self.offender, self.other)),
            "positives": (self.positives, (self.offender,)),
            "negatives": (self.negatives, (self.other,)),
        }


def long_offender(rng: random.Random) -> Article:
    return offender_article(World(rng))


def long_other(rng: random.Random) -> Article:
    return other_article(World(rng))


SMALL = NewsSet("small", 262, 1_000, 200, INSTRUCTION, long_offender, long_other)
FULL = NewsSet("full", 26_221, 100_000, 27_798, INSTRUCTION, long_offender, long_other)
SHORT = NewsSet("short", 320, 320, 80, SHORT_INSTRUCTION, short_offender, short_other)


def distinct(rng: random.Random, makers: tuple[Maker, ...], rows: int, seen: set[bytes]) -> Iterator[Article]:
    """`rows` articles by the makers in turn, none whose text is in `seen`, which grows."""
    made = 0
    while made < rows:
        article = makers[made % len(makers)](rng)
        key = hashlib.blake2b(article.text.encode(), digest_size=8).digest()
        if key not in seen:
            seen.add(key)
            made += 1
            yield article


def write_set(news: NewsSet, folder: Path, seed: int) -> dict[str, int]:
    """The three files; returns how many rows each has."""
    folder.mkdir(parents=True, exist_ok=True)
    seen: set[bytes] = set()
    for name, (rows, makers) in news.files.items():
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8", newline="\n") as file:
            for article in distinct(random.Random(f"{name} {seed}"), makers, rows, seen):
                file.write(json.dumps(as_row(article, news.instruction), ensure_ascii=False) + "\n")
    return {name: rows for name, (rows, _) in news.files.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--full", dest="news", action="store_const", const=FULL)
    size.add_argument("--short", dest="news", action="store_const", const=SHORT)
    parser.set_defaults(news=SMALL)
    parser.add_argument("--output", type=Path, help="folder to write to")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    folder = arguments.output or Path(__file__).parent / arguments.news.folder
    for name, rows in write_set(arguments.news, folder, arguments.seed).items():
        print(f"{folder / name}.jsonl: {rows:,} rows")


if __name__ == "__main__":
    main()
