"""The text of an env file as pairs, strictly: data, not shell.

python-dotenv's own parser reads the syntax. Its loader is not used: that expands `${HF_TOKEN}`, takes a
missing file for an empty one, keeps the last of two equal keys and merely warns about malformed lines.
"""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lib.settings.errors import Problems
from lib.settings.suggestions import PREFIX

EnvPairs = dict[str, tuple[str, int]]


class _Statement(NamedTuple):
    """One statement as the parser saw it: a pair, a bare word (no value) or a malformed line (no key)."""

    key: str | None
    value: str | None
    line: int
    text: str
    malformed: bool


def read_env_file(path: Path) -> EnvPairs:
    """Every key of the file with its value and the number of its line (from 1).

    Raises InputError, with all line numbers at once: missing or unreadable file, text that is not UTF-8,
    duplicate keys, bare words, malformed lines.
    """
    problems = Problems()
    pairs = collect_pairs(path, problems)
    problems.raise_if_any()
    return pairs


def collect_pairs(path: Path, problems: Problems) -> EnvPairs:
    """Like read_env_file, but what is wrong goes to `problems` and the sound lines are still returned."""
    pairs: EnvPairs = {}
    in_open_quote = False
    for statement in _statements(_read_text(path, problems)):
        where = f"{path}:{statement.line}"
        if statement.key is not None and statement.value is not None:
            in_open_quote = False
            _add_pair(pairs, statement.key, (statement.value, statement.line), path, problems)
        elif not in_open_quote:
            # What follows an unclosed quote is broken for the same reason: one problem, not one a line.
            in_open_quote = statement.malformed and _opens_quote(statement.text)
            _add_broken_line(statement, in_open_quote, where, problems)
    return pairs


def _read_text(path: Path, problems: Problems) -> str:
    """Raises InputError where there is no text: what else is missing then only follows from that."""
    text, known = "", len(problems)
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        expected = "an env file (KEY=VALUE lines)"
        problems.add(str(path), expected=expected, remedy="Create it, or correct the path.")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problems.add(f"{path}:{line}", expected="text in UTF-8", remedy="Save the file with UTF-8 encoding.")
    except (OSError, ValueError) as error:
        problems.add(str(path), expected="a readable file", remedy=f"Mend this first: {error}.")
    if len(problems) > known:
        problems.raise_if_any()
    # The parser counts a CRLF after a malformed line twice, which would shift all later line numbers.
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _statements(text: str) -> Iterator[_Statement]:
    # Here, not above: the package pulls in logging and tempfile, which double the import time of settings.
    from dotenv.parser import parse_stream

    for binding in parse_stream(io.StringIO(text)):
        if binding.key is None and not binding.error:
            continue  # a comment, or the blank end of the file
        body = binding.original.string.lstrip()
        blank = binding.original.string[: len(binding.original.string) - len(body)]
        line = binding.original.line + blank.count("\n")
        yield _Statement(binding.key, binding.value, line, body.rstrip(), binding.error)


def _add_pair(pairs: EnvPairs, key: str, pair: tuple[str, int], path: Path, problems: Problems) -> None:
    if key not in pairs:
        pairs[key] = pair
        return
    first = pairs[key][1]
    problems.add(
        f"{path}:{pair[1]}",
        key=key,
        expected=f"every key once (first given on line {first})",
        remedy=f"Delete line {first} or line {pair[1]}.",
    )


def _add_broken_line(statement: _Statement, open_quote: bool, where: str, problems: Problems) -> None:
    # A broken line may hold a secret: of those not ours, only what surely is the name of a key is shown.
    name = re.match(r"(?:export\s+)?([A-Z][A-Z0-9_]*)(?=[\s=:]|$)", statement.text)
    key = name.group(1) if name else ""
    if open_quote:
        expected = "a value whose quote is closed"
        remedy = "Close the quote. An apostrophe inside single quotes is written \\'."
    elif statement.malformed and "=" in statement.text:
        expected = "KEY=VALUE, and after a closed quote nothing but a # comment"
        remedy = "Correct the line; a comment begins with #."
    else:
        expected = "KEY=VALUE (this line has no =)"
        remedy = f"Write {key or 'KEY'}=VALUE, or put a # before the line to make it a comment."
    value = statement.text if key.startswith(PREFIX) else ""
    problems.add(where, key=key, value=value, expected=expected, remedy=remedy)


def _opens_quote(statement: str) -> bool:
    """Whether a quote stays open; an even number of quotes means that something follows the closed one."""
    opening = re.match(r"[^=]*=\s*(['\"])", statement)
    return opening is not None and statement.count(opening.group(1)) % 2 == 1
