"""The files of the repository agree with each other, and what the README says is true."""

import re
import tomllib

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
    (extras,) = re.findall(r'install "\.(\[\S+\])"', README.split("<!-- install -->")[1])
    assert f'-e ".{extras}"' in text("Makefile"), "a user installs these"


def test_all_files_of_the_package_are_packaged() -> None:
    """Among them are stubs, and the files of the pages."""
    patterns = tomllib.loads(text("pyproject.toml"))["tool"]["setuptools"]["package-data"]
    for path in (ROOT / "hypervlad").rglob("*"):
        folder = path.relative_to(ROOT)
        # Caches of Python lie beside the code.
        if path.is_dir() or path.suffix == ".py" or "__pycache__" in path.parts:
            continue
        matched = [
            path.match(f"{package.replace('.', '/').replace('*', '')}/{pattern}".lstrip("/"))
            for package, own in patterns.items()
            for pattern in own
        ]
        assert any(matched), folder


def test_links_have_targets() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    assert all((ROOT / target).exists() for target in targets if "://" not in target)


def test_no_line_is_a_comment_by_accident() -> None:
    """A line that begins with a percent sign is left out of a page."""
    for page in PAGES:
        lines = page.read_text(encoding="utf-8").splitlines()
        assert not [line for line in lines if line.lstrip().startswith("%")], page
