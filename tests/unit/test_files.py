"""Written files: complete or not there, never through a link, and no formula of a spreadsheet.

A table of groups stands for all: everything is written by the same code.
"""

import csv
import errno
import io
import os
import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hypervlad.data import FolderReport
from hypervlad.results import predictions_as_bytes

posix = pytest.mark.skipif(os.name == "nt", reason="links and pipes are POSIX's")


def write(path, **groups):
    FolderReport(root="", suggested_groups=groups or {"a.png": "1"}).write_groups(path)


@pytest.fixture
def precious(tmp_path):
    """A file that nothing may write to."""
    path = tmp_path / "precious.txt"
    path.write_text("mine")
    return path


@posix
def test_links_pipes_and_folders_are_refused(tmp_path, precious):
    out = tmp_path / "out.csv"
    for make, words in (
        (lambda: out.symlink_to(precious), r"is a link to .*precious\.txt"),
        (lambda: out.symlink_to(tmp_path / "new"), "is a link to .*new"),
        (lambda: os.mkfifo(out), "is not an ordinary file"),
        (out.mkdir, "is a folder"),
    ):
        make()
        with pytest.raises(OSError, match=rf"out\.csv {words}"):
            write(out)
        assert sorted(each.name for each in tmp_path.iterdir()) == ["out.csv", "precious.txt"]
        out.rmdir() if out.is_dir() else out.unlink()
    assert precious.read_text() == "mine"
    os.link(precious, out)  # a second name is replaced, not written to
    write(out)
    (tmp_path / "real").mkdir()
    (tmp_path / "folder").symlink_to(tmp_path / "real", target_is_directory=True)
    write(tmp_path / "folder" / "out.csv")  # a folder may be a link
    assert out.read_bytes() == (tmp_path / "real" / "out.csv").read_bytes() != b"mine"
    assert precious.read_text() == "mine"


@posix
def test_a_link_that_appears_while_a_file_is_written_is_refused(tmp_path, precious, monkeypatch):
    flush = os.fsync

    def linked_meanwhile(file):
        flush(file)
        (tmp_path / "out.csv").symlink_to(precious)

    monkeypatch.setattr(os, "fsync", linked_meanwhile)
    with pytest.raises(FileExistsError):
        write(tmp_path / "out.csv")
    assert precious.read_text() == "mine"
    assert (tmp_path / "out.csv").is_symlink()


@pytest.mark.parametrize("existing", [[], ["new"], ["new", "new/deep"]])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG])
def test_a_full_disk_names_the_file_and_leaves_nothing_new(number, existing, tmp_path, monkeypatch):
    def full(_):
        raise OSError(number, os.strerror(number))

    for name in existing:
        (tmp_path / name).mkdir()
    out = tmp_path / "new" / "deep" / "out.csv"
    if len(existing) == 2:
        out.write_text("old")
    before = sorted(tmp_path.rglob("*"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"out\.csv") as caught:
            write(out)
    assert caught.value.errno == number
    assert sorted(tmp_path.rglob("*")) == before
    assert len(existing) < 2 or out.read_text() == "old"
    write(out)
    assert out.read_bytes() == b"path,group\na.png,1\n"


# --- tables ---------------------------------------------------------------------------------------

SIGNS = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"
FORMULAS = [f"{sign}1+1" for sign in SIGNS] + ['=HYPERLINK("http://x")', "-", "-a.tif"]


def cells(table, delimiter=","):
    """The cells as a spreadsheet finds them."""
    return list(csv.reader(io.StringIO(table.decode(), newline=""), delimiter=delimiter))


@pytest.mark.parametrize(
    ("text", "first", "other"),
    [
        *((text, f"'{text}", f"'{text}") for text in FORMULAS),
        *((number, f"'{number}", number) for number in ("-0.5", "+3", "-1e-07", "-.5")),
        *((text, text, text) for text in ("a=b", "'quoted'", "a-1", "a;b", "x,3", "c\td", "2")),
        ("'=1", "''=1", "''=1"),
        ("x;=1+1,-3", "x;'=1+1,'-3", "x;'=1+1,'-3"),
        ("a\t'@b;-c", "a\t''@b;'-c", "a\t''@b;'-c"),
        ("\t=1", "'\t'=1", "'\t'=1"),
        ("a\r\n+b", "a\r'\n'+b", "a\r'\n'+b"),
        ('a"=b', "a\"'=b", "a\"'=b"),
        ("-" + "1" * 50_000 + "x", "'-" + "1" * 50_000 + "x", "'-" + "1" * 50_000 + "x"),
    ],
)
def test_text_like_a_formula_is_plain_text(text, first, other):
    """A number stays one, unless it begins a line: where commas are decimal, that is one cell."""
    header, row = cells(predictions_as_bytes([text], [[1.0]], [text], columns={text: [text]}))
    assert row[:2] == [first, other]
    assert row[3] == other
    assert header[3] == other


PIECES = [*"=+-@\uff1d\uff20,;\t\r\n\"'x1 ", "=1+1", ";=", '",-', "-1"]
TEXTS = st.one_of(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=8),
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map("".join),
)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@given(names=st.lists(TEXTS, max_size=4))
@example(names=["x;=1+1;.png", 'x,;"=1+1"', "x,;", "-1"])
@settings(max_examples=60)
def test_no_text_is_a_formula_at_any_separator(names, delimiter):
    tables = (predictions_as_bytes([name], [[1.0]], [name[::-1]]) for name in names)
    for row in cells(b"".join(tables), delimiter):
        for cell in row:
            start = cell.lstrip("\t\r\n")[:1]
            assert re.fullmatch(r"[+-][0-9.]+", cell) or start not in {*SIGNS.strip()}


def test_probabilities_have_six_decimals_and_labels_all_digits():
    """Classes that are equally probable when rounded keep their order."""
    proba = [[0.33333330, 0.33333334, 0.33333336]]
    row = cells(predictions_as_bytes(["a.png"], proba, ["a", "b", "c"]))[1]
    assert row == ["a.png", "c", *4 * ["0.333333"]]
    numbers = predictions_as_bytes(["a.png"], [[1.0]], ["b"], columns={"x": [np.float32(-0.5)]})
    assert cells(numbers)[1][3] == "-0.5"
