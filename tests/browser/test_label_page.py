"""The page of labels in a real browser: filters, choosing, correcting one or many, undoing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.review_queues import Served
from support.review_windows import Page

pytest.importorskip("selenium", reason="selenium is not installed")
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys


class LabelPage(Page):
    """A window of the browser that shows the page of labels."""

    def opened(self) -> bool:
        return bool(self.names) or not self.hidden("none")

    @property
    def tiles(self) -> list[Any]:
        self.front()
        return self.browser.find_elements(By.CSS_SELECTOR, "#grid li")

    def files(self, of: str) -> list[str]:
        script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)"
        self.front()
        return list(self.browser.execute_script(script, f"{of} .file"))

    @property
    def names(self) -> list[str]:
        """The files that are shown, in order."""
        return self.files("#grid")

    @property
    def chosen(self) -> list[str]:
        return self.files("[aria-selected=true]")

    def ready(self) -> bool:
        """Say whether all pictures are there, and nothing is being saved."""
        script = (
            "return [...document.querySelectorAll('#grid img')].every((img) => img.naturalWidth)"
            " && document.getElementById('browse').getAttribute('aria-busy') !== 'true'"
            " && performance.now() - appeared > BOUNCE"
        )
        self.front()
        return bool(self.browser.execute_script(script))

    def keys(self, *keys: str) -> None:
        """Press keys wherever the focus is."""
        self.front()
        self.until(self.ready)
        for key in keys:
            ActionChains(self.browser).send_keys(key).perform()

    def shows(self, *numbers: int) -> None:
        self.until(lambda: self.names == [f"new/{number:03d}.png" for number in numbers])


def test_images_are_chosen_and_corrected_one_by_one_or_at_once_and_restored(
    browser: Any, make: Callable[..., Path], served: Callable[..., Served]
) -> None:
    folder = make(1, 8, pictures=True)
    page = LabelPage(browser, served(folder).link + "labels.html")
    page.folder = folder
    page.until(page.ready)
    page.shows(1, 2, 3, 4, 5, 6, 7, 8)
    assert page.text("place") == "1–8 of 8 images"
    page.keys("2")
    page.says("choose images first")
    page.keys(Keys.ARROW_DOWN, Keys.ARROW_RIGHT, "2")
    page.says("saved: 1 image labelled “matrix”")
    assert page.labels == {"002.png": "matrix"}
    page.shows(1, 3, 4, 5, 6, 7, 8)
    page.keys("u")
    page.says("saved: 1 image labelled as before")
    assert page.labels == {}
    page.shows(1, 2, 3, 4, 5, 6, 7, 8)
    page.until(page.ready)
    page.tiles[0].click()
    shift = ActionChains(page.browser).key_down(Keys.SHIFT)
    shift.click(page.tiles[3]).key_up(Keys.SHIFT).perform()
    page.tiles[1].click()
    assert page.chosen == ["new/001.png", "new/003.png", "new/004.png"]
    assert page.text("chosen") == "3 images chosen: which class?"
    page.picture("labels_chosen")
    page.find("[data-category='3']", By.CSS_SELECTOR).click()
    page.says("saved: 3 images labelled “particle”")
    assert page.labels == dict.fromkeys(("001.png", "003.png", "004.png"), "particle")
    page.until(lambda: page.chosen == [] and len(page.names) == 5)
    page.keys("a", "2")
    page.says("saved: 5 images labelled “matrix”")
    assert not page.hidden("none")
    page.keys("u")
    page.until(lambda: len(page.names) == 5)
    page.keys("u")
    page.until(lambda: len(page.names) == 8)
    assert page.labels == {}
    page.close()
