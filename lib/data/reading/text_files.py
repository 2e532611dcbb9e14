"""Rows of text files: .jsonl, .json and .csv. A broken line is a BrokenRow; a broken .json is no rows."""

import csv
import json
from io import StringIO
from pathlib import Path
from typing import Any

from lib.data.reading.broken_rows import BrokenRow, Row, some_sound, unreadable


def read_jsonl(path: Path) -> list[Row]:
    """Raises InputError when no line can be read, OSError when the file cannot."""
    return _jsonl_rows(path, path.read_bytes())


def _jsonl_rows(path: Path, content: bytes) -> list[Row]:
    # Not str.splitlines: U+2028 and its kind are legal inside JSON strings and end no line.
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    numbered = ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
    rows = [_jsonl_row(f"{path}:{number}", line) for number, line in numbered]
    return some_sound(rows, str(path), "broken lines")


def _jsonl_row(where: str, line: bytes) -> Row:
    try:
        row = json.loads(line.decode())
        if isinstance(row, dict):
            return row
        reason = f"a JSON {type(row).__name__}, not an object"
    except UnicodeDecodeError as error:
        reason = f"byte {error.start} of the line is not UTF-8"
    except RecursionError:
        reason = "it is nested too deeply"
    except ValueError as error:
        reason = str(error)
    shown = line[:1000].decode(errors="backslashreplace")
    return BrokenRow(where, "JSON line", shown, f"one JSON object on the line ({reason})")


def read_json(path: Path) -> list[Row]:
    """One list of objects, an object with one such list, or JSON lines. Raises InputError for anything
    else."""
    encoded = path.read_bytes()
    try:
        content = json.loads(encoded.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # JSON lines in a file called .json, as many data sets have
            return _jsonl_rows(path, encoded)
        raise unreadable(f"{path}:{error.lineno}", f"not valid JSON: {error}", "mend the file") from error
    except UnicodeDecodeError:
        raise
    except RecursionError as error:
        raise unreadable(str(path), "not valid JSON: nested too deeply", "mend the file") from error
    except ValueError as error:  # an integer of more than 4,300 digits
        raise unreadable(str(path), f"not valid JSON: {error}", "mend the file") from error
    if isinstance(content, dict):
        lists = [value for value in content.values() if isinstance(value, list)]
        content = lists[0] if len(lists) == 1 else content
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise unreadable(
            str(path),
            "not a list of objects, nor an object with one such list",
            "write the rows as [{…}, {…}]",
        )
    return content


def read_csv(path: Path) -> list[Row]:
    """Every field stays text: type inference would turn "007" into 7 and "yes" into True."""
    csv.field_size_limit(2**31 - 1)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(StringIO(file.read(), newline=""), strict=True)
    try:
        header = next(reader, None)
    except csv.Error as error:
        raise unreadable(f"{path}:{reader.line_num}", f"not valid CSV: {error}", "mend the line") from error
    rows: list[Row] = []
    while header is not None and (row := _csv_row(path, reader, header)) is not None:
        rows.append(row)
    return some_sound(rows, str(path), "broken lines")


def _csv_row(path: Path, reader: Any, header: list[str]) -> Row | None:
    """The next row; None at the end. After an error the reader goes on with the line that follows."""
    try:
        fields = next(reader)
        while not fields:  # an empty line is none
            fields = next(reader)
        if len(fields) == len(header):
            return dict(zip(header, fields, strict=True))
        reason = f"the number of fields differs from the header's {len(header)}"
    except StopIteration:
        return None
    except csv.Error as error:
        fields, reason = [], str(error)
    where = f"{path}:{reader.line_num}"
    return BrokenRow(where, "CSV line", ",".join(fields)[:1000], f"a line of CSV ({reason})")
