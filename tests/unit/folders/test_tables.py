"""Tables of labels and of groups: dialects, which image a line means, and what is refused."""

import itertools
import os

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hypervlad.data import FolderReport, ImageFolderError, ImageFolderWarning, load_image_folder

FILES = ("a/1.png", "b/2.png", "c.png")


@pytest.fixture
def folder(tmp_path):
    """Empty files of three images, one of them beside the class folders."""
    for name in (*FILES, "a/11.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "11.png").unlink()
    return tmp_path


def write(folder, content, name="labels.csv"):
    if isinstance(content, str):
        content = content.encode()
    (folder / name).write_bytes(content)
    return folder / name


def names(data, root):
    return [os.path.relpath(image, root).replace(os.sep, "/") for image in data.images]


# --- labels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "path,label\nc.png,TEM\na/1.png,SEM\nb/2.png,TEM\n",
        "\ufeffLabel;Path;notes\r\nTEM;c.png;x\r\n\r\nSEM;a\\1.png;y\r\nTEM;b/2.png;\r\n",
        "class\tfilename\nTEM\tc.png\nSEM\ta/1.png\nTEM\tb/2.png",
        'path,label,image\n"c.png","TEM",7\n ./a/1.png , SEM ,8\nb/2.png,TEM,9\n',
        "path,label,file\na/1.png,SEM,1.png\nb/2.png,TEM,2.png\nc.png,TEM,c.png\n",
    ],
)
def test_dialects_of_labels(folder, text):
    data = load_image_folder(write(folder, text))
    assert names(data, folder) == list(FILES)
    assert data.target.tolist() == ["SEM", "TEM", "TEM"]
    assert (data.target_names, data.groups, data.root) == (["SEM", "TEM"], None, str(folder))


def test_groups_of_the_table_or_of_a_file(folder):
    """The images may lie outside of the table's folder."""
    (folder / "tables").mkdir()
    rows = [("../c.png", "TEM", "s"), ("../b/2.png", "TEM", "s"), (folder / "a/1.png", "SEM", "t")]
    text = "path,label,group\n" + "".join(f"{','.join(map(str, row))}\n" for row in rows)
    table = write(folder / "tables", text)
    data = load_image_folder(table)
    assert names(data, folder) == list(FILES)
    assert data.groups.tolist() == ["t", "s", "s"]
    groups = write(folder, "path,group\na/1.png,x\nb/2.png,y\nc.png,z\n", "groups.csv")
    with pytest.raises(ImageFolderError, match=r"labels\.csv: has a column of groups, and so has"):
        load_image_folder(table, groups)
    write(folder / "tables", text.replace(",group", ",note"))
    assert load_image_folder(table, groups).groups.tolist() == ["x", "y", "z"]
    write(folder / "tables", text.replace(",group", ",Sample"))
    with pytest.warns(ImageFolderWarning):
        assert load_image_folder(table).groups.tolist() == ["t", "s", "s"]


BAD_LABELS = [
    ("", r"empty\. Expected path and label"),
    ("path,label\n", "a header and nothing below it"),
    ("path,kind\nc.png,SEM\n", "no column is called label; its columns are path, kind"),
    ("b/2.png,SEM\nc.png,TEM\n", r"called path or label; its columns are b/2\.png, SEM"),
    ("path,label\nb/2.png,\nc.png,TEM\na/1.png\n", r"no label in lines 2, 4\. Give each line"),
    ("path,label\n,SEM\nc.png,TEM\n", "no path in line 2"),
    ("path,label,group\nb/2.png,SEM,x\nc.png,TEM,\n", "no group in line 3"),
    (
        "path,label\nc.png,S\nx.png,S\nd/y.png,T\n",
        r"2 of 3 .*: x\.png \(line 3\), d/y\.png \(line ",
    ),
    ("path,label\nc.png,SEM\na,TEM\n", r"1 of 2 images does not exist: a \(line 3\)"),
    (f"path,label\n{'x' * 300}.png,A\n{'x/' * 3000},B\n", "2 of 2 images do not exist: x"),
    ("path,label\nc.png,SEM\nb/2.png,A\n./c.png,TEM\n", r"c\.png is SEM \(line 2\) and TEM \(li"),
    ("path,label,group\nc.png,A,x\nc.png,A,y\n", r"c\.png is x \(line 2\) and y \(line 3\)"),
    ("path,label\nb/2.png,SEM\nc.png,SEM\n", "images of one class only .'SEM'.; expected at l"),
    ("path,label\nb/2.png,S\0M\n", "not a text file; expected a CSV with path, label"),
    ("path,label\nfädig.png,SEM\n".encode("latin-1"), "not exist: .*not UTF-8 text; in a sprea"),
]


def test_bad_tables_of_labels_are_refused(folder):
    for content, words in BAD_LABELS:
        table = write(folder, content)
        with pytest.raises(ImageFolderError, match=f"^{table}: .*{words}"):
            load_image_folder(table)


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/\\\0\r\n"), min_size=1, max_size=8
)


@settings(max_examples=25)
@given(groups=st.dictionaries(NAMES, st.sampled_from(["=1", "a;b", "x,y", "-"]), min_size=2))
def test_groups_that_the_package_writes_are_read(tmp_path_factory, groups):
    """Whatever the names are: formulas of spreadsheets, separators, quotes, spaces."""
    root, known = tmp_path_factory.mktemp("set"), {}
    for number, (name, group) in enumerate(groups.items()):
        named = f"{'ab'[number % 2]}/{name.strip()}.png"
        (root / named).parent.mkdir(exist_ok=True)
        if not (root / named).exists() and not f"{name.strip()}.png".startswith("."):
            (root / named).touch()
            known[named] = group
    assume(len({named[0] for named in known}) == 2)
    assume(not any(named.lower().endswith("mask.png") for named in known))
    FolderReport(root="", suggested_groups=known).write_groups(root / "groups.csv")
    data = load_image_folder(root, root / "groups.csv")
    assert dict(zip(names(data, root), data.groups, strict=True)) == known


