"""Documents of five formats, read strictly and within bounds: text in, plain values out. Free of torch.

What a model says may be anything, so nothing here may crash, hang or eat memory: a text is at most
LONGEST_DOCUMENT characters and a document at most DEEPEST levels, YAML has no aliases and XML no document
type (both can unfold to gigabytes), and whatever breaks a bound is a failure like any other. The slowest
text found within the bounds is YAML of 100,000 characters of punctuation: about 3 s; every other format
takes less than 0.5 s. Honest answers take milliseconds.

JSON   RFC 8259: no NaN, no Infinity. Of equal keys the last one counts, as the RFC leaves it open. Integers
       of more than 4,300 digits are failures: Python does not read them.
YAML   what PyYAML's safe loader makes of it, if that is a mapping or a list. Equal keys are an error (YAML
       1.2, 3.2.1.1). Prose with a colon is a mapping to any parser: it is recognised by keys that are
       sentences.
TOML   1.0, as tomllib reads it, and not empty.
XML    well-formed, without a document type. See `xml_documents` for its values.
CSV    RFC 4180, a rectangle of two columns or more and one row or more under a header of distinct names.
       Spaces around a name are refused: by RFC 4180 they belong to it, and it is how prose with commas looks.
"""

from __future__ import annotations

import csv
import io
import json
import tomllib
from collections.abc import Callable
from datetime import date, datetime, time
from typing import Any, TypeAlias

from lib.evaluation.bounds import DEEPEST, LONGEST_DOCUMENT
from lib.evaluation.xml_documents import read_xml
from lib.evaluation.yaml_documents import read_yaml

LARGEST_INTEGER = 10**4300
"""Python prints none beyond, however it was written (TOML and YAML have hexadecimal numbers)."""
MOST_DOTS_IN_A_LINE = 1000
"""tomllib's time is more than quadratic in the parts of a dotted key: 42 s for 50,000."""

Document: TypeAlias = (
    "dict[str, Document] | list[Document] | str | bool | int | float | date | datetime | time | None"
)


class Unparsable(ValueError):  # noqa: N818 - it reads as what it says: the text is unparsable
    """The text is no document of its format, or breaks a bound; `reason` says why, in one line."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def read_document(text: str, format_name: str) -> Document:
    """The value of `text` in `format_name` (json, yaml, toml, xml, csv).

    Mappings have text as keys: a YAML key that is no text is written as JSON would write it. A CSV document
    is the list of its rows, each a mapping from header to text. Raises Unparsable, and KeyError for another
    format.
    """
    return read_with(READERS[format_name], text)


def read_with(reader: Callable[[str], Any], text: str) -> Document:
    """What `reader` makes of `text`, within the bounds. Raises Unparsable for everything that goes wrong."""
    if not text.strip():
        raise Unparsable("nothing there")
    if len(text) > LONGEST_DOCUMENT:
        raise Unparsable(f"longer than {LONGEST_DOCUMENT:,} characters")
    try:
        return _plain(reader(text))
    except Unparsable:
        raise
    except RecursionError as error:
        raise Unparsable(f"deeper than {DEEPEST} levels") from error
    except (ValueError, csv.Error) as error:
        raise Unparsable(" ".join(str(error).split())[:200]) from error


def _plain(value: Any, depth: int = 0) -> Document:
    """The value with text as keys. Raises ValueError beyond the bounds and for types that no format
    shares."""
    if depth > DEEPEST:
        raise ValueError(f"deeper than {DEEPEST} levels")
    if isinstance(value, dict):
        return {_plain_text(as_key(key)): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, str):
        return _plain_text(value)
    if isinstance(value, int) and abs(value) >= LARGEST_INTEGER:
        raise ValueError("an integer of more than 4,300 digits")
    if value is None or isinstance(value, bool | int | float | date | time):  # a datetime is a date
        return value
    raise ValueError(f"a value of type {type(value).__name__}")


def _plain_text(text: str) -> str:
    """JSON and YAML can escape half of a surrogate pair, which no file in UTF-8 can hold."""
    text.encode()
    return text


def as_key(key: Any) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, bool | int | float | None):
        return json.dumps(_plain(key))
    return str(key)


def read_json(text: str) -> Any:
    """Raises ValueError and RecursionError."""
    return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def read_toml(text: str) -> dict[str, Any]:
    """Raises ValueError and RecursionError."""
    if any(line.count(".") > MOST_DOTS_IN_A_LINE for line in text.split("\n")):
        raise ValueError(f"more than {MOST_DOTS_IN_A_LINE} dots in a line")
    tables = tomllib.loads(text)
    if not tables:
        raise ValueError("nothing there but comments")
    return tables


def read_csv(text: str) -> list[dict[str, str]]:
    """Raises ValueError and csv.Error."""
    header, *rows = csv.reader(io.StringIO(text.strip(), newline=""), strict=True)
    if len(header) < 2 or not rows:
        raise ValueError("fewer than two columns, or no row under the header")
    if any(not name or name != name.strip() for name in header):
        raise ValueError("a header with an empty name, or with spaces around a name")
    if len(set(header)) < len(header):
        raise ValueError("a header that names two columns alike")
    if any(len(row) != len(header) for row in rows):
        raise ValueError("rows of different lengths")
    return [dict(zip(header, row, strict=True)) for row in rows]


READERS: dict[str, Callable[[str], Any]] = {
    "json": read_json,
    "yaml": read_yaml,
    "toml": read_toml,
    "xml": read_xml,
    "csv": read_csv,
}
