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

pytestmark = pytest.mark.slow


class LabelPage(Page):
    """A window of the browser that shows the page of labels."""

    folder: Path
    link: str

    def opened(self) -> bool:
        return bool(self.names) or not self.hidden("none")

    @property
    def labels(self) -> dict[str, str]:
        """The labels that people have given, by the names of files."""
        with contextlib.closing(Queue(self.folder)) as queue:
            images = queue.images()
        return {image.image.name: image.label for image in images if image.label is not None}

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

    def keys(self, *keys: str) -> None:
        """Press keys wherever the focus is."""
        self.front()
        self.until(self.ready)
        for key in keys:
            ActionChains(self.browser).send_keys(key).perform()

    def select(self, name: str, text: str) -> None:
        self.until(self.ready)
        Select(self.find(name)).select_by_visible_text(text)
        self.until(self.ready)


@pytest.fixture
def open_labels(
    browser: Any, make: Callable[..., Path], served: Callable[..., Served]
) -> Iterator[Callable[..., LabelPage]]:
    """Serve a queue of doubtful and of sure images, changed before, and open its labels."""
    windows: list[LabelPage] = []

    def opened(
        doubtful: int, sure: int, change: Callable[[Queue], Any] = lambda queue: None
    ) -> LabelPage:
        folder = make(doubtful, sure, pictures=True)
        with contextlib.closing(Queue(folder)) as queue:
            change(queue)
        link = served(folder).link
        windows.append(LabelPage(browser, link + "labels.html"))
        windows[-1].folder, windows[-1].link = folder, link
        windows[-1].until(windows[-1].ready)
        return windows[-1]

    yield opened
    for window in windows:
        window.front()
        wrong = [entry["message"] for entry in browser.get_log("browser")]
        window.close()
        assert not wrong, "the page's own errors, and what its policy forbids"


def test_one_image_is_corrected_with_the_keyboard_alone_and_restored(
    open_labels: Callable[..., LabelPage],
) -> None:
    page = open_labels(2, 6)
    assert page.names == [f"00{i}.png" for i in range(2, 8)]
    assert page.text("place") == "1–6 of 6 images"
    page.keys("2")
    page.until(lambda: "choose images first" in page.text("status"))
    page.keys(Keys.ARROW_DOWN, Keys.ARROW_RIGHT, "2")
    page.until(lambda: page.text("status") == "saved: 1 image labelled “matrix”")
    assert page.labels == {"003.png": "matrix"}
    page.until(lambda: page.names == ["002.png", "004.png", "005.png", "006.png", "007.png"])
    page.keys("u")
    page.until(lambda: page.text("status") == "saved: 1 image labelled as before")
    assert page.labels == {}
    assert len(page.names) == 6


def test_many_images_are_chosen_and_corrected_at_once(
    open_labels: Callable[..., LabelPage],
) -> None:
    page = open_labels(1, 8)
    page.tiles[0].click()
    ActionChains(page.browser).key_down(Keys.SHIFT).click(page.tiles[3]).key_up(
        Keys.SHIFT
    ).perform()
    page.tiles[1].click()
    assert page.chosen == ["001.png", "003.png", "004.png"]
    assert page.text("chosen") == "3 images chosen: which category?"
    page.picture("labels_chosen")
    page.find("[data-category='3']", By.CSS_SELECTOR).click()
    page.until(lambda: page.text("status") == "saved: 3 images labelled “particle”")
    assert set(page.labels.items()) == {
        (name, "particle") for name in ("001.png", "003.png", "004.png")
    }
    page.until(lambda: page.chosen == [] and len(page.names) == 5)
    page.keys("a", "n")
    page.find("category").send_keys("carbon onion", Keys.ENTER)
    page.until(lambda: "“carbon onion” is new" in page.text("confirm"))
    page.find("category").send_keys(Keys.ENTER)
    page.until(lambda: page.text("status") == "saved: 5 images labelled “carbon onion”")
    assert not page.hidden("none")
    page.keys("u")
    page.until(lambda: len(page.names) == 5)
    page.keys("u")
    page.until(lambda: len(page.names) == 8)
    assert page.labels == {}