# --- groups ---------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*beside the class folders")
@pytest.mark.parametrize(
    "text",
    [
        "a/1.png,g1\nb/2.png,g2",
        "\ufeffpath;group\r\na/1.png;g1\r\n\r\nb/2.png;g2\r\n",
        "Group, File name ,File\ng1,x,a/1.png\ng2,x,b/2.png\n",
        "index,group,path\n0,g1,a/1.png\n1,g2,b/2.png\n",
        'path,group\n"a/1.png","g1"\n b/2.png , g2 \n',
        "path,specimen number\na/1.png,g1\nb/2.png,g2\n",
        "path,group\nC:\\data\\a\\1.png,g1\n/other/machine/b/2.png,g2\n",
        "path,group\n1.png,g1\n2.png,g2\na/1.png,g1\n",
    ],
)
def test_dialects_of_groups(folder, text):
    assert load_image_folder(folder, write(folder, text)).groups.tolist() == ["g1", "g2"]


@pytest.mark.filterwarnings("ignore:.*beside the class folders")
@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "BE with a mark"],
)
def test_tables_as_spreadsheets_save_them(folder, encoding):
    """Among them "Unicode text" of Excel: UTF-16 with tabs, and its line that names a separator."""
    (folder / "b" / "2.png").rename(folder / "b" / "F\u00e4den.png")
    lines = "path,group\r\na/1.png,Probe \u03b1\r\nb/F\u00e4den.png,\u8bd5\u6837"
    marked = encoding == "BE with a mark"
    for separator, named in itertools.product(",;\t", ["", "sep=,\r\n", "sep=,,,\r\n"]):
        text = (named + lines).replace(",", separator)
        content = ("\ufeff" + text).encode("utf-16-be") if marked else text.encode(encoding)
        found = load_image_folder(folder, write(folder, content))
        assert found.groups.tolist() == ["Probe \u03b1", "\u8bd5\u6837"]
    content = text.replace("Probe \u03b1", "").encode("utf-16")
    with pytest.raises(ImageFolderError):
        load_image_folder(folder, write(folder, content))


BAD_GROUPS = [
    ("", ": empty; expected lines of two columns"),
    ("path,group\n", ": a header and nothing below"),
    ("a/1.png\n", ", line 1: expected a path and a group, got 'a/1.png'"),
    ("path,group\n\na/1.png,\n", ", line 3: expected a path and a group"),
    ("path,label,source,confidence,file\na/1.png,a,person,,/a\n", ": no column is called"),
    ("path,label\na/1.png,a\n", ": no column is called group; its columns are path, label"),
    ("path,group\na/1.png,g1b/2.png,g2\n", ", line 2: 3 cells, but the first line has 2"),
    ("path,group\npng,g\n", r": 1 of its paths fits no image in .*: png \(line 2\)\. Delete"),
    ("path,group\n./,g\n", ": 1 of its paths fits no image"),
    ("path,group\na/1.png,g\nz/b/2.png,h\n", r": 1 of .*: z/b/2\.png \(line 3\)\. .*; 3 images"),
    ("path,group\nsame.png,g\n", r", line 2: same\.png fits 2 images \(a/same\.png, b/same\.png\)"),
    ("path,group\na/1.png,g\n1.png,h\n", r": 1\.png .* 'g' \(line 2\) and in group 'h' \(line 3\)"),
    (
        "path,group\na/1.png,g\na/x.png,g\nc/0.png,g\n",
        r": 2 of its paths fit no image in .*: a/x\.png \(line 3\), c/0\.png \(line 4\)\. .*; "
        r"3 images have no line: a/same\.png, b/2\.png, b/same\.png\. Add a line",
    ),
    (b"PK\x03\x04\x14\x00", ": a workbook, not a text file; in a spreadsheet, save as 'CSV U"),
    (b"\xff\xfep\x00a\x00t\x00h\x00,", ": begins as UTF-16, but is damaged"),
    (b"path,group\n\x00\x00\x00,b\n", ": not a text file; expected a CSV with path, group"),
    ("pfad;probe\nFäden;a\n".encode("cp1252"), ": .*not UTF-8 text; in a spreadsheet, sav"),
    ("path,group\na/1.png,fädig\n".encode("latin-1"), ", line 2: not UTF-8 text"),
    ("path,group\na/fädig.png,g1\n".encode("latin-1"), ": .*fits no image .*not UTF-8 text; in a"),
    (None, ": no such file; expected a CSV"),
]


@pytest.mark.filterwarnings("ignore:.*beside the class folders")
def test_bad_tables_of_groups_are_refused(folder):
    for name in ("a", "b"):
        (folder / name / "same.png").touch()
    for content, words in BAD_GROUPS:
        table = folder / "none.csv" if content is None else write(folder, content)
        with pytest.raises(ImageFolderError, match=f"^{table}{words}"):
            load_image_folder(folder, table)
    for wrong in (folder, ["g1", "g2"]):
        with pytest.raises(ImageFolderError):
            load_image_folder(folder, wrong)
