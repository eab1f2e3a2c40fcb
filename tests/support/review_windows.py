"""Windows of a browser that show a page of the review, and screenshots of any page."""

import contextlib
import os
from pathlib import Path

from support.waiting import wait_until

from hypervlad.apps.review import Queue


def save_screenshot(browser, name):
    """Save a screenshot to the folder that ``HYPERVLAD_SCREENSHOTS`` names, if it is set."""
    folder = os.environ.get("HYPERVLAD_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        browser.save_screenshot(str(Path(folder, f"{name}.png")))


class Page:
    """A window that shows a page, maybe of a queue; `opened` says whether the page is there."""

    folder: Path

    def __init__(self, browser, link):
        self.browser = browser
        browser.switch_to.new_window("tab")
        self.handle = browser.current_window_handle
        browser.get(link)
        self.until(self.opened)

    def opened(self):
        raise NotImplementedError

    def front(self):
        if self.browser.current_window_handle != self.handle:
            self.browser.switch_to.window(self.handle)

    def find(self, name, how="id"):
        self.front()
        return self.browser.find_element(how, name)

    def text(self, name):
        return str(self.find(name).text)

    def hidden(self, name):
        return not self.find(name).is_displayed()

    def until(self, true):
        from selenium.common.exceptions import NoSuchElementException as NotYet
        from selenium.common.exceptions import StaleElementReferenceException as Replaced

        def is_so():
            # What is looked at may be replaced at any moment, such as one picture by a larger one.
            with contextlib.suppress(NotYet, Replaced):
                return true()

        self.front()
        wait_until(is_so, "the page")

    def says(self, words):
        self.until(lambda: words in self.text("status"))

    def picture(self, name):
        self.front()
        save_screenshot(self.browser, name)

    @property
    def labels(self):
        """The labels that people have given, by the names of files."""
        with contextlib.closing(Queue(self.folder)) as queue:
            images = queue.images()
        return {Path(image.name).name: image.label for image in images if image.label is not None}

    def close(self):
        """Close the window; the page must have had no errors, and done nothing forbidden."""
        self.front()
        troubles = [entry["message"] for entry in self.browser.get_log("browser")]
        self.browser.close()
        self.browser.switch_to.window(self.browser.window_handles[0])
        assert not [text for text in troubles if "Failed to load resource" not in text]
