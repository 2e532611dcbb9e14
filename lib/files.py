"""Files that are there whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """Temporary file, fsync, rename: a reader sees the old file or the new one."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """The same for plain data, one value a line, every script as it is."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n")


@contextmanager
def built_aside(destination: Path) -> Iterator[Path]:
    """A path for a folder that takes the place of `destination` when the block ends well.

    It lies beside it, so that a rename moves it. When the block is left by an error or an interrupt, the
    destination is as it was and nothing else is left.
    """
    destination = destination.resolve()
    destination.parent.mkdir(parents=True, exist_ok=True)
    aside = destination.parent / f".{destination.name}.{secrets.token_hex(4)}"
    try:
        aside.mkdir()  # in here: an interrupt may come at any moment from now on
        yield aside / "new"
        _exchange(aside / "new", destination, aside / "old")
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(new: Path, destination: Path, old: Path) -> None:
    if destination.exists():
        os.replace(destination, old)
    try:
        os.replace(new, destination)
    except BaseException:
        if old.exists():
            os.replace(old, destination)
        raise
