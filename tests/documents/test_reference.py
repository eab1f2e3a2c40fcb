"""The pages of the reference name the networks, formats, kinds and messages that there are."""

import ast
import re

import pytest
from support.paths import ROOT

import hypervlad
from hypervlad.features import backbone_names, get_backbone
from hypervlad.images import find_images

PAGES = ROOT / "docs" / "reference"
GAP = "…"  # what a message quotes: a name, a number, a reason


def page(name):
    return (PAGES / name).read_text(encoding="utf-8")


def rows(text):
    """Return the cells of the tables in a text, without their heads."""
    return [line.split(" | ") for line in re.findall(r"^\| (.*) \|$", text, flags=re.MULTILINE)]


def test_all_networks_are_in_the_table():
    section = page("networks.md").split("## Networks of torchvision")[1].split("\n## ")[0]
    named = {cells[0]: cells[1:3] for cells in rows(section) if cells[0].startswith("`")}
    named["`mobilenet_v2`"] = named.pop("`mobilenet_v2` (default)")
    assert named == {
        f"`{name}`": [
            " ".join(f"`{tap}`" for tap in get_backbone(name).taps),
            f"{get_backbone(name).preprocessing.minimum_size} px",
        ]
        for name in backbone_names()
        if get_backbone(name).licence == "bsd-3-clause"  # tests register others without
    }


def test_the_suffixes_in_the_table_are_those_of_images(tmp_path, recwarn):
    section = page("formats.md").split("## What is read")[1].split("\nDM3, DM4, ")[0]
    named = {suffix for cells in rows(section) for suffix in re.findall(r"`(\.\w+)`", cells[1])}
    assert len(named) > 20
    for suffix in named | {*re.findall(r"\.\w+", ".txt.csv.json.xml.hdr.svg.pdf.npy.avi.zip.h5")}:
        (tmp_path / f"image{suffix}").touch()
    found = {path.suffix for path in find_images(tmp_path)}
    assert found == named - {".map"}, "which other programs use, too"
    assert "files that differ in their suffix only: " in str(recwarn.pop().message)


def test_all_kinds_of_model_files_are_in_the_table():
    section = page("model_file.md").split("## Kinds")[1].split("\n## ")[0]
    named = {cells[1].split("`")[1] for cells in rows(section) if cells[0].startswith("`")}
    own = {
        getattr(part, name)
        for part in (hypervlad, hypervlad.features, hypervlad.models)
        for name in part.__all__
        if hasattr(getattr(part, name), "save") and hasattr(getattr(part, name), "fit")
    }
    assert {name.rpartition(".")[2] for name in named} == {each.__name__ for each in own}


def merged(text):
    """Return a text with one gap for several that follow each other."""
    return re.sub(f"{GAP}(?: ?{GAP})+", GAP, text)


def template(node):
    """Return a text of the source, with a gap for each value; None for another expression."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        parts = (template(part) or GAP for part in node.values)
        return merged("".join(parts))
    return None


@pytest.fixture(scope="module")
def messages():
    """All texts of the package."""
    found = []
    for file in (ROOT / "hypervlad").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.expr) and (text := template(node)):
                found.append(text)
    return "\n".join(found)


def quoted(name):
    """Return the messages that a page quotes: in a table, or as terms with a definition."""
    if name == "formats.md":
        section = page(name).split("## What is refused")[1].split("\n## ")[0]
        return [cells[1].strip("`") for cells in rows(section) if cells[1].startswith("`")]
    return re.findall(r"^`(.+)`\n: ", page(name), flags=re.MULTILINE)


@pytest.mark.parametrize("name", ["errors.md", "formats.md"])
def test_quoted_messages_are_those_of_the_package(name, messages):
    texts = quoted(name)
    assert len(texts) > 20
    for text in texts:
        own = merged(text).removesuffix(GAP).removesuffix("; ")
        assert own in messages, text
