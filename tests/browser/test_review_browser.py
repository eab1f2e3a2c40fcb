"""The page in a real browser: keys, two windows, a server that goes away."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.review_queues import Served
from support.review_windows import Page

pytest.importorskip("selenium", reason="selenium is not installed")
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

FULL = pytest.mark.full  # a window of a browser and a server take seconds each


class Window(Page):
    """A window of the browser that shows the page."""

    server: Served

    def opened(self) -> bool:
        return bool(self.name) or not self.hidden("done")

    @property
    def name(self) -> str:
        """The file that is shown; empty where there is none."""
        return "" if self.hidden("work") else self.text("name")

    def type(self, *keys: str) -> None:
        """Send keys to the page, whatever it is doing."""
        self.find("body", By.TAG_NAME).send_keys(*keys)

    def press(self, *keys: str) -> None:
        """Press keys, each time until the page has answered."""
        self.front()
        for key in keys:
            self.until(self.ready)
            self.type(key)
            self.until(lambda: self.find("work").get_attribute("aria-busy") != "true")
            self.until(self.ready)

    def ready(self) -> bool:
        """Say whether the picture is there, or that there is none, for long enough to be seen."""
        return self.hidden("work") or self.find("stage").get_attribute("aria-busy") == "false"

    def label(self, *keys: str) -> str:
        """Label images one after the other; return the name of the last once another one is."""
        for key in keys:
            before = self.name
            self.press(key)
            self.until(lambda before=before: self.name != before)
        return before


@pytest.fixture
def review(browser: Any, served: Callable[..., Served]) -> Iterator[Callable[..., Window]]:
    """Serve a queue, and open a window that shows it."""
    windows: list[Window] = []

    def opened(folder: Path) -> Window:
        server = served(folder)
        windows.append(Window(browser, server.link))
        windows[-1].server, windows[-1].folder = server, folder
        return windows[-1]

    yield opened
    for window in windows:
        window.close()


Review = Callable[..., Window]
Make = Callable[..., Path]


def test_keys_label_skip_and_undo_until_all_is_done(review: Review, make: Make) -> None:
    window = review(make(5, 3, pictures=True))
    assert window.name == "new/000.png"
    assert window.text("progress") == "0 of 5 reviewed, 3 labelled by the model"
    assert "between fibre (60 %)" in window.text("reason")
    assert window.text("choices").split("\n")[:3] == ["1", "fibre", "60.0 %"]
    assert window.text("nearest").split("\n")[:2] == ["fibre", "0.png"]
    window.until(lambda: window.browser.execute_script("return view.scale") > 1)
    window.until(lambda: window.find("#nearest img", By.CSS_SELECTOR).size["width"] > 50)
    window.picture("first")
    assert window.label("2") == "new/000.png"
    assert window.text("status") == "saved: matrix"
    assert window.labels["000.png"] == "matrix", "on the disk before the next is shown"
    window.label(Keys.ENTER)
    assert window.labels["001.png"] == "matrix", "the model's label"
    assert window.label("s") == "new/002.png"
    assert "(1 skipped)" in window.text("progress")
    assert window.label("u") == "new/003.png", "the skipped one is back"
    assert window.name == "new/002.png"
    window.label("u")
    assert window.name == "new/001.png"
    assert "001.png" not in window.labels
    window.label("1", "s", "3", "1")
    assert window.text("done-title") == "All done"
    assert "4 labelled by people, 3 by the model, 1 skipped" in window.text("done-text")
    window.press("a")
    window.until(lambda: window.name == "new/002.png")
    window.label("3")
    assert window.text("done-title") == "All done"
    given = [window.labels[f"{i:03d}.png"] for i in range(5)]
    assert given == ["matrix", "fibre", "particle", "particle", "fibre"]


@FULL
def test_a_click_waits_for_a_server_that_is_gone_until_given_up(review: Review, make: Make) -> None:
    window = review(make(4, 0, pictures=True))
    server = window.server
    window.label("1")
    server.kill()
    window.type("2")
    window.until(lambda: "not saved yet" in window.text("trouble"))
    window.picture("server_gone")
    assert window.name == "new/001.png", "no other image is shown before it is saved"
    server.start()
    window.until(lambda: window.name == "new/002.png")
    assert window.hidden("trouble")
    assert window.labels["001.png"] == "matrix"
    window.until(window.ready)
    server.kill()
    window.type("2")
    window.until(lambda: not window.hidden("give-up"))
    window.find("give-up").click()
    window.until(lambda: "Given up" in window.text("trouble"))
    assert window.name == "new/002.png"
    server.start()
    window.label("1")
    assert window.labels["002.png"] == "fibre"
