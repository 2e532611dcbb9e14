"""The labels of a row, by which rules multiply it and reports group it."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from lib.files import parse_json

_ROW_FIELDS = ("subcategory", "task", "type", "output_type", "pack")
_METADATA_FIELDS = (
    "subcategory", "task", "type", "output_type", "pack", "format", "schema", "complexity",
)  # fmt: skip


class Label(NamedTuple):
    """Where a label came from and what it says."""

    field: str
    value: str
    """What a rule names: the field's value, or `pack:NAME` for a pack."""


def labels_of(row: Mapping[str, Any]) -> tuple[Label, ...]:
    """The distinct labels of a row: five fields of its own, eight of its `metadata` (object or JSON text)."""
    found = [*_labels(row, _ROW_FIELDS), *_labels(_metadata(row.get("metadata")), _METADATA_FIELDS)]
    return tuple(dict.fromkeys(found))


def _labels(fields: Mapping[str, Any], names: Iterable[str]) -> Iterator[Label]:
    for name in names:
        content = fields.get(name)
        if content is None:
            continue
        for value in content if isinstance(content, (list, tuple)) else (content,):
            text = str(value).strip() if isinstance(value, (str, bool, int, float)) else ""
            if text:
                yield Label(name, text if name != "pack" or text.startswith("pack:") else f"pack:{text}")


def _metadata(content: Any) -> Mapping[str, Any]:
    if isinstance(content, str):
        try:
            content = parse_json(content)
        except ValueError:
            return {}
    return content if isinstance(content, Mapping) else {}
