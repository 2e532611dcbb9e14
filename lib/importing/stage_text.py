"""The text of an imported stage file: every line says where it came from."""

import re
import textwrap

from lib.importing.draft import Carried, StageDraft
from lib.settings.errors import printable
from lib.settings.keys import all_keys, groups_by_field
from lib.settings.schema import StageSettings

DIFFERS = "DIFFERS"
_WIDTH = 110
_PLAIN = re.compile(r"[^\s#'\"\\`$]+")


def stage_text(draft: StageDraft, trainer: str, name: str) -> str:
    """Settings in the order of docs/settings.md, then the keys that were not carried over."""
    lines = [
        *_wrapped(
            f"From {name}, a configuration of {trainer}. Each line says which key it comes from. Read "
            f"those marked "
            f"{DIFFERS}: the word is the same, the meaning is not. docs/migrating.md explains."
        ),
        *_wrapped(
            "What has no line has its default (docs/settings.md). Answers are generated and scored at every "
            "evaluation: SFT_GEN_EVAL_SAMPLES=0 turns that off."
        ),
        "",
        "SFT_STRICT=1  # not from there: a data set that fails to load stops the run",
    ]
    for keys in _groups():
        found = [(key, draft.settings[key]) for key in keys if key in draft.settings]
        lines += ["", *(line for key, carried in found for line in _setting(key, carried))] if found else []
    if draft.not_carried:
        lines += ["", "# --- not carried over: what to do ---"]
        for entry in draft.not_carried:
            lines += _wrapped(f"{entry.key}: {entry.value}", indent="    ")
            lines += [f"#     {line}" for line in textwrap.wrap(printable(entry.advice), _WIDTH - 6)]
    if draft.not_needed:
        lines += ["", "# --- nothing to do ---"]
        for reason, keys in _by_reason(draft.not_needed).items():
            lines += _wrapped(f"{', '.join(keys)}: {reason}", indent="    ")
    return "\n".join(lines) + "\n"


def _groups() -> list[list[str]]:
    """The keys of the schema, group by group."""
    groups = [list(all_keys(group)) for group in groups_by_field(StageSettings).values()]
    inner = {key.env for group in groups for key in group}
    own = [key.env for key in all_keys(StageSettings) if key.env not in inner]
    return [own, *([key.env for key in group] for group in groups)]


def _setting(key: str, carried: Carried) -> list[str]:
    value, source = quoted(carried.text), printable(carried.source)
    about = _wrapped(f"{DIFFERS}: {carried.differs}") if carried.differs else []
    line = f"{key}={value}  # {source}"
    if "\n" in value or len(line) > _WIDTH:
        return [*_wrapped(f"{source}"), *about, f"{key}={value}"]
    return [*about, line]


def quoted(text: str) -> str:
    """The value as the parser of stage files reads it back: bare where it can be, else in single quotes."""
    if not text or _PLAIN.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _by_reason(not_needed: dict[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, reason in not_needed.items():
        found.setdefault(reason, []).append(key)
    return found


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        printable(text), _WIDTH, initial_indent="# ", subsequent_indent=f"# {indent}", break_on_hyphens=False
    )
