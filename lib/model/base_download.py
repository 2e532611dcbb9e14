"""The folder of a base model, downloaded where it is not on this machine, and what belongs to it."""

from __future__ import annotations

from pathlib import Path

from lib.model.base import base_error
from lib.model.weight_files import weight_shards
from lib.settings import InputError

# What a model consists of besides weights: configuration, tokenizer, templates.
SIDE_FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "LICENSE*", "NOTICE*")
TEMPLATES = "additional_chat_templates/*.jinja"
WEIGHTS = ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json")


def obtain_base_folder(name: str, revision: str) -> Path:
    """The folder `name`, or the snapshot of a Hub model, downloaded when the cache does not have it whole.

    Raises InputError when there is no such model here and it cannot be fetched.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    wanted = [*SIDE_FILES, TEMPLATES, *WEIGHTS]
    try:
        found = _cached(name, revision, wanted) or Path(
            snapshot_download(name, revision=revision or None, allow_patterns=wanted)
        )
    except (OSError, ValueError) as error:
        raise base_error(name, error) from error
    weight_shards(found)  # without a network the call above is content with a part
    return found


def _cached(name: str, revision: str, wanted: list[str]) -> Path | None:
    """The snapshot in the cache, if it has all weights: loading tokenizer and configuration alone makes one
    that has not."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        found = Path(
            snapshot_download(name, revision=revision or None, allow_patterns=wanted, local_files_only=True)
        )
        weight_shards(found)
    except (LocalEntryNotFoundError, InputError):
        return None
    return found


def side_files(folder: Path) -> list[Path]:
    """The files that a copy of the model needs besides its weights, relative to `folder`."""
    found = {path for pattern in (*SIDE_FILES, TEMPLATES) for path in folder.glob(pattern) if path.is_file()}
    return sorted(path.relative_to(folder) for path in found)
