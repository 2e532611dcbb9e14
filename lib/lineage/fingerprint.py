"""Content hashes of what a stage is made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Above this size a file is known by its size and its two ends: reading 61 GB would take minutes.
WHOLE_FILE_LIMIT = 256 * 2**20
END_BYTES = 2**20


def file_sha256(path: Path) -> str:
    """sha256 of the file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_sha256(value: Any) -> str:
    """sha256 of the value as canonical JSON."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def base_fingerprint(base_model: str, revision: str) -> str:
    """What a base model is: the contents of its folder, or the Hub id with its revision.

    For a Hub id whose files lie in the local cache the commit is used, so `main` moving on is seen.
    """
    folder = Path(base_model).expanduser()
    if not folder.is_dir():
        return json_sha256({"hub": base_model, "revision": _cached_commit(base_model, revision) or revision})
    files = {
        path.name: _file_identity(path)
        for path in sorted(folder.iterdir())
        if path.suffix in {".json", ".jinja", ".safetensors", ".txt", ".model"} and path.is_file()
    }
    return json_sha256(files)


def _file_identity(path: Path) -> str:
    size = path.stat().st_size
    if size <= WHOLE_FILE_LIMIT:
        return file_sha256(path)
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(END_BYTES))
        file.seek(-END_BYTES, 2)
        digest.update(file.read())
    return "ends:" + digest.hexdigest()


def hub_snapshot(base_model: str, revision: str) -> Path | None:
    """Folder of a Hub model in the local cache, None when it is not there. Never asks the network."""
    if Path(base_model).expanduser().exists() or base_model.count("/") > 1:
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(base_model, "config.json", revision=revision or None)
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def _cached_commit(base_model: str, revision: str) -> str:
    snapshot = hub_snapshot(base_model, revision)
    return snapshot.name if snapshot else ""


def differences(recorded: Mapping[str, Any], current: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(key, recorded, current) where two flat mappings disagree, in the order of `current`."""
    keys = [*current, *(key for key in recorded if key not in current)]
    return [
        (key, recorded.get(key), current.get(key)) for key in keys if recorded.get(key) != current.get(key)
    ]
