"""The parts of a document: its paths, and the values at its leaves. Pure, free of torch."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

from lib.evaluation.formats import Document

Path = tuple[str | int, ...]
"""Keys and list positions from the root; () is the root itself."""

TEXT_ONLY = ("csv", "xml")
"""Formats without types: every value is text."""
SHOWN_CHARACTERS = 200


def nodes(document: Document, path: Path = ()) -> Iterator[tuple[Path, Document]]:
    """Every value of the document with its path, from the root on, in the document's order."""
    yield path, document
    if isinstance(document, dict):
        for key, value in document.items():
            yield from nodes(value, (*path, key))
    elif isinstance(document, list):
        for position, value in enumerate(document):
            yield from nodes(value, (*path, position))


def key_paths(document: Document) -> list[Path]:
    """The path of everything but the root: of mappings and lists on the way as well as of leaves."""
    return [path for path, _ in nodes(document) if path]


def leaves(document: Document) -> dict[Path, Document]:
    """Values that hold no others: scalars, and mappings and lists that are empty."""
    return {path: value for path, value in nodes(document) if not isinstance(value, dict | list) or not value}


def comparable(value: Document, format_name: str) -> Hashable:
    """Leaves of documents in one format are equal when these are.

    Types count: the text "1" is no number, true is no 1, a date is no text. Numbers compare by value, so 1 is
    1.0, which JSON does not tell apart and a conversion may lose. Text is compared exactly; in CSV and XML,
    where all is text, "1.0" is not "1", and runs of white space are one space, as their line breaks are
    layout.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return (type(value).__name__, str(value))
    if isinstance(value, str):
        return ("text", " ".join(value.split()) if format_name in TEXT_ONLY else value)
    return ("number", value if value == value else "nan")


def shown_path(path: Path) -> str:
    """As StructEval writes paths: `a.b[0].@c`, with backticks around keys that hold a dot or a bracket."""
    shown = "".join(f"[{step}]" if isinstance(step, int) else f".{_shown_key(step)}" for step in path)
    return shown.removeprefix(".")


def _shown_key(key: str) -> str:
    return f"`{key}`" if not key or set(key) & set(".[]`") else key


def shown_value(value: Document) -> Any:
    """The value as strict JSON can carry it, shortened; what JSON has no type for becomes `type: text`."""
    if isinstance(value, str):
        return value if len(value) <= SHOWN_CHARACTERS else value[:SHOWN_CHARACTERS] + "…"
    if value is None or isinstance(value, bool) or (isinstance(value, int) and abs(value) < 2**53):
        return value
    if isinstance(value, float) and abs(value) < float("inf"):
        return value
    return value if value in ({}, []) else f"{type(value).__name__}: {str(value)[:SHOWN_CHARACTERS]}"
