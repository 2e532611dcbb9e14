"""Stage files as this program writes them: what `env_file` reads back, key by key in the order of
docs/settings.md, with comments."""

import re
import textwrap

from lib.settings.errors import printable
from lib.settings.keys import all_keys, groups_by_field
from lib.settings.schema import StageSettings

WIDTH = 110
_PLAIN = re.compile(r"[^\s#'\"\\`$]+")


def quoted(text: str) -> str:
    """The value as the parser of stage files reads it back: bare where it can be, else in single quotes."""
    if not text or _PLAIN.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def commented(text: str, indent: str = "") -> list[str]:
    """The text as comment lines; `indent` is what its second and later lines begin with."""
    return textwrap.wrap(
        printable(text), WIDTH, initial_indent="# ", subsequent_indent=f"# {indent}", break_on_hyphens=False
    )


def key_groups() -> list[list[str]]:
    """The keys of the schema, group by group; first those of the stage as a whole."""
    groups = [list(all_keys(group)) for group in groups_by_field(StageSettings).values()]
    inner = {key.env for group in groups for key in group}
    own = [key.env for key in all_keys(StageSettings) if key.env not in inner]
    return [own, *([key.env for key in group] for group in groups)]
