"""docs/audit.md names every check and mode, in the order in which the checks look."""

import re
from pathlib import Path

from lib.audit.refusal import MEANINGS
from lib.planning.audit_text import OUTCOMES
from lib.settings.schema.audit import CHECKS

PAGE = (Path(__file__).parents[3] / "docs/audit.md").read_text(encoding="utf-8")


def test_the_page_explains_every_check_in_order() -> None:
    named = [name for name in re.findall(r"^\| `(\w+)`", PAGE, re.MULTILINE) if name in CHECKS]
    assert tuple(named) == CHECKS == tuple(MEANINGS)


def test_the_page_explains_every_mode() -> None:
    assert all(f"| `{mode}`" in PAGE for mode in OUTCOMES)
