"""A page in a browser, as a person sees it: by the names of controls, and by its words."""

import re

from support.review_windows import save_screenshot
from support.waiting import wait_until

# What can be used or seen and begins with a name, those with just this name first.
_NAMED = """
const nameOf = (e) => (e.getAttribute("aria-label") || (e.labels?.length && e.labels[0].innerText)
  || [...e.children].find((c) => c.tagName === "title")?.textContent || e.textContent || "")
  .trim().replace(/\\s+/g, " ");
const kinds = "button, input, select, a, summary, [role], path, rect";
const found = [...(document.querySelector("dialog[open]") || document).querySelectorAll(kinds)]
  .map((e) => [nameOf(e), e])
  .filter(([name, e]) => name.startsWith(arguments[0]) && e.checkVisibility());
const exact = found.filter(([name]) => name === arguments[0]);
return (exact.length ? exact : found).map(([, e]) => e);
"""


class Window:
    """A page; `named` are its controls, links and shapes with a name, in order."""

    def __init__(self, browser, page):
        self.browser, self.page = browser, page
        self.open()

    def open(self):
        self.browser.get(self.page.as_uri())

    def run(self, script, *arguments):
        return self.browser.execute_script(script, *arguments)

    @property
    def text(self):
        """All that is to be read; while a dialog is open, only that of the dialog."""
        script = "return (document.querySelector('dialog[open]') || document.body).innerText"
        return str(self.run(script))

    @property
    def words(self):
        return " ".join(self.text.split())

    def named(self, name):
        return list(self.run(_NAMED, name))

    def find(self, name):
        found = self.named(name)
        assert found, f"nothing is called {name!r}"
        return found[0]

    def click(self, *names):
        for name in names:
            self.find(name).click()

    def write(self, name, text):
        field = self.find(name)
        field.clear()
        field.send_keys(text)

    def choose(self, name, option):
        from selenium.webdriver.support.ui import Select

        Select(self.find(name)).select_by_visible_text(option)

    def press(self, *keys):
        for key in keys:
            self.browser.switch_to.active_element.send_keys(key)

    @property
    def focused(self):
        return str(self.browser.switch_to.active_element.accessible_name)

    def is_in_view(self, element):
        script = """const r = arguments[0].getBoundingClientRect();
        return r.bottom > 0 && r.top < innerHeight && r.height > 0"""
        return bool(self.run(script, element))

    def box(self, element):
        """Left, top, right and bottom, in pixels of the screen."""
        script = """const r = arguments[0].getBoundingClientRect();
        return [r.left, r.top, r.right, r.bottom]"""
        return list(self.run(script, element))

    def picture(self, name):
        """The picture with this alternative text."""
        return self.run("return [...document.images].find((e) => e.alt === arguments[0])", name)

    def point(self, picture, x, y, shape):
        """Where a point of an image is in the window, once its picture is in the middle."""
        self.run("arguments[0].scrollIntoView({ block: 'center' })", picture)
        left, top, right, bottom = self.box(picture)
        height, width = shape
        return round(left + x / width * (right - left)), round(top + y / height * (bottom - top))

    def screenshot(self, name):
        save_screenshot(self.browser, name)

    def downloaded(self, folder, name, file):
        """Press the button of this name, and wait for the file that it saves."""
        self.browser.execute_cdp_cmd(
            "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)}
        )
        self.click(name)
        wait_until((folder / file).exists, file)
        return folder / file

    def assert_fits_a_telephone(self):
        size = {"width": 400, "height": 900, "deviceScaleFactor": 1, "mobile": True}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        width = self.run("return document.documentElement.scrollWidth")
        self.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        assert width == 400

    def assert_safe(self):
        """It has loaded nothing from elsewhere, no name was run, and there were no errors."""
        loaded = self.run("return performance.getEntriesByType('resource').map((e) => e.name)")
        assert [each for each in loaded if not re.match("data:|blob:", each)] == []
        assert "broken" not in self.browser.title
        assert self.browser.get_log("browser") == [], "what its policy forbids, too"
