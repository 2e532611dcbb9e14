"""A real browser, headless, and what tests ask of the pages in it."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PHONE, DESKTOP = 390, 1280

needs_browser = pytest.mark.skipif(
    not (CHROMIUM and CHROMEDRIVER),
    reason="needs a browser: install chromium and chromium-driver (Debian's names)",
)


def start_browser(profile: Path) -> Iterator[Any]:
    """A driver, closed at the end. Used by a fixture."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium (requirements-dev.txt)")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (*QUIET, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
    yield driver
    driver.quit()


def open_page(browser: Any, report: str, *, width: int = DESKTOP, scheme: str = "light") -> None:
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width == PHONE}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    set_scheme(browser, scheme)
    browser.get_log("browser")
    browser.get(report)


def set_scheme(browser: Any, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def traces_of_charts(browser: Any) -> dict[str, int]:
    """How many traces each chart shows."""
    found: dict[str, int] = browser.execute_script(
        "return Object.fromEntries([...document.querySelectorAll('[data-chart]')].map(place => "
        "[place.dataset.chart, place.querySelectorAll('svg .trace, svg .hm image').length]))"
    )
    return found


def charts_are_drawn(browser: Any) -> bool:
    return all(traces_of_charts(browser).values())
