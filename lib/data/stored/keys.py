"""What prepared rows are known by: everything that they follow from."""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

_CODE = Path(__file__).parents[1]


def store_key(*parts: Any) -> str:
    """sha256 over these parts, which JSON can write, and the code that prepares rows."""
    content = json.dumps([_code_digest(), *parts], ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()


@cache
def _code_digest() -> str:
    """Of lib/data: another version of it may read, write or mask rows otherwise."""
    digest = hashlib.sha256()
    for path in sorted(_CODE.rglob("*.py")):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
