"""The page in a real browser: keys, two windows, a server that goes away."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.review_queues import Served, write_particle_queue, write_picture
from support.review_windows import Page

from hypervlad.apps.review import Queue

pytest.importorskip("selenium", reason="selenium is not installed")
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

pytestmark = pytest.mark.slow


class Window(Page):
    """A window of the browser that shows the page."""

    def opened(self) -> bool:
        return bool(self.name) or not self.hidden("done")

    @property
    def name(self) -> str:
        """The file that is shown; empty where there is none."""
        return "" if self.hidden("work") else self.text("name")

    def press(self, *keys: str) -> None:
        """Press keys, each time until the page has answered."""
        self.front()
        for key in keys:
            self.until(self.ready)
            self.find("body", By.TAG_NAME).send_keys(key)
            self.until(lambda: self.find("work").get_attribute("aria-busy") != "true")
            self.until(self.ready)

    def ready(self) -> bool:
        """Say whether the picture is there, or that there is none, for long enough to be seen."""
        return self.hidden("work") or self.find("stage").get_attribute("aria-busy") == "false"

    def label(self, key: str) -> str:
        """Label the image that is shown; return its name once another one is."""
        before = self.name
        self.press(key)
        self.until(lambda: self.name != before)
        return before


class Review:
    """A queue that is served, and windows that show it."""

    def __init__(
        self, browser: Any, make: Callable[..., Path], served: Callable[..., Served]
    ) -> None:
        self.browser, self.make, self.served = browser, make, served
        self.server: Served | None = None
        self.windows: list[Window] = []

    def queue(self, n: int, sure: int = 2) -> Path:
        """Write a queue of n doubtful images, and some sure ones."""
        self.folder = self.make(n, sure, pictures=True)
        return self.folder

    def open(self, **options: float) -> Window:
        """Return a window that shows the queue, which is served from now on."""
        self.server = self.server or self.served(self.folder, **options)
        self.windows.append(Window(self.browser, self.server.link))
        return self.windows[-1]

    def start(self, n: int, **options: float) -> Window:
        self.queue(n)
        return self.open(**options)

    @property
    def labels(self) -> dict[str, str | None]:
        """The labels that people have given, by the names of images."""
        with contextlib.closing(Queue(self.folder)) as queue:
            return {image.name: image.label for image in queue.images()}


@pytest.fixture
def review(
    browser: Any, make: Callable[..., Path], served: Callable[..., Served]
) -> Iterator[Review]:
    started = Review(browser, make, served)
    yield started
    troubles = []
    for window in [each for each in started.windows if each.handle in browser.window_handles]:
        window.front()
        troubles += [entry["message"] for entry in browser.get_log("browser")]
        window.close()
    wrong = [text for text in troubles if "Failed to load resource" not in text]
    assert not wrong, "the page's own errors, and what its policy forbids"


def finished(window: Window) -> bool:
    return window.text("done-title") == "All done"


def test_keys_label_skip_and_undo_until_all_is_done(review: Review) -> None:
    review.queue(5, 3)
    window = review.open()
    assert window.name == "new/000.png"
    assert window.text("progress") == "0 of 5 reviewed, 3 labelled by the model"
    assert "between fibre (60 %)" in window.text("reason")
    assert window.text("choices").split("\n")[:3] == ["1", "fibre", "60.0 %"]
    assert window.text("nearest").split("\n")[:2] == ["fibre", "0.png"]
    window.until(lambda: window.find("#stage img", By.CSS_SELECTOR).size["width"] > 400)
    window.until(lambda: window.find("#nearest img", By.CSS_SELECTOR).size["width"] > 50)
    window.picture("first")
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    window.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    ground = "return getComputedStyle(document.body).backgroundColor"
    assert window.browser.execute_script(ground) == "rgb(13, 17, 23)"
    window.picture("dark")
    window.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert window.label("2") == "new/000.png"
    assert window.text("status") == "saved: matrix"
    assert review.labels["new/000.png"] == "matrix", "on the disk before the next is shown"
    assert window.label(Keys.ENTER) == "new/001.png"
    assert review.labels["new/001.png"] == "matrix", "the model's label"
    assert window.label("s") == "new/002.png"
    assert "(1 skipped)" in window.text("progress")
    assert window.label("u") == "new/003.png", "the skipped one is back"
    assert window.name == "new/002.png"
    assert window.label("u") == "new/002.png"
    assert window.name == "new/001.png"
    assert review.labels["new/001.png"] is None
    for key in ("1", "s", "3", "1"):
        window.label(key)
    assert window.text("done-title") == "All done"
    assert "4 labelled by people, 3 by the model, 1 skipped" in window.text("done-text")
    window.picture("done")
    window.press("a")
    window.until(lambda: window.name == "new/002.png")
    window.label("3")
    assert window.text("done-title") == "All done"
    expected = ["matrix", "fibre", "particle", "particle", "fibre"]
    assert [review.labels[f"new/{i:03d}.png"] for i in range(5)] == expected


def test_a_new_category_is_typed_and_confirmed(review: Review) -> None:
    window = review.start(3)
    window.find("stage").send_keys(Keys.CONTROL, "1")
    assert window.name == "new/000.png", "the browser's own keys are its own"
    window.press("n")
    window.find("category").send_keys("12su", Keys.ESCAPE)
    window.press("n")
    field = window.find("category")
    assert field.get_attribute("value") == "", "the key itself is not typed"
    field.send_keys("carbon  onion", Keys.ENTER)
    window.until(lambda: "“carbon onion” is new" in window.text("confirm"))
    assert set(review.labels.values()) == {None}
    window.picture("new_category")
    field.send_keys(Keys.ENTER)
    window.until(lambda: window.name == "new/001.png")
    assert review.labels["new/000.png"] == "carbon onion"
    assert "carbon onion" in window.text("choices")
    assert window.label("4") == "new/001.png", "it has a key now"
    window.press("n")
    window.find("category").send_keys("FIBRE", Keys.ENTER)
    window.until(lambda: "“fibre” exists already" in window.text("confirm"))
    window.find("category").send_keys(Keys.ENTER)
    window.until(lambda: not window.hidden("done"))
    assert list(review.labels.values())[:3] == ["carbon onion", "carbon onion", "fibre"]


def test_the_last_images_in_another_window_come_back_when_it_is_closed(review: Review) -> None:
    first, second = review.start(3), review.open()
    second.until(lambda: "open in another window" in second.text("done-text"))
    first.close()
    second.until(lambda: second.name == "new/000.png")


def test_a_window_keeps_its_images_while_a_category_is_typed(review: Review) -> None:
    window = review.start(3, lease=2)
    window.press("n")
    with contextlib.closing(Queue(review.folder)) as queue:
        end = time.monotonic() + 3
        while time.monotonic() < end:
            assert queue.progress("another").elsewhere == 3
            time.sleep(0.2)
    assert window.name == "new/000.png"


def test_a_page_loaded_again_can_undo_and_its_copy_is_another_window(review: Review) -> None:
    window = review.start(12)
    window.label("1")
    window.browser.refresh()
    window.until(lambda: window.name == "new/001.png")
    window.press("u")
    window.until(lambda: window.name == "new/000.png")
    assert review.labels["new/000.png"] is None
    before = set(window.browser.window_handles)
    window.browser.execute_script("window.open(location.href)")  # with a copy of what it keeps
    (copy,) = set(window.browser.window_handles) - before
    window.browser.switch_to.window(copy)
    name = window.browser.find_element(By.ID, "name")
    WebDriverWait(window.browser, 20).until(lambda _: name.text)
    assert name.text == "new/006.png", "the earlier ones are open in the other window"
    window.browser.close()
    window.browser.switch_to.window(window.handle)


def test_a_key_that_bounces_labels_no_image_that_was_not_shown(review: Review) -> None:
    window = review.start(4)
    window.until(window.ready)
    window.browser.execute_script(
        "window.bounced = 0; const press = (key) => document.body.dispatchEvent("
        "  new KeyboardEvent('keydown', { key, bubbles: true }));"
        "new MutationObserver(() => { window.bounced += 1; press('2'); press('s'); })"
        "  .observe(document.getElementById('name'), { childList: true });"
        "press('1');"
    )
    window.until(lambda: window.name == "new/001.png")
    window.until(window.ready)
    assert window.browser.execute_script("return window.bounced") == 1
    assert window.name == "new/001.png"
    assert [label for label in review.labels.values() if label] == ["fibre"]
    assert "0 of" not in window.text("progress")
    assert "skipped" not in window.text("progress")


def test_updates_while_an_image_loads_do_not_lose_it(review: Review) -> None:
    """The page polls for updates now and then, also just after an image has appeared."""
    window = review.start(4)
    window.until(window.ready)
    window.browser.execute_script(
        "new MutationObserver(() => setTimeout(refresh, 0))"
        "  .observe(document.getElementById('name'), { childList: true });"
    )
    for number in range(3):
        assert window.label("1") == f"new/{number:03d}.png"
        window.until(window.ready, 5)


def test_what_could_not_be_fetched_is_not_labelled_unseen(review: Review) -> None:
    window = review.start(8)
    server = review.server
    window.until(window.ready)
    server.kill()
    # One that is not in hand: no browser has kept its picture.
    window.browser.execute_script("show({ ...hand[1], id: 8, name: 'new/007.png' })")
    window.until(lambda: window.name == "new/007.png")

    def is_refused() -> bool:
        window.find("body", By.TAG_NAME).send_keys("1")
        return "not loaded yet" in window.text("status")

    window.until(is_refused)  # not at once: a key may have been meant for the image before
    server.start()
    window.until(lambda: window.find("#stage img", By.CSS_SELECTOR).size["width"] > 100)
    window.until(window.ready)
    assert set(review.labels.values()) == {None}


def test_what_cannot_be_shown_is_reported_and_skipped(review: Review, tmp_path: Path) -> None:
    review.queue(3)
    (tmp_path / "new" / "000.png").unlink()
    (tmp_path / "new" / "001.png").write_bytes(b"\x89PNG\r\n\x1a\n half an image")
    window = review.open()
    for number in range(2):
        window.until(lambda: "cannot be shown" in window.text("stage"))
        assert f"{number:03d}.png" in window.text("stage")
        window.picture(f"unreadable{number}")
        window.label("s")
    assert window.name == "new/002.png"


def test_a_click_waits_for_a_server_that_is_gone(review: Review) -> None:
    window = review.start(4)
    server = review.server
    window.label("1")
    server.kill()
    window.find("body", By.TAG_NAME).send_keys("2")
    window.until(lambda: "not saved yet" in window.text("trouble"))
    window.picture("server_gone")
    assert window.name == "new/001.png", "no other image is shown before it is saved"
    link = server.link
    server.start()
    assert server.link == link, "the same link, so that open windows continue"
    window.until(lambda: window.name == "new/002.png")
    assert window.hidden("trouble")
    assert review.labels["new/001.png"] == "matrix"


def test_a_click_can_be_given_up(review: Review) -> None:
    window = review.start(4)
    server = review.server
    window.until(window.ready)
    server.kill()
    window.find("body", By.TAG_NAME).send_keys("2")
    window.until(lambda: not window.hidden("give-up"))
    window.find("give-up").click()
    window.until(lambda: "Given up" in window.text("trouble"))
    assert window.name == "new/000.png"
    server.start()
    window.label("1")
    assert review.labels["new/000.png"] == "fibre"


def test_the_picture_can_be_enlarged(review: Review, tmp_path: Path) -> None:
    review.queue(2)
    write_picture(tmp_path / "new" / "000.png", 0, size=(1000, 1500))
    window = review.open()
    window.until(lambda: window.find("#stage img", By.CSS_SELECTOR).size["width"] > 400)
    window.press("f")
    window.until(lambda: window.find("#stage img", By.CSS_SELECTOR).size["width"] == 1500)
    assert window.text("zoom") == "100 %"
    window.picture("whole")
    window.press("f")
    window.until(lambda: window.find("#stage img", By.CSS_SELECTOR).size["width"] < 1366)
    stage = window.find("stage")
    wheel = "arguments[0].dispatchEvent(new WheelEvent('wheel', {deltaY: -100, clientX: 300,"
    for _ in range(4):
        window.browser.execute_script(wheel + " clientY: 300, cancelable: true}))", stage)
    window.until(lambda: window.find("#stage img", By.CSS_SELECTOR).size["width"] > 1366)
    assert window.label("1") == "new/000.png"
    assert window.text("zoom") == "", "the next one fits the window again"


def test_of_many_categories_the_most_probable_have_the_keys(review: Review) -> None:
    review.queue(2)
    queue = Queue(review.folder)
    for number in range(9):
        queue.add_category(f"other {number}")
    queue.connection.execute("UPDATE categories SET origin = 'model'")
    queue.connection.execute("UPDATE items SET scores = '[[12, 0.7], [2, 0.3]]'")
    queue.close()
    window = review.open()
    assert window.text("choices").split("\n")[:5] == ["1", "other 8", "70.0 %", "2", "matrix"]
    assert len(window.browser.find_elements(By.CSS_SELECTOR, "#choices button")) == 9
    assert "keys differ from image to image" in window.text("keys")
    window.label("1")
    assert review.labels["new/000.png"] == "other 8"


def test_categories_that_people_add_never_move_a_key(review: Review) -> None:
    window = review.start(3)
    assert window.hidden("keys")
    before = window.text("choices").split("\n")[1::3]
    queue = Queue(review.folder)
    added = [queue.add_category(f"other {number}") for number in range(9)]
    queue.connection.execute("UPDATE items SET scores = ?", [f"[[{added[-1].id}, 0.7], [2, 0.3]]"])
    queue.close()
    window.label("2")
    assert window.text("choices").split("\n")[1::3][: len(before)] == before
    assert window.text("choices").split("\n")[-2:] == ["other 8", "70.0 %"], "seen, without a key"
    assert window.text("keys") == f"{len(before) + 9 - 9} more, by name: N."
    window.label("2")
    assert set(review.labels.values()) == {"matrix", None}
    nearest = window.find("nearest")
    assert nearest.get_property("scrollWidth") <= nearest.get_property("clientWidth")
    window.picture("many_categories")


def test_particles_are_shown_outlined_and_wrong_outlines_have_a_key(
    review: Review, tmp_path: Path
) -> None:
    review.folder = write_particle_queue(tmp_path)
    window = review.open()
    assert window.name == "a.png, particle 1"
    window.until(lambda: window.find("#stage img", By.CSS_SELECTOR).size["width"] > 400)
    window.until(lambda: window.find("#nearest img", By.CSS_SELECTOR).size["width"] > 50)
    assert "not a particle" not in window.text("choices")
    assert window.text("wrong") == "X Not a particle"
    window.label("1")
    window.until(window.ready)
    window.picture("particle")
    window.label("x")
    assert window.text("status") == "saved: not a particle"
    assert review.labels["a.png, particle 2"] == "not a particle"
    window.until(window.ready)
    window.picture("large_particle")
