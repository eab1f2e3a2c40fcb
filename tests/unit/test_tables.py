"""Tables: no cell is a formula in a spreadsheet, and reading gives back what was written."""

from __future__ import annotations

import csv
import io
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hypervlad.common.tables import (
    escaped_cell,
    original_cell,
    read_table,
    table_as_bytes,
    write_table,
)
from hypervlad.results import predictions_as_bytes

FORMULAS = [
    "=1+1",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "\tcmd",
    "\rcmd",
    "\ncmd",
    '=HYPERLINK("http://x")',
    "-",
    "-a.tif",
    "\uff1d1+1",
    "\uff0b1",
    "\uff0dcmd",
    "\uff20SUM(A1)",
]

# Names that another separator would cut, with signs after it.
PIECES = [*"=+-@\uff1d\uff20,;\t\r\n\"'x1 ", "=1+1", ";=", '",-', "-1"]
TEXTS = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=8),
    st.lists(st.sampled_from(PIECES), max_size=6).map("".join),
)


def cells(table: bytes) -> list[list[str]]:
    """The cells as a spreadsheet finds them."""
    return list(csv.reader(io.StringIO(table.decode(), newline="")))


@pytest.mark.parametrize("text", FORMULAS)
def test_text_like_a_formula_is_plain_text(text: str) -> None:
    assert cells(table_as_bytes([text], [[text], [np.str_(text)]])) == [[f"'{text}"]] * 3


@pytest.mark.parametrize(
    "value", [-0.5, -3, np.float32(-0.5), -1e-7, "-0.5", "+3", "-1e-07", "-.5"]
)
def test_numbers_stay(value: Any) -> None:
    assert cells(table_as_bytes(["x", "y"], [["", value]]))[1][1] == str(value)
    assert escaped_cell(float(value), is_first=True) == str(float(value))


@pytest.mark.parametrize(
    "value", ["a=b.tif", "'quoted'.tif", "", "a-1", "a;b", "tilt,-30.tif", "a (1)", "c\td"]
)
def test_other_text_stays(value: str) -> None:
    assert escaped_cell(value) == value


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("x;=1+1;.png", "x;'=1+1;.png"),
        ("a\t'@b;-c", "a\t''@b;'-c"),
        ("\t=1", "'\t'=1"),
        ("a\r\n+b", "a\r'\n'+b"),
        ('a"=b', "a\"'=b"),
    ],
)
def test_signs_where_another_separator_begins_a_cell(text: str, written: str) -> None:
    assert escaped_cell(text) == written
    assert original_cell(written) == text


def test_a_number_that_begins_a_line_is_text() -> None:
    # Where commas are decimal, the line is one cell: -1.5 plus another program's answer.
    table = table_as_bytes(["path", "label"], [["-1", "5+cmd|' /C calc'!A0"]])
    assert table == b"path,label\n'-1,5+cmd|' /C calc'!A0\n"


@pytest.mark.slow  # a hundred random texts
@given(TEXTS, st.sampled_from(["", "'", "''"]), st.booleans())
@example("=1", "'", False)
@example("-1", "'", False)
@example("-1", "", True)
@example("';'=", "'", False)
def test_every_text_comes_back(text: str, start: str, is_first: bool) -> None:
    written = escaped_cell(start + text, is_first=is_first)
    assert original_cell(written) == start + text


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@given(rows=st.lists(st.lists(TEXTS, min_size=2, max_size=4), max_size=4))
@example(rows=[["x;=1+1;.png", ""], ["", "x;=1+1;.png"]])
@example(rows=[["0", 'x,;"=1+1"'], ["0", "x,;"], ["-1", "5+1"]])
@settings(max_examples=60)
def test_no_text_is_a_formula_at_any_separator(rows: list[list[str]], delimiter: str) -> None:
    table = table_as_bytes(["path"], rows).decode()
    for row in csv.reader(io.StringIO(table, newline=""), delimiter=delimiter):
        for cell in row:
            start = cell.lstrip("\t\r\n")[:1]
            is_number = re.fullmatch(r"[+-][0-9.]+", cell)
            assert is_number or start not in {*"=+-@\uff1d\uff0b\uff0d\uff20"}
    back = list(csv.reader(io.StringIO(table, newline=""), strict=True))
    assert [[original_cell(cell) for cell in row] for row in back[1:]] == rows


def test_a_table_comes_back(tmp_path: Path) -> None:
    texts = [*FORMULAS, *(f"'{text}" for text in FORMULAS), "a,b", 'a"b', "a\nb", "a\rb", "\udcff"]
    rows = [[text, text[::-1]] for text in texts]
    write_table(tmp_path / "t.csv", ["path", "=label"], rows)
    assert read_table(tmp_path / "t.csv") == [["path", "=label"], *rows]


def test_predictions_are_plain_text() -> None:
    table = predictions_as_bytes(
        ["=a.png"], [[0.25, 0.75]], ["-SEM", "@TEM"], columns={"reason": ["+why"]}
    )
    assert cells(table)[1] == ["'=a.png", "'@TEM", "0.75", "'+why", "0.25", "0.75"]


def test_probabilities_have_six_decimals_and_labels_all_digits() -> None:
    """Classes that are equally probable when rounded keep their order."""
    proba = [[0.33333330, 0.33333334, 0.33333336]]
    row = cells(predictions_as_bytes(["a.png"], proba, ["a", "b", "c"]))[1]
    assert row == ["a.png", "c", *4 * ["0.333333"]]


def test_long_digits_take_no_more_time_than_their_length() -> None:
    text, started = "-" + "1" * 50_000 + "x", time.perf_counter()
    assert escaped_cell(text) == f"'{text}"
    assert time.perf_counter() - started < 1
