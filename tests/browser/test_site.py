"""The documentation site, if `make docs` or `make gallery` has built it.

All pages: alternative texts, no resource of another host, at most 1 MB. In a browser, a page of
each kind at two widths, light and dark: contrast, width, and no message of an error.
"""

import functools
import http.server
import json
import re
import threading
from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest
from support.absent import skip_without
from support.paths import ROOT

SITE = ROOT / "docs" / "_build" / "html"
MAX_BYTES = 1_000_000
MAX_SHARED_BYTES = 1_100_000  # with the index of the search
KINDS = [
    *("index", "start/install", "learn/index", "learn/plot_1_classify", "howto/groups"),
    *("gallery/index", "gallery/classification/plot_why", "explanation/dense_encoding"),
    *("explanation/hypercolumns", "reference/api", "reference/commands", "benchmarks/accuracy"),
    *("reference/generated/hypervlad.MicrographClassifier", "about/changes", "search"),
]


@pytest.fixture(autouse=True, scope="module")
def site():
    if not (SITE / "index.html").exists():
        skip_without("site", "the site is not built: make docs")


class _Resources(HTMLParser):
    """Addresses that a page loads, and its pictures without an alternative text."""

    def __init__(self):
        super().__init__()
        self.addresses: list[str] = []
        self.without_alt: list[str] = []

    def handle_starttag(self, tag, attrs):
        own = dict(attrs)
        # A thumbnail stands beside the title that it would repeat: it has an empty text.
        is_thumbnail = str(own.get("src")).endswith("_thumb.png") and own.get("alt") == ""
        if tag == "img" and not is_thumbnail and not (own.get("alt") or "").strip():
            self.without_alt.append(str(own.get("src")))
        if tag in ("img", "script", "source", "iframe") and own.get("src"):
            self.addresses.append(str(own["src"]))
        if tag == "link" and own.get("rel") in ("stylesheet", "preload", "icon"):
            self.addresses.append(str(own["href"]))


def test_pages_are_light_and_load_nothing_from_elsewhere():
    """A page with its pictures is below 1 MB, and what all pages share, loaded once, below 1.1."""
    # Sphinx leaves the pages of removed documents: only those that it lists are looked at.
    index = (SITE / "searchindex.js").read_text(encoding="utf-8")
    (names,) = re.findall(r'"docnames":(\[.*?\])', index)
    pages = [SITE / f"{name}.html" for name in json.loads(names)]
    assert len(pages) > 100
    for page in pages:
        found = _Resources()
        found.feed(page.read_text(encoding="utf-8"))
        assert not found.without_alt, page
        assert not [a for a in found.addresses if urlsplit(a).netloc], page
        files = {(page.parent / urlsplit(a).path).resolve() for a in found.addresses}
        shared = {file for file in files if file.suffix in (".css", ".js")}
        own = page.stat().st_size + sum(file.stat().st_size for file in files - shared)
        assert own < MAX_BYTES, page
        assert sum(file.stat().st_size for file in shared) < MAX_SHARED_BYTES, page


@pytest.fixture(scope="module")
def address():
    """Where the site is served."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments): ...

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(SITE))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


FAINT = """
const number = (text) => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
const light = (c) => { const [r, g, b] = c.slice(0, 3).map((v) => v / 255).map(
    (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const behind = (e) => { for (; e; e = e.parentElement) {
    const c = number(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > 0.5) return c; } return [255, 255, 255]; };
const found = [];
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
    const e = walk.currentNode.parentElement, text = walk.currentNode.textContent.trim();
    if (!text || !e.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
    if (e.closest("script, style, noscript, .visually-hidden, math")) continue;
    const style = getComputedStyle(e), size = parseFloat(style.fontSize);
    const [a, b] = [light(number(style.color)), light(behind(e))].sort((x, y) => y - x);
    const least = size >= 24 || (size >= 18.6 && style.fontWeight >= 700) ? 3 : 4.5;
    if ((a + 0.05) / (b + 0.05) < least)
        found.push([text.slice(0, 40), e.className, style.color, (a + 0.05) / (b + 0.05)]);
}
return found;
"""


# What is cut off at the right edge, unless it is in a part of the text that can be scrolled.
CUT_OFF = """
const scrolls = (e) => e.tagName != "ARTICLE" &&
    (/auto|scroll/.test(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
return [...document.querySelectorAll("article *")].filter((e) =>
    e.checkVisibility() && e.getBoundingClientRect().right > innerWidth + 1 && !scrolls(e)
).map((e) => e.outerHTML.slice(0, 80));
"""


@pytest.mark.parametrize("page", KINDS)
def test_pages_in_a_browser(page, browser, address):
    assert (SITE / f"{page}.html").exists()
    for width in (1400, 400):
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        for mode in ("light", "dark"):
            browser.get(f"{address}{page}.html")
            browser.execute_script("document.documentElement.dataset.theme = arguments[0]", mode)
            assert not browser.execute_script(FAINT), (width, mode)
            assert browser.execute_script("return document.documentElement.scrollWidth") <= width
            assert not browser.execute_script(CUT_OFF), (width, mode)
    loaded = browser.execute_script(
        "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    )
    assert all(name.startswith(address) for name in loaded)
    assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
