"""The packages that users import from, the README and the pages, and their blocks of code."""

import re

from support.paths import ROOT

import hypervlad
import hypervlad.apps.review
import hypervlad.particles

PACKAGES = [
    hypervlad,
    hypervlad.images,
    hypervlad.evaluation,
    hypervlad.features,
    hypervlad.fibres,
    hypervlad.models,
    hypervlad.data,
    hypervlad.particles,
    hypervlad.results,
    hypervlad.apps.review,
]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("[!_]*/*.md"))]


def blocks(page):
    """Return a page's blocks of Python and of commands: language, text, and what it shows next."""
    text = page.read_text(encoding="utf-8")
    block = r"^```(python|console)\n(.*?)^```\n(?:\n```text\n(.*?)^```)?"
    return re.findall(block, text, flags=re.DOTALL | re.MULTILINE)
