"""The page of labels in a real browser: filters, choosing, correcting one or many, undoing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.review_queues import Served
from support.review_windows import Page

from hypervlad.apps.review import Labels, Queue

pytest.importorskip("selenium", reason="selenium is not installed")
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

FULL = pytest.mark.full  # a window of a browser and a server take seconds each


class LabelPage(Page):
    """A window of the browser that shows the page of labels."""

    folder: Path

    def opened(self) -> bool:
        return bool(self.names) or not self.hidden("none")

    @property
    def labels(self) -> dict[str, str]:
        """The labels that people have given, by the names of files."""
        with contextlib.closing(Queue(self.folder)) as queue:
            images = queue.images()
        return {Path(image.name).name: image.label for image in images if image.label is not None}

    @property
    def tiles(self) -> list[Any]:
        self.front()
        return self.browser.find_elements(By.CSS_SELECTOR, "#grid li")

    @property
    def names(self) -> list[str]:
        """The files that are shown, in order."""
        script = "return [...document.querySelectorAll('#grid .file')].map((e) => e.textContent)"
        self.front()
        return list(self.browser.execute_script(script))

    @property
    def chosen(self) -> list[str]:
        self.front()
        return [
            tile.find_element(By.CLASS_NAME, "file").text
            for tile in self.browser.find_elements(By.CSS_SELECTOR, "[aria-selected=true]")
        ]

    def ready(self) -> bool:
        """Say whether all pictures are there, and nothing is being saved."""
        script = (
            "return [...document.querySelectorAll('#grid img')].every((img) => img.naturalWidth)"
            " && document.getElementById('browse').getAttribute('aria-busy') !== 'true'"
            " && performance.now() - appeared > BOUNCE"
        )
        self.front()
        return bool(self.browser.execute_script(script))

    def keys(self, *keys: str, shift: bool = False) -> None:
        """Press keys wherever the focus is."""
        self.front()
        self.until(self.ready)
        for key in keys:
            actions = ActionChains(self.browser)
            if shift:
                actions.key_down(Keys.SHIFT).send_keys(key).key_up(Keys.SHIFT).perform()
            else:
                actions.send_keys(key).perform()

    def select(self, name: str, text: str) -> None:
        self.until(self.ready)
        Select(self.find(name)).select_by_visible_text(text)
        self.until(self.ready)

    def says(self, status: str) -> None:
        self.until(lambda: status in self.text("status"))

    def shows(self, *numbers: int) -> None:
        self.until(lambda: self.names == [f"{number:03d}.png" for number in numbers])


@pytest.fixture
def open_labels(
    browser: Any, make: Callable[..., Path], served: Callable[..., Served]
) -> Iterator[Callable[..., LabelPage]]:
    """Serve a queue of doubtful and of sure images, and open its labels."""
    windows: list[LabelPage] = []

    def opened(doubtful: int, sure: int) -> LabelPage:
        folder = make(doubtful, sure, pictures=True)
        windows.append(LabelPage(browser, served(folder).link + "labels.html"))
        windows[-1].folder = folder
        windows[-1].until(windows[-1].ready)
        return windows[-1]

    yield opened
    for window in windows:
        window.front()
        wrong = [entry["message"] for entry in browser.get_log("browser")]
        window.close()
        assert not wrong, "the page's own errors, and what its policy forbids"


Open = Callable[..., LabelPage]


def test_images_are_chosen_and_corrected_one_by_one_or_at_once_and_restored(
    open_labels: Open,
) -> None:
    page = open_labels(1, 8)
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
    assert page.chosen == ["001.png", "003.png", "004.png"]
    assert page.text("chosen") == "3 images chosen: which category?"
    page.picture("labels_chosen")
    page.find("[data-category='3']", By.CSS_SELECTOR).click()
    page.says("saved: 3 images labelled “particle”")
    assert page.labels == dict.fromkeys(("001.png", "003.png", "004.png"), "particle")
    page.until(lambda: page.chosen == [] and len(page.names) == 5)
    page.keys("a", "n")
    page.find("category").send_keys("carbon onion", Keys.ENTER)
    page.until(lambda: "“carbon onion” is new" in page.text("confirm"))
    page.find("category").send_keys(Keys.ENTER)
    page.says("saved: 5 images labelled “carbon onion”")
    assert not page.hidden("none")
    page.keys("u")
    page.until(lambda: len(page.names) == 5)
    page.keys("u")
    page.until(lambda: len(page.names) == 8)
    assert page.labels == {}


@FULL
def test_a_range_is_chosen_with_shift_and_images_are_filtered_and_sorted(
    open_labels: Open,
) -> None:
    page = open_labels(2, 6)
    page.keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    page.keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, shift=True)
    assert page.chosen == ["003.png", "004.png", "005.png"]
    page.keys(Keys.ESCAPE)
    assert page.chosen == []
    page.keys(Keys.HOME, " ", Keys.END, " ")
    assert page.chosen == ["002.png", "007.png"]
    page.keys(Keys.ESCAPE)
    with contextlib.closing(Queue(page.folder)) as queue:
        queue.label("window-1", "click-1", 1, 2)
    page.select("order", "most sure first")
    page.shows(7, 6, 5, 4, 3, 2)
    page.select("label", "particle (2)")
    page.shows(5, 2)
    page.tiles[0].click()  # the keys were those of the filter
    page.keys("1")
    page.shows(2)
    page.select("source", "people")
    page.until(lambda: sorted(page.names) == ["000.png", "005.png"])
    page.select("order", "last changed first")
    page.shows(5, 0)
    assert "by a person, not particle" in page.tiles[0].text


@FULL
def test_focus_and_enlarged_view_stay_with_their_image(open_labels: Open) -> None:
    """Where another window has removed an image before it, and then the image itself."""
    page = open_labels(1, 6)
    page.keys(Keys.ARROW_RIGHT, Keys.ENTER)
    page.until(lambda: page.text("view-name") == "new/001.png")
    page.keys(Keys.ARROW_RIGHT)
    page.until(lambda: page.text("view-name") == "new/002.png")
    loaded = "return document.getElementById('view-image').naturalWidth > 200"
    page.until(lambda: page.browser.execute_script(loaded))
    page.picture("labels_enlarged")
    page.keys("2")
    page.until(lambda: page.text("view-name") == "new/003.png")
    assert page.labels == {"002.png": "matrix"}
    page.keys("u")
    page.until(lambda: page.text("view-name") == "new/002.png")
    page.keys(Keys.ESCAPE)
    page.until(lambda: page.hidden("view"))
    assert page.labels == {}

    def corrected_elsewhere(item: int) -> None:
        with contextlib.closing(Queue(page.folder)) as queue:
            Labels(queue).correct("another-1", f"click-00{item}", {item: None}, 1)
        page.browser.execute_script("document.dispatchEvent(new Event('visibilitychange'))")
        page.until(lambda: f"00{item - 1}.png" not in page.names)

    page.keys(Keys.ARROW_RIGHT)
    corrected_elsewhere(2)
    focus = "return document.activeElement.querySelector('.file').textContent"
    assert page.browser.execute_script(focus) == "003.png"
    page.keys(Keys.ENTER)
    page.until(lambda: page.text("view-name") == "new/003.png")
    corrected_elsewhere(6)
    assert page.text("view-name") == "new/003.png"
    corrected_elsewhere(4)
    page.until(lambda: page.hidden("view"))
    page.says("another window has changed it")
    assert page.browser.execute_script(focus) == "004.png"


@FULL
def test_pages_are_turned_fit_the_window_and_can_undo_when_loaded_again(open_labels: Open) -> None:
    page = open_labels(1, 70)
    assert page.text("place") == "1–60 of 70 images"
    page.keys(".")
    page.until(lambda: page.text("place") == "61–70 of 70 images")
    page.until(page.ready)
    page.keys("a", "1")
    page.until(lambda: page.text("place") == "1–60 of 60 images")
    page.browser.refresh()
    page.until(lambda: len(page.names) == 60)
    page.keys("u")
    page.until(lambda: page.text("place") == "1–60 of 70 images")
    assert page.labels == {}
    link = page.browser.current_url
    for width in (1400, 400):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        for address in (link, link.removesuffix("labels.html")):
            page.browser.get(address)
            page.until(lambda: page.browser.execute_script("return categories.length"))
            wide = page.browser.execute_script("return document.documentElement.scrollWidth")
            assert wide <= width, address
    page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
