"""What lies beside the weights of an exported model: tokenizer, chat template, generation settings."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib.files import read_json, write_json
from lib.model.base_files import TEMPLATE_FILE, tokenizer_files

GENERATION_CONFIG = "generation_config.json"


def take_tokenizer(stage_dir: Path, destination: Path) -> None:
    """Tokenizer and chat template as the stage was trained with, in the place of those of the base."""
    for old in _tokenizer_and_template(destination):
        old.unlink()
    for path in _tokenizer_and_template(stage_dir):
        shutil.copy(path, destination / path.name)


def _tokenizer_and_template(folder: Path) -> list[Path]:
    template = folder / TEMPLATE_FILE
    return [*tokenizer_files(folder), *([template] if template.is_file() else [])]


def add_end_tokens(destination: Path, stop_ids: Sequence[int]) -> None:
    """Let generation end where the chat template ends an answer, besides where the base ends one.

    A base that was only pretrained knows nothing of the template's end of turn: served without it, the model
    answers its own answer.
    """
    path = destination / GENERATION_CONFIG
    content: dict[str, Any] = read_json(path) if path.is_file() else {}
    known = content.get("eos_token_id")
    known = known if isinstance(known, list) else [known]
    ids = dict.fromkeys([*stop_ids, *(token for token in known if token is not None)])
    write_json(path, {**content, "eos_token_id": list(ids)})
