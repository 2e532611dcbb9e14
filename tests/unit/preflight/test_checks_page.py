from lib.failures.known import KNOWN
from lib.preflight.check import BEFORE_LOADING
from lib.preflight.reference import PAGE, checks_table, failures_table, with_tables


def test_page_is_current() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_tables(page), "run: python -m lib.preflight.reference --write"
    assert checks_table() in page
    assert failures_table() in page


def test_every_check_and_every_known_failure_has_its_row() -> None:
    assert len(checks_table().splitlines()) == 2 + len(BEFORE_LOADING)
    assert all(check.__doc__ for check in BEFORE_LOADING)
    names = [line.split(" | ")[0].removeprefix("| ") for line in failures_table().splitlines()]
    assert names[2:] == [failure.name for failure in KNOWN]
