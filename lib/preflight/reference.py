"""The two tables of docs/checks.md, from the code: the checks, and the known failures.

python -m lib.preflight.reference --write
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from lib.failures.known import KNOWN, KnownFailure
from lib.preflight.check import AT_START, BEFORE_LOADING
from lib.preflight.subject import Check
from lib.preflight.surroundings import surroundings

PAGE = Path(__file__).resolve().parents[2] / "docs/checks.md"
# The start of a run has it from the same function by itself.
STARTS = (*AT_START, surroundings)


def with_tables(page: str) -> str:
    """The page with its marked tables as the code has them."""
    for name, table in (("checks", checks_table()), ("failures", failures_table())):
        before, start, rest = page.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        page = f"{before}{start}{table}{end}{after}"
    return page


def checks_table() -> str:
    rows = (_row(_name(check), _meaning(check), "yes" if check in STARTS else "") for check in BEFORE_LOADING)
    return "".join([_row("check", "what it looks at", "at every start"), _row(*["---"] * 3), *rows])


def failures_table() -> str:
    head = _row("failure", "recognised by", "cause", "remedy", "source")
    return "".join([head, _row(*["---"] * 5), *map(_failure, KNOWN)])


def main(arguments: Sequence[str]) -> None:
    page = with_tables(PAGE.read_text(encoding="utf-8"))
    if list(arguments) == ["--write"]:
        PAGE.write_text(page, encoding="utf-8")
    else:
        print(page, end="")


def _name(check: Check) -> str:
    return check.__name__.replace("_", " ")


def _meaning(check: Check) -> str:
    """Its docstring without what concerns its callers."""
    first = " ".join((check.__doc__ or "").partition("\n\n")[0].split())
    return re.split(r" (?:Imports torch|Raises )", first)[0]


def _failure(failure: KnownFailure) -> str:
    memory = " (with numbers from the estimate)" if failure.about_memory else ""
    remedy = failure.remedy.rstrip(":") + memory
    return _row(failure.name, f"`{failure.pattern}`", failure.cause, remedy, failure.source)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


if __name__ == "__main__":
    main(sys.argv[1:])
