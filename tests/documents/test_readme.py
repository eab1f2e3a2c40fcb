"""What the README says of links and installation is true."""

from __future__ import annotations

import re

from support.documents import PAGES, README
from support.paths import ROOT


def test_links_have_targets() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    assert all((ROOT / target).exists() for target in targets if "://" not in target)


def test_the_makefile_installs_the_same_as_the_readme() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (extras,) = re.findall(r'install "\.(\[\S+\])"', README.split("<!-- install -->")[1])
    assert f'-e ".{extras}"' in makefile


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


def test_no_line_is_a_comment_by_accident() -> None:
    """A line that begins with a percent sign is left out of a page."""
    for page in PAGES:
        lines = page.read_text(encoding="utf-8").splitlines()
        assert not [line for line in lines if line.lstrip().startswith("%")], page
