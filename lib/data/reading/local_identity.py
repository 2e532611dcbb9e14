"""Content hashes of a stage's local data sets, without reading a row: cheap enough for `--status`."""

from collections.abc import Iterable
from pathlib import Path

from lib.data.reading.data_files import files_of_split, fingerprint
from lib.data.reading.split_parts import parse_split
from lib.settings import InputError, MixEntry


def local_fingerprints(mix: Iterable[MixEntry]) -> dict[str, str]:
    """Data set id (with its split unless `train`) -> sha256 over its files, also where a part of them counts.

    Hub data sets are left out: they are told apart by their id, which is a setting. A local one that
    cannot be read is empty text, so that it differs from any it was trained on.
    """
    found: dict[str, str] = {}
    for entry in mix:
        path = Path(entry.id).expanduser()
        if path.exists():
            name = entry.id if entry.split == "train" else f"{entry.id}[{entry.split}]"
            found[name] = _fingerprint(path, entry.split)
    return found


def _fingerprint(path: Path, split: str) -> str:
    part = parse_split(split)
    if part is None:
        return ""
    try:
        files = files_of_split(path, part.name) if path.is_dir() else [path]
        return fingerprint(files) if all(file.is_file() for file in files) else ""  # a pipe may never end
    except (InputError, OSError):
        return ""
