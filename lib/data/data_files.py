"""Local data files into rows: .jsonl, .json, .parquet, .csv and .arrow (as `datasets` writes it)."""

import csv
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from lib.data.first_problems import FirstProblems
from lib.settings.errors import InputError, Problem

Row = Mapping[str, Any]

SHOWN_NAMES = 5
# Words that Hugging Face recognises in a file or folder name, by split.
SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
# Files that accompany data and are no data themselves.
_COMPANIONS = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}


def read_file(path: Path) -> list[Row]:
    """All rows of one file. Raises InputError naming the file and, for text formats, the line."""
    try:
        return _READERS[path.suffix.lower()](path)
    except OSError as error:
        raise _unreadable(
            str(path), error.strerror or str(error), "check the path and its permissions"
        ) from error
    except UnicodeDecodeError as error:
        raise _unreadable(str(path), f"byte {error.start} is not UTF-8", "save the file as UTF-8") from error


def fingerprint(paths: Sequence[Path]) -> str:
    """sha256 over the bytes of the files, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def files_of_split(folder: Path, split: str) -> list[Path]:
    """The data files of a split, sorted by name.

    A file belongs to a split when its name or a folder above it carries the split's word (Hugging Face's
    convention); files that carry no split's word are `train`. Files of several formats are refused: the same
    rows would often be counted twice.
    """
    found = _data_files(folder)
    if not found:
        raise _unreadable(
            str(folder), "no data file in this folder", f"put a file ending in {', '.join(_READERS)} there"
        )
    matching = [path for path in found if _has_split(path.relative_to(folder), split)]
    if not matching and split == "train":
        matching = [path for path in found if _known_split(path.relative_to(folder)) is None]
    if not matching:
        splits = sorted({_known_split(path.relative_to(folder)) or "train" for path in found})
        raise InputError.of(
            where=str(folder),
            key="split",
            value=split,
            expected=f"a split that this folder has: {', '.join(splits)}",
            remedy=f"name the file itself as the id; the folder has {_names(found)}",
        )
    if len({path.suffix.lower() for path in matching}) > 1:
        raise _unreadable(
            str(folder),
            f"data files of several formats: {_names(matching)}",
            "name one file itself as the id",
        )
    return matching


def _data_files(folder: Path) -> list[Path]:
    def is_data(path: Path) -> bool:
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        return (
            path.suffix.lower() in _READERS and path.name not in _COMPANIONS and not hidden and path.is_file()
        )

    return sorted(path for path in folder.rglob("*") if is_data(path))


def _has_split(path: Path, split: str) -> bool:
    words = SPLIT_WORDS.get(split, (split,))
    pattern = "|".join(rf"(?<![a-z]){re.escape(word.lower())}(?![a-z])" for word in words)
    return re.search(pattern, str(path.with_suffix("")).lower()) is not None


def _known_split(path: Path) -> str | None:
    return next((split for split in SPLIT_WORDS if _has_split(path, split)), None)


def _names(paths: Sequence[Path]) -> str:
    shown = ", ".join(path.name for path in paths[:SHOWN_NAMES])
    return shown + (f" and {len(paths) - SHOWN_NAMES} more" if len(paths) > SHOWN_NAMES else "")


def _read_jsonl(path: Path) -> list[Row]:
    return _jsonl_rows(path, path.read_text(encoding="utf-8-sig"))


def _jsonl_rows(path: Path, text: str) -> list[Row]:
    rows: list[Row] = []
    broken = FirstProblems()
    # Not str.splitlines: U+2028 and its kind are legal inside JSON strings and end no line.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            reason = "" if isinstance(row, dict) else f"a JSON {type(row).__name__}, not an object"
        except (ValueError, RecursionError) as error:
            reason = str(error)
        if reason:
            expected = f"one JSON object on the line ({reason})"
            broken.add(Problem(f"{path}:{number}", "JSON line", line, expected, "mend or remove the line"))
        else:
            rows.append(row)
    if broken.total:
        raise InputError(broken.all_shown(str(path), "broken lines"))
    return rows


def _read_json(path: Path) -> list[Row]:
    text = path.read_text(encoding="utf-8-sig")
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # JSON lines in a file called .json, as many data sets have
            return _jsonl_rows(path, text)
        raise _unreadable(f"{path}:{error.lineno}", f"not valid JSON: {error}", "mend the file") from error
    if isinstance(content, dict):
        lists = [value for value in content.values() if isinstance(value, list)]
        content = lists[0] if len(lists) == 1 else content
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise _unreadable(
            str(path),
            "not a list of objects, nor an object with one such list",
            "write the rows as [{…}, {…}]",
        )
    return content


def _read_csv(path: Path) -> list[Row]:
    """Every field stays text: type inference would turn "007" into 7 and "yes" into True."""
    csv.field_size_limit(2**31 - 1)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(StringIO(file.read(), newline=""), strict=True)
        try:
            rows: list[Row] = []
            for row in reader:
                if None in row or None in row.values():
                    raise csv.Error(
                        f"the number of fields differs from the header's {len(reader.fieldnames or ())}"
                    )
                rows.append(row)
        except csv.Error as error:
            raise _unreadable(
                f"{path}:{reader.line_num}", f"not valid CSV: {error}", "mend the line"
            ) from error
    return rows


def _read_parquet(path: Path) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        # Not read_table: it imports pandas, which takes longer than reading.
        rows: list[Row] = pyarrow.parquet.ParquetFile(path).read().to_pylist()
    except pyarrow.ArrowException as error:
        raise _unreadable(
            str(path), f"not a readable parquet file: {error}", "fetch or write it again"
        ) from error
    return rows


def _read_arrow(path: Path) -> list[Row]:
    import pyarrow

    try:
        with pyarrow.memory_map(str(path)) as file:
            rows: list[Row] = pyarrow.ipc.open_stream(file).read_all().to_pylist()
    except pyarrow.ArrowException as error:
        raise _unreadable(
            str(path), f"not a readable arrow file: {error}", "fetch or write it again"
        ) from error
    return rows


def _unreadable(where: str, reason: str, remedy: str) -> InputError:
    return InputError.of(
        where=where, key="data set", value=reason, expected="a readable data set", remedy=remedy
    )


_READERS: dict[str, Callable[[Path], list[Row]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
    ".csv": _read_csv,
    ".arrow": _read_arrow,
}
EXTENSIONS = tuple(_READERS)
