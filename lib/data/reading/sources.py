"""Data set ids into tables: local files and folders, or the Hugging Face Hub."""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lib.data.cache import least_bytes
from lib.data.reading.broken_rows import Row
from lib.data.reading.data_files import EXTENSIONS, files_of_split, fingerprint, read_file
from lib.data.reading.first_problems import FirstProblems
from lib.data.reading.hub import cached_files, is_hub_id, load_from_hub
from lib.data.reading.rows import Example
from lib.data.reading.split_parts import PART_FORM, SplitPart, parse_split
from lib.settings.errors import InputError, Problem
from lib.settings.schema import DataSettings


class NormalizedRows(ABC):
    """Rows of a large data set that were brought into one format when it was loaded."""

    @abstractmethod
    def __len__(self) -> int:
        """With those that fit no format."""

    @abstractmethod
    def examples(self, name: str) -> tuple[Example, ...]:
        """The usable ones, as rows of a source of this name."""

    @abstractmethod
    def problems(self, name: str) -> FirstProblems:
        """Of the others."""


Rows = Sequence[Row] | NormalizedRows


class Keep(Protocol):
    """Keeps rows on disk, not in memory."""

    def files(self, files: Sequence[Path], part: SplitPart, fingerprint: str) -> NormalizedRows | None:
        """The part of the rows of these files; None for files that cannot be read through."""

    def stream(self, name: str, part: SplitPart) -> tuple[NormalizedRows, str] | None:
        """The part of a Hub data set's rows as they arrive, and a fingerprint; None where that is not asked
        for."""


@dataclass(frozen=True)
class Source:
    """One data set of a stage, loaded."""

    id: str
    """As the settings name it: a local path or a Hub id."""
    name: str
    """The id, with the split unless it is `train`; unique within the mix."""
    split: str
    weight: float | None
    """Its part of the mix; None: every row once."""
    rows: Rows
    fingerprint: str
    """sha256 over the files' bytes, or the fingerprint that `datasets` gives a Hub data set."""


@dataclass(frozen=True)
class AbsentSource:
    """A Hub data set that is not on this machine yet: a plan names it, the run downloads it."""

    id: str
    split: str
    weight: float | None


@dataclass(frozen=True)
class LoadedSources:
    sources: tuple[Source, ...]
    absent: tuple[AbsentSource, ...] = ()
    notices: tuple[str, ...] = ()
    """[ERROR] lines of data sets that failed to load, in the lenient mode."""


def load_sources(
    data: DataSettings, *, strict: bool, allow_download: bool = True, keep: Keep | None = None
) -> LoadedSources:
    """Loads every data set of the mix, in its order; large ones through `keep`.

    Strict: InputError with the problems of all data sets that fail. Lenient: a failing one becomes a notice
    and is left out; InputError when none is left. Without `allow_download` a Hub data set that the local
    cache does not hold is reported as absent instead of loaded.
    """
    sources: list[Source] = []
    absent: list[AbsentSource] = []
    problems: list[Problem] = []
    notices: list[str] = []
    for entry in data.mix:
        try:
            loaded = load_source(entry.id, entry.split, allow_download=allow_download, keep=keep)
        except InputError as error:
            problems.extend(error.problems)
            notices.append(f"[ERROR] Failed to load {entry.id}: {_one_line(error)}")
            continue
        if loaded is None:
            absent.append(AbsentSource(entry.id, entry.split, entry.weight))
        else:
            rows, content_hash = loaded
            name = _unique_name(entry.id, entry.split, [source.name for source in sources])
            sources.append(Source(entry.id, name, entry.split, entry.weight, rows, content_hash))
    if problems and (strict or not (sources or absent)):
        raise InputError(problems)
    return LoadedSources(tuple(sources), tuple(absent), tuple(notices))