def test_a_range_is_chosen_with_shift_and_given_up_with_escape(
    open_labels: Callable[..., LabelPage],
) -> None:
    page = open_labels(1, 5)
    page.keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    ActionChains(page.browser).key_down(Keys.SHIFT).send_keys(
        Keys.ARROW_RIGHT, Keys.ARROW_RIGHT
    ).key_up(Keys.SHIFT).perform()
    assert page.chosen == ["002.png", "003.png", "004.png"]
    page.keys(Keys.ESCAPE)
    assert page.chosen == []
    page.keys(Keys.HOME, " ", Keys.END, " ")
    assert page.chosen == ["001.png", "005.png"]


def test_images_are_filtered_by_label_and_sorted(
    open_labels: Callable[..., LabelPage],
) -> None:
    def change(queue: Queue) -> None:
        queue.connection.execute("UPDATE items SET confidence = 1 - 0.05 * id WHERE id > 2")
        queue.label("window-1", "click-1", 1, 2)

    page = open_labels(2, 6, change)
    assert page.names == [f"00{i}.png" for i in range(7, 1, -1)]
    page.select("order", "most sure first")
    page.until(lambda: page.names == [f"00{i}.png" for i in range(2, 8)])
    page.select("label", "particle (2)")
    page.until(lambda: page.names == ["002.png", "005.png"])
    page.tiles[0].click()  # the keys were those of the filter
    page.keys("1")
    page.until(lambda: page.names == ["005.png"])
    page.select("source", "people")
    page.until(lambda: sorted(page.names) == ["000.png", "002.png"])
    page.select("order", "last changed first")
    page.until(lambda: page.names == ["002.png", "000.png"])
    assert "by a person, not particle" in page.tiles[0].text
    page.picture("labels_by_people")


def test_an_enlarged_image_is_corrected_and_the_next_one_comes(
    open_labels: Callable[..., LabelPage],
) -> None:
    page = open_labels(1, 4)
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


def test_focus_and_enlarged_view_stay_with_their_image(
    open_labels: Callable[..., LabelPage],
) -> None:
    """Where another window has removed an image before it, and then the image itself."""
    page = open_labels(1, 5)
    reload = "document.dispatchEvent(new Event('visibilitychange'))"

    def corrected_elsewhere(item: int) -> None:
        queue = Queue(page.folder)
        Labels(queue).correct("another-1", f"click-00{item}", {item: None}, 1)
        queue.close()
        page.browser.execute_script(reload)
        page.until(lambda: f"00{item - 1}.png" not in page.names)

    page.keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    corrected_elsewhere(2)
    focus = "return document.activeElement.querySelector('.file').textContent"
    assert page.browser.execute_script(focus) == "003.png"
    page.keys(Keys.ENTER)
    page.until(lambda: page.text("view-name") == "new/003.png")
    corrected_elsewhere(3)
    assert page.text("view-name") == "new/003.png"
    corrected_elsewhere(4)
    page.until(lambda: page.hidden("view"))
    assert "another window has changed it" in page.text("status")
    assert page.browser.execute_script(focus) == "004.png"


def test_pages_are_turned_and_a_reloaded_page_can_undo(
    open_labels: Callable[..., LabelPage],
) -> None:
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


@pytest.mark.parametrize("width", [1400, 400])
def test_nothing_is_wider_than_the_window(
    open_labels: Callable[..., LabelPage], width: int
) -> None:
    page = open_labels(2, 12)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for address in ("labels.html", ""):
        page.browser.get(page.link + address)
        wide = "return document.documentElement.scrollWidth"
        page.until(lambda: page.browser.execute_script("return categories.length"))
        assert page.browser.execute_script(wide) <= width
        page.picture(f"{address or 'queue'}_{width}")
    page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
