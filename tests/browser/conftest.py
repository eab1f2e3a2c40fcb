"""A browser, queues without a model, and a server of one in a separate process."""

import shutil

import pytest
from support.absent import skip_without
from support.browsing import Window
from support.review_queues import clock, make, served

__all__ = ["clock", "make", "served"]

ARGUMENTS = [
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--window-size=1366,900", "--disable-background-networking", "--no-first-run"),
]


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Chromium without a window, driven by selenium; tests are skipped where one is missing."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    binary = shutil.which("chromium") or shutil.which("chromium-browser")
    service = shutil.which("chromedriver")
    if not (binary and service):
        skip_without("browser", "no chromium with its chromedriver here")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in [*ARGUMENTS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"]:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(service))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, path):
    """The page that a module wrote, which is safe to the end."""
    opened = Window(browser, path)
    yield opened
    opened.assert_safe()
