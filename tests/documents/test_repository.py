"""The files of the repository agree with each other, and what the README says is true."""

from __future__ import annotations

import re

from support.documents import PAGES, README
from support.paths import ROOT

import hypervlad


def text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def test_the_citation_names_the_version() -> None:
    (version,) = re.findall(r"^version: (\S+)$", text("CITATION.cff"), flags=re.MULTILINE)
    assert version == hypervlad.__version__
    assert f"version = {{{version}}}," in text("docs/about/citing.md")


def test_developers_and_ci_install_what_make_installs() -> None:
    (extras,) = re.findall(r'-e "\.(\[\S+\])" --group dev', text("Makefile"))
    for path in ("CONTRIBUTING.md", ".github/workflows/tests.yml"):
        assert f'-e ".{extras}" --group' in text(path), path


def test_links_have_targets() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    assert all((ROOT / target).exists() for target in targets if "://" not in target)


def test_the_makefile_installs_the_same_as_the_readme() -> None:
    (extras,) = re.findall(r'install "\.(\[\S+\])"', README.split("<!-- install -->")[1])
    assert f'-e ".{extras}"' in text("Makefile")


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


def test_no_line_is_a_comment_by_accident() -> None:
    """A line that begins with a percent sign is left out of a page."""
    for page in PAGES:
        lines = page.read_text(encoding="utf-8").splitlines()
        assert not [line for line in lines if line.lstrip().startswith("%")], page
