"""Tables of labels: what they may look like, and what is wrong with others."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hypervlad.common.tables import table_as_bytes
from hypervlad.data import (
    ImageFolderError,
    ImageFolderWarning,
    check_image_folder,
    compare_image_folders,
    load_image_folder,
)
from hypervlad.data.folders.folder import scan_table


def write(folder: Path, text: str, *names: str) -> Path:
    """Write a table, and empty files of some names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    table = folder / "labels.csv"
    table.write_text(text, encoding="utf-8", newline="")
    return table


FILES = ("a/1.png", "b.png", "c.png")


@pytest.mark.parametrize(
    "text",
    [
        "path,label\nc.png,TEM\na/1.png,SEM\nb.png,TEM\n",
        "\ufeffLabel;Path;notes\r\nTEM;c.png;x\r\n\r\nSEM;a\\1.png;y\r\nTEM;b.png;\r\n",
        "class\tfilename\nTEM\tc.png\nSEM\ta/1.png\nTEM\tb.png",
        'path,label,image\n"c.png","TEM",7\n ./a/1.png , SEM ,8\nb.png,TEM,9\n',
    ],
)
def test_dialects(tmp_path: Path, text: str) -> None:
    data = load_image_folder(write(tmp_path, text, *FILES))
    assert [Path(image).relative_to(tmp_path).as_posix() for image in data.images] == list(FILES)
    assert data.target.tolist() == ["SEM", "TEM", "TEM"]
    assert data.target_names == ["SEM", "TEM"]
    assert (data.groups, data.root) == (None, str(tmp_path))


def test_groups_of_the_table_and_of_a_file(tmp_path: Path) -> None:
    grouped = "path,label,group\nc.png,TEM,s\nb.png,TEM,s\na/1.png,SEM,t\n"
    table = write(tmp_path, grouped, *FILES)
    assert load_image_folder(table).groups.tolist() == ["t", "s", "s"]
    groups = tmp_path / "groups.csv"
    groups.write_text("path,group\na/1.png,x\nb.png,y\nc.png,z\n")
    with pytest.raises(ImageFolderError, match=r"labels\.csv: has a column of groups, and so has"):
        load_image_folder(table, groups)
    plain = write(tmp_path, "path,label\nc.png,TEM\na/1.png,SEM\nb.png,TEM\n")
    assert load_image_folder(plain, groups).groups.tolist() == ["x", "y", "z"]


def test_images_may_lie_outside_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    text = f"path,label,group\n../c.png,TEM,1\n{tmp_path / 'b.png'},SEM,2\n"
    write(tmp_path, "", *FILES)
    table = write(tmp_path / "tables", text)
    layout = scan_table(table)
    assert [layout.relative(file) for file in layout.files] == ["../b.png", "../c.png"]
    assert layout.labels == ["SEM", "TEM"]
    groups = tmp_path / "groups.csv"
    groups.write_text("path,group\nb.png,x\nc.png,y\n")
    text = f"path,label\n../c.png,TEM\n{tmp_path / 'b.png'},SEM\n"
    plain = write(tmp_path / "tables", text)
    assert load_image_folder(plain, groups).groups.tolist() == ["x", "y"]


def test_the_table_of_a_review_has_complete_paths(tmp_path: Path) -> None:
    text = "path,label,source,confidence,file\n" + "".join(
        f"from/elsewhere/{name},{label},{source},,{tmp_path / name}\n"
        for name, label, source in (("b.png", "model", "person"), ("c.png", "TEM", " Model"))
    )
    data = load_image_folder(write(tmp_path, text, *FILES))
    assert data.images == [str(tmp_path / "b.png"), str(tmp_path / "c.png")]
    assert data.groups is None, "the source of a label is no group"
    assert data.by_model.tolist() == [False, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"labels\.csv: empty\. Expected path and label"),
        ("path,label\n", "a header and nothing below it"),
        ("path,kind\nb.png,SEM\n", "no column is called label; its columns are path, kind"),
        ("b.png,SEM\nc.png,TEM\n", r"called path or label; its columns are b\.png, SEM"),
        ("path,label\nb.png,\nc.png,TEM\na/1.png\n", r"no label in lines 2, 4\. Give each line"),
        ("path,label\n,SEM\nc.png,TEM\n", "no path in line 2"),
        ("path,label,group\nb.png,SEM,x\nc.png,TEM,\n", "no group in line 3"),
        (
            "path,label\nb.png,SEM\nx.png,SEM\nd/y.png,TEM\n",
            r"2 of 3 images do not exist: x\.png \(line 3\), d/y\.png \(line 4\)\. Paths are rel",
        ),
        ("path,label\nb.png,SEM\na,TEM\n", r"1 of 2 images does not exist: a \(line 3\)"),
        (f"path,label\n{'x' * 300}.png,A\n{'x/' * 3000},B\n", "2 of 2 images do not exist: x"),
        (
            "path,label\nb.png,SEM\nc.png,TEM\n./b.png,TEM\n",
            r"\./b\.png is SEM \(line 2\) and TEM \(line 4\)\. An image has one label",
        ),
        ("path,label,group\nb.png,A,x\nb.png,A,y\n", r"b\.png is x \(line 2\) and y \(line 3\)"),
        ("path,label\nb.png,SEM\nc.png,SEM\n", "images of one class only .'SEM'.; expected at l"),
        ("path,label\nb.png,S\0M\n", "not a text file; expected a CSV with path, label"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ImageFolderError, match=message) as caught:
        load_image_folder(write(tmp_path, text, *FILES))
    assert str(caught.value).startswith(str(tmp_path / "labels.csv"))