def load_source(
    name: str, split: str, *, allow_download: bool = True, keep: Keep | None = None
) -> tuple[Rows, str] | None:
    """Rows and fingerprint of one data set; None when it would have to be downloaded and must not.

    A path that exists is read from disk, whatever else the name may mean; one that only looks like a path is
    an InputError, and so are unreadable files, a missing split and an empty data set.
    """
    path = Path(name).expanduser()
    if path.exists():
        loaded: tuple[Rows, str] | None = _load_local(path, name, split, keep)
    elif _looks_like_a_path(name):
        raise _missing_path(name, path)
    elif allow_download:
        part = parse_split(split)
        loaded = (keep.stream(name, part) if keep and part else None) or _load_hub(name, split, part, keep)
    else:
        files = cached_files(name, split)
        loaded = _read_files(files, SplitPart(split), keep) if files else None
    if loaded is not None and not len(loaded[0]):
        raise InputError.of(
            where=name,
            key="data set",
            value=f"split {split}: 0 rows",
            expected="at least one row",
            remedy="check that the file was written completely, or leave it out",
        )
    return loaded


def _unique_name(name: str, split: str, taken: Sequence[str]) -> str:
    if split != "train":
        name = f"{name}[{split}]"
    twins = sum(other == name or other.startswith(f"{name} (") for other in taken)
    return f"{name} ({twins + 1})" if twins else name


def _load_local(path: Path, name: str, split: str, keep: Keep | None) -> tuple[Rows, str]:
    part = parse_split(split)
    if part is None:
        raise InputError.of(
            where=name,
            key="split",
            value=split,
            expected=f"a split of a local data set: {PART_FORM}",
            remedy="write one part; several are several entries of the mix",
        )
    if not path.is_dir() and path.suffix.lower() not in EXTENSIONS:
        raise InputError.of(
            where=name,
            key="data set",
            value=path.suffix or "no file ending",
            expected=f"a folder or a file ending in {', '.join(EXTENSIONS)}",
            remedy="convert or rename the file",
        )
    if not path.is_dir() and not path.is_file():
        raise InputError.of(
            where=name,
            key="data set",
            value="neither a file nor a folder",
            expected="a regular file: a pipe or a device might never end",
            remedy="write its content to a file",
        )
    # A single file is what the id names, whatever the split is called.
    files = files_of_split(path, part.name) if path.is_dir() else [path]
    return _read_files(files, part, keep)


def _read_files(files: Sequence[Path], part: SplitPart, keep: Keep | None) -> tuple[Rows, str]:
    digest = fingerprint(files)
    if keep and _are_large(files) and (kept := keep.files(files, part, digest)):
        return kept, digest
    return part.of([row for file in files for row in read_file(file)]), digest


def _load_hub(name: str, split: str, part: SplitPart | None, keep: Keep | None) -> tuple[Rows, str]:
    """The files that `datasets` wrote are read as local ones are, where they hold the rows that it shows."""
    found = load_from_hub(name, split)
    if keep and part and found.files and _are_large(found.files):
        kept = keep.files(found.files, part, fingerprint(found.files))
        if kept is not None and len(kept) == found.rows:
            return kept, found.fingerprint
    return found.read(), found.fingerprint


def _are_large(files: Sequence[Path]) -> bool:
    return sum(file.stat().st_size for file in files) >= least_bytes() and all(
        os.access(file, os.R_OK) for file in files
    )


def _looks_like_a_path(name: str) -> bool:
    return (
        name.startswith((".", "/", "~"))
        or name.count("/") > 1
        or name.lower().endswith(EXTENSIONS)
        or not is_hub_id(name)
    )


def _missing_path(name: str, path: Path) -> InputError:
    return InputError.of(
        where=name,
        key="data set",
        value=str(path.absolute()),
        expected="a file or folder that exists (relative paths start at the working directory), or a Hub id",
        remedy="check the path; a Hub id reads owner/name",
    )


def _one_line(error: InputError) -> str:
    first = error.problems[0]
    return "; ".join(part for part in (first.value, f"expected {first.expected}") if part).replace("\n", " ")
