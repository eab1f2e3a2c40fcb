"""Tables: no cell is a formula in a spreadsheet, and reading gives back what was written."""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hypervlad.datasets.groups import read_group_rows
from hypervlad.datasets.report import FolderReport
from hypervlad.reports import predictions_as_bytes, write_predictions
from hypervlad.tables import escaped_cell, original_cell, read_table, table_as_bytes, write_table

FORMULAS = [
    "=1+1",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    '=HYPERLINK("http://x")',
    "-",
    "-a.tif",
]


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
    assert cells(table_as_bytes(["x"], [[value, ""]]))[1][0] == str(value)


@pytest.mark.parametrize("value", ["a=b.tif", "'quoted'.tif", "über", "", "a-1"])
def test_other_text_stays(value: str) -> None:
    assert escaped_cell(value) == value


@given(st.text(st.characters(codec="utf-8"), max_size=8), st.sampled_from(["", "'", "''"]))
@example("=1", "'")
@example("-1", "'")
def test_every_text_comes_back(text: str, start: str) -> None:
    written = escaped_cell(start + text)
    assert original_cell(written) == start + text


def test_a_table_comes_back(tmp_path: Path) -> None:
    texts = [*FORMULAS, *(f"'{text}" for text in FORMULAS), "a,b", 'a"b', "a\nb", "a\rb", "\udcff"]
    rows = [[text, text[::-1]] for text in texts]
    write_table(tmp_path / "t.csv", ["path", "=label"], rows)
    assert read_table(tmp_path / "t.csv") == [["path", "=label"], *rows]


@pytest.mark.parametrize("text", [text for text in FORMULAS if text == text.strip()])
def test_groups_come_back(text: str, tmp_path: Path) -> None:
    report = FolderReport("images", _files=[text, "b.png"], _groups=["-g", "'=g"])
    report.write_groups(tmp_path / "groups.csv")
    rows = read_group_rows(tmp_path / "groups.csv")
    assert sorted((row.path, row.group) for row in rows) == sorted([(text, "-g"), ("b.png", "'=g")])
    assert all(
        not cell.startswith("=") for cell in (tmp_path / "groups.csv").read_text().split(",")
    )


def test_predictions_are_plain_text() -> None:
    arguments = (["=a.png"], [[0.25, 0.75]], ["-SEM", "@TEM"])
    table = predictions_as_bytes(*arguments, columns={"reason": ["+why"]})
    assert cells(table)[1] == ["'=a.png", "'@TEM", "0.75", "'+why", "0.25", "0.75"]
    stream = io.StringIO(newline="")
    write_predictions(stream, *arguments, columns={"reason": ["+why"]})
    assert stream.getvalue().encode() == table


def test_long_digits_take_no_more_time_than_their_length() -> None:
    text, started = "-" + "1" * 50_000 + "x", time.perf_counter()
    assert escaped_cell(text) == f"'{text}"
    assert time.perf_counter() - started < 1
