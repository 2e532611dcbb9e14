"""StructEval's own score, for comparison with published numbers: lenient where ours is strict.

0.2 · (the answer loads) + 0.8 · (key paths of the reference that the answer has ÷ all of them), as in
github.com/TIGER-AI-Lab/StructEval (2025), text formats; there the paths come with each task, here from the
reference. Values are never compared. Loading is lenient: in YAML any prose is a document, in CSV nearly
anything has a header, JSON may say NaN. Paths of CSV are `csv::header`, and `@name` is also found as
`name`. Only what could hang a computer is refused here too: aliases, entities, endless depth and length.
The text is taken as it is, so that Japanese survives.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Collection
from typing import Any

from lib.evaluation.formats import Document, Unparsable, read_toml, read_with
from lib.evaluation.leaves import Path, key_paths
from lib.evaluation.xml_documents import read_xml
from lib.evaluation.yaml_documents import YamlLoader, load_yaml

SYNTAX_WEIGHT, PATHS_WEIGHT = 0.2, 0.8
CSV_HEADER = "csv::"


def structeval_score(text: str, reference: Document, format_name: str) -> float | None:
    """From 0 to 1; None when the reference has no key paths, where their formula divides by zero."""
    wanted = required_paths(reference, format_name)
    if not wanted:
        return None
    try:
        found = set(required_paths(read_with(LENIENT_READERS[format_name], text), format_name))
    except Unparsable:
        return 0.0
    present = sum(_has(found, path) for path in wanted)
    return SYNTAX_WEIGHT + PATHS_WEIGHT * (present / len(wanted))


def required_paths(document: Document, format_name: str) -> list[Path]:
    """What StructEval asks for: the headers of a CSV document, the key paths of any other."""
    if format_name != "csv":
        return key_paths(document)
    rows = document if isinstance(document, list) else []
    return [(f"{CSV_HEADER}{header}",) for header in (rows[0] if rows and isinstance(rows[0], dict) else ())]


def _has(found: Collection[Path], path: Path) -> bool:
    bare = tuple(step.removeprefix("@") if isinstance(step, str) else step for step in path)
    return path in found or bare in found


def _json(text: str) -> Any:
    return json.loads(text)


def _yaml(text: str) -> Any:
    return load_yaml(text, YamlLoader)


def _csv(text: str) -> list[dict[str, str]]:
    """The header alone, whatever follows."""
    return [dict.fromkeys(next(csv.reader(io.StringIO(text, newline=""))), "")]


LENIENT_READERS: dict[str, Callable[[str], Any]] = {
    "json": _json,
    "yaml": _yaml,
    "toml": read_toml,
    "xml": read_xml,
    "csv": _csv,
}
