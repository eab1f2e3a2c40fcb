"""Files of groups: lines matched to images by the end of the path."""

import itertools
import os
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hypervlad.common.tables import write_table
from hypervlad.data import ImageFolderError
from hypervlad.data.folders.groups import (
    GroupRow,
    load_groups,
    match_groups,
    read_group_rows,
)
from hypervlad.images.files import parts_below, path_parts


def write(folder: Path, text: str, name: str = "groups.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8", newline="")
    return path


def rows_of(pairs):
    return [GroupRow(path, group, i + 2) for i, (path, group) in enumerate(pairs)]


@pytest.mark.parametrize(
    "text",
    [
        "a/1.png,g1\nb/2.png,g2",
        "\ufeffpath;group\r\na/1.png;g1\r\n\r\nb/2.png;g2\r\n",
        "a/1.png\tg1\nb/2.png\tg2\n",
        "Group, File name ,File\ng1,x,a/1.png\ng2,x,b/2.png\n",
        "index,group,path\n0,g1,a/1.png\n1,g2,b/2.png\n",
        'path,group\n"a/1.png","g1"\n b/2.png , g2 \n',
        "path,specimen number\na/1.png,g1\nb/2.png,g2\n",
    ],
)
def test_dialects(tmp_path, text):
    rows = read_group_rows(write(tmp_path, text))
    assert [(row.path.strip(), row.group) for row in rows] == [("a/1.png", "g1"), ("b/2.png", "g2")]
    files = [Path("root/a/1.png"), Path("root/b/2.png")]
    assert match_groups(files, Path("root"), rows, "g.csv").tolist() == ["g1", "g2"]


def test_quoted_comma_and_line_numbers(tmp_path):
    path = write(tmp_path, 'path,group\n\n"a/1,5 nm.png",g1\n')
    assert read_group_rows(path) == [GroupRow("a/1,5 nm.png", "g1", 3)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty; expected lines of two columns"),
        ("path,group\n", "a header and nothing below"),
        ("a/1.png\n", "line 1: expected a path and a group, got 'a/1.png'"),
        ("path,group\na/1.png,\n", "line 2: expected a path and a group"),
        ("a/1.png,g1\x00\n", "not a text file"),
        ("path,label,source,confidence,file\na/1.png,a,person,,/a/1.png\n", "no column is called"),
        ("path,label\na/1.png,a\n", "no column is called group; its columns are path, label"),
        ("path,group\na/1.png,g1a/2.png,g2\n", "line 2: 3 cells, but the first line has 2"),
    ],
)
def test_bad_files(tmp_path, text, message):
    with pytest.raises(ImageFolderError, match=message) as caught:
        read_group_rows(write(tmp_path, text))
    assert "groups.csv" in str(caught.value)


def test_a_missing_file_a_folder_and_a_list(tmp_path):
    with pytest.raises(ImageFolderError, match=r"nowhere\.csv: no such file; expected a CSV"):
        read_group_rows(tmp_path / "nowhere.csv")
    with pytest.raises(ImageFolderError, match="a folder; expected a CSV file"):
        read_group_rows(tmp_path)
    with pytest.raises(ImageFolderError, match="got list"):
        load_groups([tmp_path / "a" / "1.png"], tmp_path, ["g1"])


names = st.text("abc1._- ", min_size=1, max_size=6).filter(
    lambda name: name.strip() == name and set(name) != {"."}
)
relative_paths = st.lists(names, min_size=2, max_size=4).map("/".join)


@pytest.mark.slow  # hypothesis draws many trees of files
@given(
    images=st.lists(relative_paths, min_size=1, max_size=12, unique=True),
    data=st.data(),
)
def test_full_relative_paths_always_match_one_to_one(images, data):
    """With each image's path under the root, however written, each gets its own group."""
    # One image in a folder named as another's path would make its path an end of the other's.
    assume(
        not any(
            a != b and PurePosixPath(a).parts == PurePosixPath(b).parts[-len(a.split("/")) :]
            for a in images
            for b in images
        )
    )
    root = Path("some") / "root"
    styles = st.sampled_from(["{}", "./{}", "C:/Users/me/data/{}", "/other/machine/{}"])
    written = [data.draw(styles).format(image) for image in images]
    if data.draw(st.booleans()):
        written = [path.replace("/", "\\") for path in written]
    order = data.draw(st.permutations(range(len(images))))
    rows = rows_of([(written[i], f"g{i}") for i in order])
    groups = match_groups([root / image for image in images], root, rows, "g.csv")
    assert groups.tolist() == [f"g{i}" for i in range(len(images))]


def test_only_whole_names_match():
    files = [Path("root/a/1.png"), Path("root/a/11.png"), Path("root/aa/111.png")]
    rows = rows_of([("1.png", "g1"), ("11.png", "g11"), ("aa/111.png", "g111")])
    assert match_groups(files, Path("root"), rows, "g.csv").tolist() == ["g1", "g11", "g111"]


