"""HTML pages taken apart, and checked for what they must not have."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from math import floor


class Page(HTMLParser):
    """The pieces of a page, as a browser takes them apart."""

    VOID = ("meta", "input", "img", "br")

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.links: list[str | None] = []
        self.rows: list[list[str]] = []  # of all tables
        self.style, self.policy = "", ""
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.feed(self.source)
        self.close()
        assert self.open == []
        has_data = any(given.get("id") == "data" for given, _ in self.scripts)
        self.data = json.loads(self.script(id="data")) if has_data else None

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        assert tag not in ("link", "iframe", "object", "embed")
        assert not [name for name in given if name.startswith("on") or name == "style"]
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"] or ""
        if tag == "img":
            self.images.append(given)
        if "href" in given:
            self.links.append(given["href"])
        if tag not in self.VOID:
            self.open.append((tag, given))
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")
        if tag == "script":
            assert "src" not in given
            self.scripts.append((given, ""))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        tag = self.open[-1][0] if self.open else ""
        if tag == "script":
            given, text = self.scripts[-1]
            self.scripts[-1] = (given, text + data)
        elif tag == "style":
            self.style += data
        else:
            self.texts.append(data)
            if any(name in ("th", "td") for name, _ in self.open):
                self.rows[-1][-1] += data

    @property
    def words(self):
        return "".join(self.texts)

    @property
    def spaced(self):
        """The words, with one space between pieces of text."""
        return " ".join(" ".join(self.texts).split())

    def script(self, **attributes):
        (text,) = [text for given, text in self.scripts if attributes.items() <= given.items()]
        return text

    @property
    def jpegs(self):
        """The pictures in the page, wherever they are in it."""
        return [base64.b64decode(text) for text in re.findall(r"/9j/[\w+/]+=*", self.source)]

    def assert_safe(self):
        """Nothing is loaded from elsewhere, and only one script of the page itself is run."""
        assert not re.search(
            r"https?:|src=[\"']?//|url\((?!#)|@import|\bimport\s*\(|fetch\(|XMLHttp",
            (self.source.replace("http://www.w3.org/2000/svg", "")),
        )
        rules = dict(rule.strip().split(" ", 1) for rule in self.policy.split(";"))
        (script,) = [text for given, text in self.scripts if "type" not in given]
        assert rules["default-src"] == "'none'"
        assert rules["img-src"] == "data:"
        assert rules["style-src"] == digest(self.style)
        assert rules["script-src"] == digest(script)


def percent(share):
    """Return a share as pages and messages have it: less than everything is never 100 %."""
    if 0 < share < 0.001 or 0.999 < share < 1:
        return "<0.1 %" if share < 0.5 else ">99.9 %"
    return f"{floor(1000 * share + 0.5) / 10:.1f} %"


def digest(text):
    """Return how a policy names a style or a script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
