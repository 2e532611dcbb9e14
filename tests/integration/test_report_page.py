"""report.html in a real browser, headless: it draws, filters, fits a phone and turns dark."""

from pathlib import Path
from typing import Any

import pytest
from browser import (
    DESKTOP,
    PHONE,
    charts_are_drawn,
    needs_browser,
    open_page,
    set_scheme,
    traces_of_charts,
)
from eventually import eventually

from lib.report.charts import figures
from lib.report.content import ReportContent, report_content
from lib.report.page import write_report
from tests.unit.report.stage_records import HOSTILE, masked_row, sample, samples, stage_record

ANSWERS, WRONG = 41, 11

pytestmark = needs_browser


@pytest.fixture(scope="module")
def content() -> ReportContent:
    hostile = sample(40, wrong=True, answer=HOSTILE, labels={"format": HOSTILE, "type": HOSTILE})
    return report_content(
        stage_record(2, notices=[HOSTILE]), [stage_record(1)], [*samples(40), hostile], [masked_row()]
    )


@pytest.fixture(scope="module")
def report(content: ReportContent, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, content)
    return path.as_uri()


def shows(browser: Any, answers: int, announced: str) -> None:
    """So many answers are visible, and the page says so."""
    eventually(lambda: browser.find_element("id", "shown-samples").text == announced)
    assert (
        browser.execute_script("return document.querySelectorAll('.sample:not([hidden])').length") == answers
    )


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_chart_is_drawn_without_a_word_in_the_console(
    browser: Any, report: str, content: ReportContent, width: int, scheme: str
) -> None:
    open_page(browser, report, width=width, scheme=scheme)
    assert set(traces_of_charts(browser)) == set(figures(content))
    eventually(lambda: charts_are_drawn(browser))
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_nothing_is_asked_of_the_network(browser: Any, report: str) -> None:
    open_page(browser, report)
    loaded = "return performance.getEntriesByType('resource').map(entry => entry.name)"
    assert [name for name in browser.execute_script(loaded) if not name.startswith("data:")] == []
    refused = browser.execute_async_script(
        "fetch('https://example.org').then(() => arguments[0]('sent'), () => arguments[0]('refused'))"
    )
    assert refused == "refused"
    complaints = " ".join(entry["message"] for entry in browser.get_log("browser"))
    assert "Content Security Policy" in complaints


def test_a_script_in_the_data_is_text(browser: Any, report: str) -> None:
    open_page(browser, report)  # an alert would make every later command fail
    assert browser.find_elements("css selector", "main img") == []
    assert HOSTILE in browser.find_element("class name", "notices").text


def test_the_filters_change_what_is_shown_and_say_so(browser: Any, report: str) -> None:
    open_page(browser, report)
    shows(browser, 30, f"{ANSWERS} of {ANSWERS} answers, the first 30 are shown")
    browser.find_element("id", "more-samples").send_keys("\n")
    shows(browser, ANSWERS, f"{ANSWERS} of {ANSWERS} answers")

    browser.find_element("name", "wrong").send_keys(" ")  # by keyboard
    shows(browser, WRONG, f"{WRONG} of {ANSWERS} answers")

    formats = browser.find_element("css selector", "select[data-field=format]")
    formats.send_keys("toml")  # every wrong one was asked for json
    shows(browser, 0, "No answer fits these filters")

    browser.find_element("id", "clear-filters").send_keys("\n")
    shows(browser, 30, f"{ANSWERS} of {ANSWERS} answers, the first 30 are shown")
    browser.find_element("name", "search").send_keys("HELDOUT#17")
    shows(browser, 1, f"1 of {ANSWERS} answers")


def test_differences_are_marked_in_both_texts(browser: Any, report: str) -> None:
    open_page(browser, report)
    first = browser.find_element("css selector", ".sample[open]")
    assert [element.text for element in first.find_elements("css selector", "pre del")] == ["1906"]
    assert [element.text for element in first.find_elements("css selector", "pre ins")] == ["1907"]


def test_a_phone_never_scrolls_sideways(browser: Any, report: str) -> None:
    open_page(browser, report, width=PHONE)
    eventually(lambda: charts_are_drawn(browser))
    browser.execute_script("document.querySelectorAll('details').forEach(one => { one.open = true })")
    page, window = browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert page <= window == PHONE


def test_the_page_follows_the_system_into_the_dark(browser: Any, report: str) -> None:
    def brightness(selector: str, color: str) -> float:
        value = browser.execute_script(
            "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]", selector, color
        )
        return sum(int(part) for part in value.strip("rgb()").split(",")) / 3

    open_page(browser, report)
    eventually(lambda: charts_are_drawn(browser))
    assert brightness("body", "backgroundColor") > 240
    assert brightness(".xtick text", "fill") < 120
    set_scheme(browser, "dark")
    eventually(lambda: brightness("body", "backgroundColor") < 40)
    eventually(lambda: brightness("body", "color") > 200)
    eventually(lambda: brightness(".xtick text", "fill") > 140)


def test_the_written_page_is_one_file(report: str) -> None:
    folder = Path(report.removeprefix("file://")).parent
    assert [path.name for path in folder.iterdir()] == ["report.html"]