def test_ambiguous_path():
    files = [Path("root/a/1.png"), Path("root/b/1.png")]
    with pytest.raises(
        ImageFolderError,
        match=r"g\.csv, line 2: 1\.png fits 2 images \(a/1\.png, b/1\.png\); write more",
    ):
        match_groups(files, Path("root"), rows_of([("1.png", "g")]), "g.csv")


def test_lines_and_images_left_over_are_both_named():
    files = [Path(f"root/a/{i}.png") for i in range(9)]
    rows = rows_of([("a/0.png", "g"), ("a/x.png", "g"), ("c/0.png", "g")])
    with pytest.raises(ImageFolderError) as caught:
        match_groups(files, Path("root"), rows, "g.csv")
    message = str(caught.value)
    assert "2 of its paths fit no image in root: a/x.png (line 3), c/0.png (line 4)" in message
    assert "8 images have no line: a/1.png, a/2.png" in message
    assert "and 3 more" in message
    assert "Add a line" in message


def test_two_lines_for_an_image():
    files = [Path("root/a/1.png")]
    same = rows_of([("a/1.png", "g"), ("1.png", "g")])
    assert match_groups(files, Path("root"), same, "g.csv").tolist() == ["g"]
    other = rows_of([("a/1.png", "g"), ("1.png", "h")])
    with pytest.raises(ImageFolderError, match=r"group 'g' \(line 2\) and in group 'h' \(line 3\)"):
        match_groups(files, Path("root"), other, "g.csv")


def test_a_path_of_nothing_fits_nothing():
    with pytest.raises(ImageFolderError, match="fits no image"):
        match_groups([Path("root/a/1.png")], Path("root"), rows_of([("./", "g")]), "g.csv")


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_names_that_are_no_text_come_back(tmp_path):
    names = [os.fsdecode(b"a/\xff.png"), " b/1.png", "b/2.png"]
    table = tmp_path / "groups.csv"
    write_table(table, ["path", "group"], [[name, f"g{i}"] for i, name in enumerate(names)])
    files = [tmp_path / name for name in names]
    assert load_groups(files, tmp_path, table).tolist() == ["g0", "g1", "g2"]


def test_a_path_on_another_drive_is_written_as_it_is_read(monkeypatch):
    def relpath(path, start):
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr(os.path, "relpath", relpath)
    file = Path("/x/a.png")
    below = parts_below(file, Path("/root"))
    assert below == path_parts(file.as_posix())
    rows = rows_of([("/".join(below), "g")])
    assert match_groups([file], Path("/root"), rows, "g.csv").tolist() == ["g"]


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "BE with a mark"],
)
def test_tables_as_spreadsheets_save_them(tmp_path, encoding):
    """Among them "Unicode text" of Excel: UTF-16 with tabs, and its line that names a separator."""
    lines = ["path,group", "F\u00e4den/1.png,Probe \u03b1", "b/2.png,\u8bd5\u6837"]
    marked = encoding == "BE with a mark"
    for separator, named in itertools.product(",;\t", ["", "sep=,\r\n", "sep=,,,\r\n"]):
        text = (named + "\r\n".join(lines)).replace(",", separator)
        content = ("\ufeff" + text).encode("utf-16-be") if marked else text.encode(encoding)
        (tmp_path / "groups.csv").write_bytes(content)
        first = 3 if named else 2
        assert read_group_rows(tmp_path / "groups.csv") == [
            GroupRow("F\u00e4den/1.png", "Probe \u03b1", first),
            GroupRow("b/2.png", "\u8bd5\u6837", first + 1),
        ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04\x14\x00", "a workbook, not a text file; in a spreadsheet, save as 'CSV U"),
        (b"\xff\xfep\x00a\x00t\x00h\x00,", "begins as UTF-16, but is damaged"),
        (b"path,group\n\x00\x00\x00,b\n", "not a text file; expected a CSV with path, group"),
        ("a/fädig.png,g1\n".encode("latin-1"), "not UTF-8 text"),
        ("pfad;probe\nFäden;a\n".encode("cp1252"), "not UTF-8 text; in a spreadsheet, save as"),
        ("path,group\na/1.png,fädig\n".encode("latin-1"), "line 2: not UTF-8 text"),
        ("path,group\na/fädig.png,g1\n".encode("latin-1"), "fits no image .*not UTF-8 text; in a"),
    ],
)
def test_what_is_no_text_is_named(tmp_path, content, message):
    (tmp_path / "groups.csv").write_bytes(content)
    with pytest.raises(ImageFolderError, match=message):
        load_groups([tmp_path / "a" / "fädig.png"], tmp_path, tmp_path / "groups.csv")
