"""Names and paths in a model card, each quoted for where it stands: they may hold anything."""

from __future__ import annotations

import json
import re

_PLAIN_YAML = re.compile(r"[\w/~][\w./~-]*", re.ASCII)
_RUNS_OF_BACKTICKS = re.compile(r"`+")


def yaml_value(text: str) -> str:
    """A value of the front matter."""
    plain = _PLAIN_YAML.fullmatch(text) and not text.replace(".", "").isdigit()
    return text if plain else python_text(text)


def python_text(text: str) -> str:
    """A literal of Python, and of YAML: JSON's escapes are both's."""
    return json.dumps(text, ensure_ascii=False)


def code(text: str) -> str:
    """Inline code, between more backticks than the text has in a row."""
    line = " ".join(text.split())
    longest = max((len(run) for run in _RUNS_OF_BACKTICKS.findall(line)), default=0)
    fence, blank = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{blank}{line}{blank}{fence}"


def words(text: str) -> str:
    """Plain text of Markdown, also in a cell of a table: no markup, no HTML."""
    line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_|\[\]])", r"\\\1", line) if re.search(r"[\\`*|\[\]]", line) else line
