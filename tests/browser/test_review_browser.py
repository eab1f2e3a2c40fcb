"""The page in a real browser: keys, two windows, a server that goes away."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.review_queues import Served, change, write_particle_queue
from support.review_windows import Page
from support.waiting import wait_until

from hypervlad.apps.review import Queue

pytest.importorskip("selenium", reason="selenium is not installed")
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

FULL = pytest.mark.full  # a window of a browser and a server take seconds each


class Window(Page):
    """A window of the browser that shows the page."""

    def opened(self) -> bool:
        return bool(self.name) or not self.hidden("done")

    @property
    def name(self) -> str:
        """The file that is shown; empty where there is none."""
        return "" if self.hidden("work") else self.text("name")

    @property
    def width(self) -> int:
        """The width of the picture."""
        return int(self.find("#stage img", By.CSS_SELECTOR).size["width"])

    @property
    def choices(self) -> list[str]:
        """The categories that are offered, in order."""
        return self.text("choices").split("\n")[1::3]

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


class Review:
    """A queue that is served, and windows that show it."""

    def __init__(self, browser: Any, served: Callable[..., Served]) -> None:
        self.browser, self.served = browser, served
        self.server: Served | None = None
        self.windows: list[Window] = []

    def open(self, folder: Path, **options: float) -> Window:
        """Return a window that shows a queue, which is served from now on."""
        self.folder = folder
        self.server = self.server or self.served(folder, **options)
        self.windows.append(Window(self.browser, self.server.link))
        return self.windows[-1]

    @property
    def labels(self) -> dict[str, str | None]:
        """The labels that people have given, by the names of images."""
        with contextlib.closing(Queue(self.folder)) as queue:
            return {image.name.split("/")[-1]: image.label for image in queue.images()}


@pytest.fixture
def review(browser: Any, served: Callable[..., Served]) -> Iterator[Review]:
    started = Review(browser, served)
    yield started
    troubles = []
    for window in [each for each in started.windows if each.handle in browser.window_handles]:
        window.front()
        troubles += [entry["message"] for entry in browser.get_log("browser")]
        window.close()
    wrong = [text for text in troubles if "Failed to load resource" not in text]
    assert not wrong, "the page's own errors, and what its policy forbids"


Make = Callable[..., Path]


def test_keys_label_skip_and_undo_until_all_is_done(review: Review, make: Make) -> None:
    window = review.open(make(5, 3, pictures=True))
    assert window.name == "new/000.png"
    assert window.text("progress") == "0 of 5 reviewed, 3 labelled by the model"
    assert "between fibre (60 %)" in window.text("reason")
    assert window.text("choices").split("\n")[:3] == ["1", "fibre", "60.0 %"]
    assert window.text("nearest").split("\n")[:2] == ["fibre", "0.png"]
    window.until(lambda: window.width > 400)
    window.until(lambda: window.find("#nearest img", By.CSS_SELECTOR).size["width"] > 50)
    window.picture("first")
    assert window.label("2") == "new/000.png"
    assert window.text("status") == "saved: matrix"
    assert review.labels["000.png"] == "matrix", "on the disk before the next is shown"
    window.label(Keys.ENTER)
    assert review.labels["001.png"] == "matrix", "the model's label"
    assert window.label("s") == "new/002.png"
    assert "(1 skipped)" in window.text("progress")
    assert window.label("u") == "new/003.png", "the skipped one is back"
    assert window.name == "new/002.png"
    window.label("u")
    assert window.name == "new/001.png"
    assert review.labels["001.png"] is None
    window.label("1", "s", "3", "1")
    assert window.text("done-title") == "All done"
    assert "4 labelled by people, 3 by the model, 1 skipped" in window.text("done-text")
    window.press("a")
    window.until(lambda: window.name == "new/002.png")
    window.label("3")
    assert window.text("done-title") == "All done"
    given = [review.labels[f"{i:03d}.png"] for i in range(5)]
    assert given == ["matrix", "fibre", "particle", "particle", "fibre"]


@FULL
def test_a_new_category_is_typed_and_confirmed_while_the_images_stay(
    review: Review, make: Make
) -> None:
    window = review.open(make(3, 0, pictures=True), lease=1)
    window.find("stage").send_keys(Keys.CONTROL, "1")
    assert window.name == "new/000.png", "the browser's own keys are its own"
    window.press("n")
    field = window.find("category")
    assert field.get_attribute("value") == "", "the key itself is not typed"
    with contextlib.closing(Queue(review.folder)) as queue:

        def leased_until() -> float:
            row = queue.connection.execute("SELECT MAX(leased_until) FROM items").fetchone()
            return float(row[0])

        first = leased_until()
        wait_until(lambda: leased_until() > first + 1, "a lease that is renewed")
        assert queue.progress("another").elsewhere == 3
    field.send_keys("carbon  onion", Keys.ENTER)
    window.until(lambda: "“carbon onion” is new" in window.text("confirm"))
    assert set(review.labels.values()) == {None}
    field.send_keys(Keys.ENTER)
    window.until(lambda: window.name == "new/001.png")
    assert review.labels["000.png"] == "carbon onion"
    assert window.label("4") == "new/001.png", "it has a key now"
    window.press("n")
    window.find("category").send_keys("FIBRE", Keys.ENTER)
    window.until(lambda: "“fibre” exists already" in window.text("confirm"))
    window.find("category").send_keys(Keys.ENTER)
    window.until(lambda: not window.hidden("done"))
    assert list(review.labels.values()) == ["carbon onion", "carbon onion", "fibre"]


@FULL
def test_windows_share_a_queue_and_a_page_loaded_again_can_undo(review: Review, make: Make) -> None:
    first = review.open(make(8, 0, pictures=True))
    first.label("1")
    first.browser.refresh()
    first.until(lambda: first.name == "new/001.png")
    first.press("u")
    first.until(lambda: first.name == "new/000.png")
    assert review.labels["000.png"] is None
    before = set(first.browser.window_handles)
    first.browser.execute_script("window.open(location.href)")  # with a copy of what it keeps
    (copy,) = set(first.browser.window_handles) - before
    first.browser.switch_to.window(copy)
    name = first.browser.find_element(By.ID, "name")
    wait_until(lambda: name.text, "the copy's image")
    assert name.text == "new/006.png", "the earlier ones are open in the other window"
    second = review.open(review.folder)
    second.until(lambda: "open in another window" in second.text("done-text"))
    first.browser.switch_to.window(copy)
    first.browser.close()
    first.browser.switch_to.window(second.handle)
    second.until(lambda: second.name == "new/006.png")
    first.close()


@FULL
def test_nothing_is_labelled_that_was_not_shown(review: Review, make: Make, tmp_path: Path) -> None:
    folder = make(12, 0, pictures=True)
    (tmp_path / "new" / "000.png").unlink()
    (tmp_path / "new" / "001.png").write_bytes(b"\x89PNG\r\n\x1a\n half an image")
    window = review.open(folder)
    for number in range(2):
        window.until(lambda: "cannot be shown" in window.text("stage"))
        assert f"{number:03d}.png" in window.text("stage")
        window.label("s")
    window.until(window.ready)
    window.browser.execute_script(  # a key that bounces, and updates while an image loads
        "window.bounced = 0; const press = (key) => document.body.dispatchEvent("
        "  new KeyboardEvent('keydown', { key, bubbles: true }));"
        "window.watching = new MutationObserver(() => { window.bounced += 1; press('2');"
        "  press('s'); setTimeout(refresh, 0); });"
        "window.watching.observe(document.getElementById('name'), { childList: true });"
        "press('1');"
    )
    window.until(lambda: window.name == "new/003.png")
    window.until(window.ready, 5)
    assert window.browser.execute_script("return window.bounced") == 1
    assert [label for label in review.labels.values() if label] == ["fibre"]
    assert "(2 skipped)" in window.text("progress")
    window.browser.execute_script("window.watching.disconnect()")
    server = review.server
    assert server is not None
    server.kill()
    # One that is not in hand: no browser has kept its picture.
    window.browser.execute_script("show({ ...hand[1], id: 12, name: 'new/011.png' })")
    window.until(lambda: window.name == "new/011.png")

    def is_refused() -> bool:
        window.type("1")
        return "not loaded yet" in window.text("status")

    window.until(is_refused)  # not at once: a key may have been meant for the image before
    server.start()
    window.until(lambda: window.width > 100)
    window.until(window.ready)
    assert [label for label in review.labels.values() if label] == ["fibre"]


@FULL
def test_a_click_waits_for_a_server_that_is_gone_until_it_is_given_up(
    review: Review, make: Make
) -> None:
    window = review.open(make(4, 0, pictures=True))
    server = review.server
    assert server is not None
    window.label("1")
    server.kill()
    window.type("2")
    window.until(lambda: "not saved yet" in window.text("trouble"))
    window.picture("server_gone")
    assert window.name == "new/001.png", "no other image is shown before it is saved"
    server.start()
    window.until(lambda: window.name == "new/002.png")
    assert window.hidden("trouble")
    assert review.labels["001.png"] == "matrix"
    window.until(window.ready)
    server.kill()
    window.type("2")
    window.until(lambda: not window.hidden("give-up"))
    window.find("give-up").click()
    window.until(lambda: "Given up" in window.text("trouble"))
    assert window.name == "new/002.png"
    server.start()
    window.label("1")
    assert review.labels["002.png"] == "fibre"


@FULL
def test_keys_belong_to_the_models_categories_and_never_move(review: Review, make: Make) -> None:
    """Unless it has more than keys: then the most probable have them."""
    window = review.open(make(3, 0, pictures=True))
    assert window.hidden("keys")
    before = window.choices
    with contextlib.closing(Queue(review.folder)) as queue:
        added = [queue.add_category(f"other {number}") for number in range(9)]
    scores = f"[[{added[-1].id}, 0.7], [2, 0.3]]"
    change(review.folder, "UPDATE items SET scores = ?", scores)
    window.label("2")
    assert window.choices[: len(before)] == before
    assert window.text("choices").split("\n")[-2:] == ["other 8", "70.0 %"], "without a key"
    assert window.text("keys") == f"{len(before)} more, by name: N."
    change(review.folder, "UPDATE categories SET origin = 'model'")
    window.browser.refresh()
    window.until(lambda: window.text("choices").split("\n")[:3] == ["1", "other 8", "70.0 %"])
    assert len(window.choices) == 9
    assert "keys differ from image to image" in window.text("keys")
    window.label("1")
    assert list(review.labels.values()) == ["matrix", "other 8", None]


@FULL
def test_particles_are_shown_outlined_and_wrong_outlines_have_a_key(
    review: Review, tmp_path: Path
) -> None:
    window = review.open(write_particle_queue(tmp_path))
    assert window.name == "a.png, particle 1"
    window.until(lambda: window.width > 400)
    assert "not a particle" not in window.text("choices")
    assert window.text("wrong") == "X Not a particle"
    window.label("1", "x")
    window.picture("particle")
    assert window.text("status") == "saved: not a particle"
    assert review.labels["a.png, particle 2"] == "not a particle"
