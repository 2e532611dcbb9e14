"""What a reader should find in an article: the record that models are trained to give, and its row."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

Row = dict[str, Any]

INSTRUCTION = (
    "次のニュース記事に登場する人物、事件の発生場所、警察署をJSONで抽出してください。"
    "人物にはname、age、position、affiliation、address、act、is_offenderを書き、"
    "記事にない項目は空文字列にしてください。加害者とされる人物だけis_offenderをtrueにし、actに行為を書きます。"
)
SHORT_INSTRUCTION = "人物を抽出してください。"


@dataclass(frozen=True)
class Person:
    """A person whom an article names. Ages are digits; what the article does not say is empty."""

    name: str
    age: str = ""
    position: str = ""
    affiliation: str = ""
    address: str = ""
    act: str = ""
    is_offender: bool = False

    def accused(self, act: str) -> Person:
        return replace(self, act=act, is_offender=True)


@dataclass(frozen=True)
class Article:
    """A text with its record. `kind` is what it reports: arrest, trial, accident, weather, …"""

    text: str
    kind: str
    persons: tuple[Person, ...] = ()
    locations: tuple[str, ...] = ()
    """Where a named offender did it; empty without one."""
    police: tuple[str, ...] = field(default=())
    """Every police station that the text names."""

    @property
    def record(self) -> dict[str, Any]:
        """In the order of the text, `occured_locations` spelled as the task has it."""
        return {
            "persons": [asdict(person) for person in self.persons],
            "occured_locations": list(self.locations),
            "police_departments": list(self.police),
        }


def as_row(article: Article, instruction: str) -> Row:
    """instruction, input, output, and the kind as a label."""
    _check(article)
    return {
        "instruction": instruction,
        "input": article.text,
        "output": json.dumps(article.record, ensure_ascii=False, separators=(",", ":")),
        "metadata": {"type": article.kind},
    }


def _check(article: Article) -> None:
    """Whatever is asked for can be read in the text, word for word."""
    asked = [*article.locations, *article.police]
    for person in article.persons:
        asked += [value for value in asdict(person).values() if isinstance(value, str)]
        assert person.is_offender == bool(person.act), article
    missing = [value for value in asked if value not in article.text]
    assert not missing, (missing, article.text)
