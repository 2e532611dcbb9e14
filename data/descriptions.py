"""Documents told in words, the source of text-to-format rows and part of the pretraining text.

Keys appear as they are, so that the wanted key is never a guess.
"""

from __future__ import annotations

from typing import Any

from data.formats import as_text


def listed(items: list[str], japanese: bool) -> str:
    if japanese:
        return "と".join(items)
    return ", ".join(items[:-1]) + f" and {items[-1]}" if len(items) > 1 else items[0]


def fields_in_words(fields: dict[str, Any], japanese: bool) -> str:
    """`the title is X and the year is 2020`, or `titleはX、yearは2020`."""
    if japanese:
        return "、".join(f"{key}は{as_text(value)}" for key, value in fields.items())
    return listed([f"the {key} is {as_text(value)}" for key, value in fields.items()], False)


def sentence(key: str, value: Any, japanese: bool) -> str:
    if isinstance(value, dict):
        inside = fields_in_words(value, japanese)
        return f"{key}では{inside}。" if japanese else f"In the {key}, {inside}."
    if isinstance(value, list) and isinstance(value[0], dict):
        records = [fields_in_words(record, japanese) for record in value]
        parts = [
            f"{key}の{i}番目: {text}。" if japanese else f"{key} {i}: {text}."
            for i, text in enumerate(records, 1)
        ]
        return ("" if japanese else " ").join(parts)
    if isinstance(value, list):
        items = listed([as_text(item) for item in value], japanese)
        return f"{key}は{items}。" if japanese else f"The {key} are {items}."
    return f"{key}は{as_text(value)}。" if japanese else f"The {key} is {as_text(value)}."


def describe(document: dict[str, Any], japanese: bool) -> str:
    """The whole document, one sentence per key."""
    return ("" if japanese else " ").join(sentence(key, value, japanese) for key, value in document.items())
