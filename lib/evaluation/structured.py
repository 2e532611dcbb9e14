"""Does an answer parse, strictly, in the format it was asked for? Pure, free of torch.

The answer is what follows the last output marker; inside it a code fence, if there is one. Prose
must not pass: YAML counts only as a mapping or a list, CSV only as a rectangle under a header.
"""

from __future__ import annotations

import csv
import io
import json
import re
import tomllib
from collections.abc import Callable, Sequence
from xml.etree import ElementTree

import yaml

LONGEST_ANSWER = 200_000
FENCE = re.compile(r"^[ \t]*```[^\n]*\n(.*?)^[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE)


def answer_part(text: str, markers: Sequence[str]) -> str:
    """The document inside an answer: after the last marker, within the first code fence there."""
    end = max((text.rfind(marker) + len(marker) for marker in markers if marker in text), default=0)
    body = text[end:]
    fenced = FENCE.search(body)
    return (fenced.group(1) if fenced else body).strip()


def parses(document: str, format_name: str) -> bool:
    """True when `document` is well-formed in `format_name` (json, yaml, toml, xml, csv).

    Raises KeyError for another format.
    """
    check = PARSERS[format_name]
    if not document or len(document) > LONGEST_ANSWER:
        return False
    try:
        return check(document)
    except (ValueError, RecursionError, ElementTree.ParseError, csv.Error):
        return False


def _json(document: str) -> bool:
    json.loads(document, parse_constant=_refuse_constant)
    return True


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _toml(document: str) -> bool:
    return bool(tomllib.loads(document))


class _WithoutAliases(yaml.SafeLoader):
    """Aliases can blow up to gigabytes; no honest answer needs one."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias")
        return super().compose_node(parent, index)


def _yaml(document: str) -> bool:
    try:
        return isinstance(yaml.load(document, _WithoutAliases), dict | list)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _xml(document: str) -> bool:
    if "<!DOCTYPE" in document or "<!ENTITY" in document:  # entity bombs
        return False
    ElementTree.fromstring(document)
    return True


def _csv(document: str) -> bool:
    rows = list(csv.reader(io.StringIO(document), strict=True))
    header = rows[0]
    rectangular = all(len(row) == len(header) for row in rows)
    return len(rows) >= 2 and len(header) >= 2 and rectangular and all(name.strip() for name in header)


PARSERS: dict[str, Callable[[str], bool]] = {
    "json": _json,
    "yaml": _yaml,
    "toml": _toml,
    "xml": _xml,
    "csv": _csv,
}
