"""Content hashes of what a stage is made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.data.chat.chat_template import find_template
from lib.data.chat.tokenizer_files import TOKENIZER_CONFIG, read_chat_template
from lib.files import read_json
from lib.lineage.file_hashes import REMEMBERED_BYTES, file_sha256, known_sha256
from lib.model.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from lib.model.base_files import base_folder, base_is_here, tokenizer_files, weight_files
from lib.settings import InputError, ModelSettings

END_BYTES = 2**20


@dataclass(frozen=True)
class BaseFingerprint:
    """What a base model is, seen in three ways; the first that is known counts.

    `content` covers every byte of configuration and weights. It is empty where a large file was never read
    whole on this machine: that takes minutes, and only a run takes them. `outline` covers the sizes and the
    ends of large files and all of the small ones. Both are empty for a model that is not here.
    """

    content: str
    outline: str
    name: str


def json_sha256(value: Any) -> str:
    """sha256 of the value as canonical JSON."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def base_fingerprint(model: ModelSettings, *, thorough: bool) -> BaseFingerprint:
    """`thorough` reads large files that were never read here; otherwise what is remembered must do.

    The place does not count: a Hub model and a copy of its files in a folder are the same.
    """
    name = f"{model.base_model}@{model.base_revision or 'main'}"
    folder = base_folder(model)
    if folder is None or not base_is_here(model):
        return BaseFingerprint("", "", name)
    files = weight_files(folder)
    content = _joint(files, file_sha256 if thorough else known_sha256)
    return BaseFingerprint(content, _joint(files, _ends), name)


def tokenizer_fingerprint(folder: Path) -> str:
    """The tokenizer's files, without the chat template that one of them may hold."""
    return _joint(tokenizer_files(folder), lambda path: json_sha256(_without(path, "chat_template")))


def template_fingerprint(folder: Path, template: str) -> str:
    """The source of the chat template in use: SFT_CHAT_TEMPLATE, else the tokenizer's own. Text that is no
    hash where it cannot be read, so that it differs from any that a stage was trained with."""
    try:
        source = find_template(template) if template else read_chat_template(folder)
    except (InputError, OSError, ValueError):
        return "unreadable"
    return json_sha256(source)


def adapter_fingerprint(folder: Path) -> str:
    """Weights and configuration of an adapter: another alpha in the configuration is another update."""
    config = folder / ADAPTER_CONFIG
    return json_sha256(
        [file_sha256(folder / ADAPTER_WEIGHTS), json_sha256(_without(config, "base_model_name_or_path"))]
    )


def _joint(files: Iterable[Path], fingerprint: Callable[[Path], str]) -> str:
    """One hash over the files by name; empty when that of one of them is not known."""
    found = {path.name: fingerprint(path) for path in files}
    return json_sha256(found) if all(found.values()) else ""


def _ends(path: Path) -> str:
    size = path.stat().st_size
    if size < REMEMBERED_BYTES:
        return file_sha256(path)
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(END_BYTES))
        file.seek(-END_BYTES, 2)
        digest.update(file.read())
    return "ends:" + digest.hexdigest()


def _without(path: Path, key: str) -> Any:
    """A JSON object without one of its keys; for any other file its sha256."""
    if path.name in {TOKENIZER_CONFIG, ADAPTER_CONFIG}:
        try:
            content = read_json(path)
            return {name: value for name, value in content.items() if name != key}
        except (ValueError, AttributeError):
            pass
    return file_sha256(path)


def differences(recorded: Mapping[str, Any], current: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(key, recorded, current) where two flat mappings disagree, in the order of `current`."""
    keys = [*current, *(key for key in recorded if key not in current)]
    return [
        (key, recorded.get(key), current.get(key)) for key in keys if recorded.get(key) != current.get(key)
    ]
