"""Local data files into rows: .jsonl, .json, .parquet, .csv and .arrow (as `datasets` writes it).

No other file of a folder is opened: pickles (.pkl, .pt, .bin) in particular run code when they are read.
"""

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from lib.data.reading.broken_rows import Row, shown_names, unreadable
from lib.data.reading.columnar_files import read_arrow, read_parquet
from lib.data.reading.text_files import read_csv, read_json, read_jsonl
from lib.settings.errors import InputError

# Words that Hugging Face recognises in a file or folder name, by split.
SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
MOST_FILES = 50_000
# Files that accompany data and are no data themselves.
_COMPANIONS = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}


def read_file(path: Path) -> list[Row]:
    """All rows of one file; those that are broken as BrokenRow.

    Raises InputError naming the file, and line or row group where there are such, when none can be read.
    """
    try:
        return _READERS[path.suffix.lower()](path)
    except OSError as error:
        raise _not_opened(path, error) from error
    except UnicodeDecodeError as error:
        raise unreadable(str(path), f"byte {error.start} is not UTF-8", "save the file as UTF-8") from error


def fingerprint(paths: Sequence[Path]) -> str:
    """sha256 over the bytes of the files, in the order given. Raises InputError as `read_file` does."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise _not_opened(path, error) from error
    return digest.hexdigest()


def _not_opened(path: Path, error: OSError) -> InputError:
    return unreadable(str(path), error.strerror or str(error), "check the path and its permissions")


def files_of_split(folder: Path, split: str) -> list[Path]:
    """The data files of a split, sorted by name.

    A file belongs to a split when its name or a folder above it carries the split's word (Hugging Face's
    convention); files that carry no split's word are `train`. Files of several formats are refused: the same
    rows would often be counted twice.
    """
    found = _data_files(folder)
    if not found:
        raise unreadable(
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
        raise unreadable(
            str(folder),
            f"data files of several formats: {_names(matching)}",
            "name one file itself as the id",
        )
    return matching


def _data_files(folder: Path) -> list[Path]:
    """Below the folder, without what is hidden and without following links to folders. Raises InputError for
    a folder that is none of data, such as `/`."""
    found: list[Path] = []
    seen = 0
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        seen += len(folders) + len(names)
        if seen > MOST_FILES:
            reason = f"more than {MOST_FILES:,} files and folders in it"
            raise unreadable(str(folder), reason, "name the folder that the data lies in")
        data = (name for name in names if not name.startswith(".") and name not in _COMPANIONS)
        found += [Path(parent, name) for name in data if Path(name).suffix.lower() in _READERS]
    return sorted(path for path in found if path.is_file())


def _has_split(path: Path, split: str) -> bool:
    words = SPLIT_WORDS.get(split, (split,))
    pattern = "|".join(rf"(?<![a-z]){re.escape(word.lower())}(?![a-z])" for word in words)
    return re.search(pattern, str(path.with_suffix("")).lower()) is not None


def _known_split(path: Path) -> str | None:
    return next((split for split in SPLIT_WORDS if _has_split(path, split)), None)


def _names(paths: Sequence[Path]) -> str:
    return shown_names([path.name for path in paths])


_READERS: dict[str, Callable[[Path], list[Row]]] = {
    ".jsonl": read_jsonl,
    ".json": read_json,
    ".parquet": read_parquet,
    ".csv": read_csv,
    ".arrow": read_arrow,
}
EXTENSIONS = tuple(_READERS)
