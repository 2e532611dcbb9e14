"""What makes a checkpoint whole: a manifest with the size and sha256 of every other file, written last.

Free of torch: status and plan read it too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lib.files import sync, write_text

MANIFEST = "manifest.json"
HASHING_THREADS = 4


class DamagedError(Exception):
    """A checkpoint that is not what was saved; the text says in what."""


@dataclass(frozen=True)
class Manifest:
    step: int
    fingerprint: dict[str, str]
    """What the run was made from: only the same run goes on from here."""
    files: dict[str, tuple[int, str]]
    """Path in the folder to size in bytes and sha256."""

    def encoded(self) -> str:
        """As it stands on disk: with a checksum over the rest, so that every changed byte shows."""
        content = asdict(self)
        return json.dumps({**content, "checksum": _checksum(content)}, indent=1, ensure_ascii=False) + "\n"


def seal(folder: Path, step: int, fingerprint: Mapping[str, str]) -> None:
    """Put every file of `folder` on disk for good, then the manifest."""
    files = sorted(_files(folder))
    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        described = list(pool.map(_synced, (folder / name for name in files)))
    for inner in (path for path in folder.rglob("*") if path.is_dir()):
        sync(inner)
    manifest = Manifest(step, dict(fingerprint), dict(zip(files, described, strict=True)))
    write_text(folder / MANIFEST, manifest.encoded())


def read_manifest(folder: Path) -> Manifest:
    """The manifest alone. Raises DamagedError when it is missing or not as it was written."""
    try:
        text = (folder / MANIFEST).read_bytes().decode()
        content = json.loads(text)
        files = {name: (size, digest) for name, (size, digest) in content["files"].items()}
        manifest = Manifest(int(content["step"]), dict(content["fingerprint"]), files)
    except FileNotFoundError:
        raise DamagedError(f"it has no {MANIFEST}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise DamagedError(f"its {MANIFEST} is not as it was written") from None
    if text != manifest.encoded():
        raise DamagedError(f"its {MANIFEST} is not as it was written")
    return manifest


def outlined(folder: Path) -> Manifest:
    """The manifest, after a look at names and sizes that takes no time. Raises DamagedError."""
    if folder.is_symlink():
        raise DamagedError("it is a link")
    manifest = read_manifest(folder)
    present = _files(folder)
    missing, unknown = manifest.files.keys() - present, present - manifest.files.keys()
    if missing:
        raise DamagedError(f"{min(missing)} is missing")
    if unknown:
        raise DamagedError(f"{min(unknown)} does not belong to it")
    for name, (size, _) in manifest.files.items():
        found = (folder / name).stat().st_size
        if found != size:
            raise DamagedError(f"{name} has {found:,} bytes instead of {size:,}")
    return manifest


def verified(folder: Path) -> Manifest:
    """The manifest, after every byte of every file was read. Raises DamagedError."""
    manifest = outlined(folder)
    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        digests = pool.map(_sha256, (folder / name for name in manifest.files))
        for (name, (_, expected)), digest in zip(manifest.files.items(), digests, strict=True):
            if digest != expected:
                raise DamagedError(f"{name} changed since it was saved")
    return manifest


def _files(folder: Path) -> set[str]:
    """Everything that is not a folder, links included, apart from the manifest."""
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return {str(path.relative_to(folder)) for path in found} - {MANIFEST}


def _synced(path: Path) -> tuple[int, str]:
    sync(path)
    return path.stat().st_size, _sha256(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
