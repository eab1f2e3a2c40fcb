"""The README, the documentation's pages, and their blocks of code."""

from __future__ import annotations

import re
from pathlib import Path

from support.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("[!_]*/*.md"))]


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return the language and the text of a page's blocks of Python and of commands, in order."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r"^```(python|console)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