def test_a_repeated_line_is_ignored_with_a_warning(tmp_path: Path) -> None:
    table = write(tmp_path, "path,label\nb.png,A\nc.png,B\na/../b.png,A\n", *FILES)
    with pytest.warns(ImageFolderWarning, match=r"1 line that repeats .*b\.png \(lines 2 and 4"):
        data = load_image_folder(table)
    assert len(data.images) == 2


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/\\\0\r\n"), min_size=1, max_size=8
)


@settings(max_examples=40)
@given(st.dictionaries(NAMES, st.sampled_from(["SEM", "=TEM", "a;b", "x,y"]), min_size=2))
def test_any_table_that_the_package_writes_is_read(
    tmp_path_factory: pytest.TempPathFactory, labels: dict[str, str]
) -> None:
    folder = tmp_path_factory.mktemp("set")
    known: dict[str, str] = {}
    for name, label in labels.items():
        named = f"{name.strip()}.png"
        if not (folder / named).exists():
            (folder / named).touch()
            known[named] = label
    table = folder / "labels.csv"
    table.write_bytes(table_as_bytes(["path", "label"], known.items()))
    layout = scan_table(table)
    assert dict(zip((file.name for file in layout.files), layout.labels, strict=True)) == known


def test_a_table_is_checked_like_a_folder(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("1", "2", "3", "4"):
        pixels = rng.integers(0, 255, (64, 64)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    Image.open(tmp_path / "1.png").save(tmp_path / "copy.png")
    table = write(tmp_path, "path,label,group\n1.png,A,x\n2.png,A,x\n3.png,B,y\ncopy.png,B,z\n")
    report = check_image_folder(table)
    assert report.class_counts == {"A": 2, "B": 2}
    assert report.group_counts == {"x": 2, "y": 1, "z": 1}
    assert [copies.files for copies in report.exact_copies] == [("1.png", "copy.png")]
    assert "in several classes" in report.problems[0]
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    train.write_text("path,label\n1.png,A\n3.png,B\n")
    test.write_text("path,label\n2.png,A\ncopy.png,B\n4.png,B\n")
    compared = compare_image_folders(train, test)
    assert compared.n_images == (2, 3)
    (found,) = compared.exact_copies
    assert found.files == (str(tmp_path / "1.png"), str(tmp_path / "copy.png"))


def test_paths_are_read_as_they_are_written(tmp_path: Path) -> None:
    """With spaces that are part of a name; without those around it, if there is no such file."""
    names = (" b.png", "c.png")
    data = load_image_folder(write(tmp_path, "path,label\n b.png,SEM\n c.png,TEM\n", *names))
    assert [Path(image).name for image in data.images] == [" b.png", "c.png"]


def test_a_column_of_names_beside_the_paths_is_not_used(tmp_path: Path) -> None:
    text = "path,label,file\na/1.png,SEM,1.png\nb.png,TEM,b.png\n"
    data = load_image_folder(write(tmp_path, text, *FILES))
    assert [Path(image).relative_to(tmp_path).as_posix() for image in data.images] == [*FILES[:2]]


def test_a_column_that_is_taken_for_groups_is_named(tmp_path: Path) -> None:
    table = write(tmp_path, "path,label,Sample\nb.png,SEM,1\nc.png,TEM,2\n", *FILES)
    with pytest.warns(ImageFolderWarning, match="images with the same Sample are taken for one"):
        data = load_image_folder(table)
    assert data.groups.tolist() == ["1", "2"]


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_names_that_are_no_text_come_back(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff.png")
    table = write(tmp_path, "", name, "b.png")
    table.write_bytes(table_as_bytes(["path", "label"], [(name, "SEM"), ("b.png", "TEM")]))
    assert [Path(image).name for image in load_image_folder(table).images] == ["b.png", name]
    table.write_bytes("path,label\nfädig.png,SEM\nb.png,TEM\n".encode("latin-1"))
    with pytest.raises(ImageFolderError, match=r"not exist: .*not UTF-8 text; in a spreadsheet"):
        load_image_folder(table)
