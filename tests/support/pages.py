"""HTML pages taken apart, and checked for what they must not have."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path


class Page(HTMLParser):
    """The pieces of a page, as a browser takes them apart."""

    VOID = ("meta", "input", "img", "br")

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.links: list[str | None] = []
        self.style, self.policy = "", ""
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.feed(self.source)
        self.close()
        assert self.open == []
        has_data = any(given.get("id") == "data" for given, _ in self.scripts)
        self.data = json.loads(self.script(id="data")) if has_data else None

    def handle_starttag(self, tag: str, attributes: Sequence[tuple[str, str | None]]) -> None:
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
        if tag == "script":
            assert "src" not in given
            self.scripts.append((given, ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        tag = self.open[-1][0] if self.open else ""
        if tag == "script":
            given, text = self.scripts[-1]
            self.scripts[-1] = (given, text + data)
        elif tag == "style":
            self.style += data
        else:
            self.texts.append(data)

    @property
    def words(self) -> str:
        return "".join(self.texts)

    @property
    def spaced(self) -> str:
        """The words, with one space between pieces of text."""
        return " ".join(" ".join(self.texts).split())

    def script(self, **attributes: str) -> str:
        (text,) = [text for given, text in self.scripts if attributes.items() <= given.items()]
        return text

    @property
    def thumbnails(self) -> dict[int, str]:
        """The thumbnails in the page, by the number of their image."""
        kept = [(given.get("id") or "", text) for given, text in self.scripts]
        return {int(name[10:]): text for name, text in kept if name.startswith("thumbnail-")}
