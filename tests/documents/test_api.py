"""The reference of the API lists all public names, each with a docstring and an example."""

import dataclasses
import inspect
import re
from importlib import import_module

import pytest
from support.documents import PACKAGES
from support.paths import ROOT

import hypervlad

API = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
LISTED = re.findall(r"^   ([A-Za-z][\w.]*)$", API, flags=re.MULTILINE)


def documented(name):
    module, _, own = f"hypervlad.{name}".rpartition(".")
    return getattr(import_module(module), own)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_all_public_names_are_listed(package):
    prefix = package.__name__.removeprefix("hypervlad").removeprefix(".")
    for name in set(package.__all__) - {"__version__"}:
        full = f"{prefix}.{name}" if prefix else name
        item = getattr(package, name)
        if inspect.ismodule(item):
            own = item.__name__.removeprefix("hypervlad.")
            assert any(each.startswith(f"{own}.") for each in LISTED), full
        elif callable(item):
            assert full in LISTED or name in LISTED, full


def test_all_presets_are_listed():
    own = vars(hypervlad.presets).items()
    presets = {
        name
        for name, item in own
        if inspect.isfunction(item)
        and item.__module__ == "hypervlad.models.presets"
        and not name.startswith("_")
    }
    assert {f"models.presets.{name}" for name in presets} <= set(LISTED)
    assert len(LISTED) == len(set(LISTED)) > 100, "each once"


@pytest.mark.parametrize("name", LISTED)
def test_listed_names_have_a_docstring_with_an_example(name):
    item = documented(name)
    docstring = inspect.getdoc(item) or ""
    assert docstring
    of_results = inspect.isclass(item) and issubclass(item, (tuple, Exception))
    if not (of_results or dataclasses.is_dataclass(item)):  # users are given those
        assert re.search(r"^Examples\n-{8}\n(.+\n)*?>>> ", docstring, flags=re.MULTILINE), name


def test_no_reference_is_taken_for_a_list():
    """A line like "A. Author, title" alone is the item A of a list, and loses its initial."""
    for path in (ROOT / "hypervlad").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        lines = re.findall(r"\.\. \[\d\] [A-Z]\. .*\n(?! +[^ .\n])", text)
        assert not lines, f"{path}: break this reference into two lines: {lines}"
