"""The files of the repository agree with each other."""

from __future__ import annotations

import re

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
