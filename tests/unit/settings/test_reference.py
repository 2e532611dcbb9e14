from lib.settings.reference import PAGE, reference
from lib.settings.stage import KEYS


def test_page_is_current() -> None:
    stale = "run: python -m lib.settings.reference --write"
    assert PAGE.read_text(encoding="utf-8") == reference(), stale


def test_every_key_has_one_row_with_five_cells() -> None:
    rows = [line for line in reference().splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == list(KEYS)
    assert {row.count(" | ") for row in rows} == {4}
