"""The text of an imported stage file: every line says where it came from."""

import textwrap

from lib.importing.draft import Carried, StageDraft
from lib.settings.env_text import WIDTH, commented, key_groups, quoted
from lib.settings.errors import printable

DIFFERS = "DIFFERS"


def stage_text(draft: StageDraft, trainer: str, name: str) -> str:
    """Settings in the order of docs/settings.md, then the keys that were not carried over."""
    lines = [
        *commented(
            f"From {name}, a configuration of {trainer}. Each line says which key it comes from. Read "
            f"those marked "
            f"{DIFFERS}: the word is the same, the meaning is not. docs/migrating.md explains."
        ),
        *commented(
            "What has no line has its default (docs/settings.md). Answers are generated and scored at every "
            "evaluation: SFT_GEN_EVAL_SAMPLES=0 turns that off."
        ),
        "",
        "SFT_STRICT=1  # not from there: a data set that fails to load stops the run",
    ]
    for keys in key_groups():
        found = [(key, draft.settings[key]) for key in keys if key in draft.settings]
        lines += ["", *(line for key, carried in found for line in _setting(key, carried))] if found else []
    if draft.not_carried:
        lines += ["", "# --- not carried over: what to do ---"]
        for entry in draft.not_carried:
            lines += commented(f"{entry.key}: {entry.value}", indent="    ")
            lines += [f"#     {line}" for line in textwrap.wrap(printable(entry.advice), WIDTH - 6)]
    if draft.not_needed:
        lines += ["", "# --- nothing to do ---"]
        for reason, keys in _by_reason(draft.not_needed).items():
            lines += commented(f"{', '.join(keys)}: {reason}", indent="    ")
    return "\n".join(lines) + "\n"


def _setting(key: str, carried: Carried) -> list[str]:
    value, source = quoted(carried.text), printable(carried.source)
    about = commented(f"{DIFFERS}: {carried.differs}") if carried.differs else []
    line = f"{key}={value}  # {source}"
    if "\n" in value or len(line) > WIDTH:
        return [*commented(f"{source}"), *about, f"{key}={value}"]
    return [*about, line]


def _by_reason(not_needed: dict[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, reason in not_needed.items():
        found.setdefault(reason, []).append(key)
    return found
