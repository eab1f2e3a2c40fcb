"""Tables as CSV, which spreadsheets show as they are: no cell is run as a formula.

A spreadsheet takes a cell that begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return
for a formula, which can send data to a server or, after a click, start a program; file names and
labels come from other people. So such text is written with an apostrophe before it, as OWASP's page
*CSV Injection* recommends, and so is text that begins with apostrophes and one of these signs:
removing one apostrophe restores all text. Numbers stay as they are.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from hypervlad.files import replace_when_complete

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_ESCAPED = re.compile(r"'+[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")


def escaped_cell(value: Any) -> str:
    """Return the text of a cell, with an apostrophe if a spreadsheet would run it.

    Examples
    --------
    >>> escaped_cell("=1+1"), escaped_cell("-0.5"), escaped_cell(-0.5), escaped_cell("'=1")
    ("'=1+1", '-0.5', '-0.5', "''=1")
    """
    text = "" if value is None else str(value)
    is_number = isinstance(value, float | int | np.number) or _NUMBER.fullmatch(text)
    return f"'{text}" if _FORMULA.match(text) and not is_number else text


def original_cell(text: str) -> str:
    """Return the text that `escaped_cell` was given.

    Examples
    --------
    >>> original_cell("'=1+1"), original_cell("-0.5"), original_cell("'quoted'")
    ('=1+1', '-0.5', "'quoted'")
    """
    return text[1:] if _ESCAPED.match(text) else text


def table_as_text(header: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    r"""Return a table as CSV.

    Parameters
    ----------
    header : sequence of n_columns names
    rows : iterable of sequences of n_columns values
        None is an empty cell.

    Examples
    --------
    >>> table_as_text(["path", "score"], [["a.png", 0.5], ["=b.png", -1.0]])
    "path,score\na.png,0.5\n'=b.png,-1.0\n"
    """
    lines = [",".join(map(_quoted, row)) for row in (header, *rows)]
    return "".join(f"{line}\n" for line in lines)


def table_as_bytes(header: Sequence[Any], rows: Iterable[Sequence[Any]]) -> bytes:
    """Return a table as CSV, in UTF-8.

    File names that are not valid text, which Linux allows, keep their bytes.
    """
    return table_as_text(header, rows).encode("utf-8", "surrogateescape")


def write_table(
    path: str | os.PathLike[str], header: Sequence[Any], rows: Iterable[Sequence[Any]]
) -> None:
    """Write a table as CSV; the file is complete or not there."""
    with replace_when_complete(path) as stream:
        stream.write(table_as_bytes(header, rows))


def read_table(path: str | os.PathLike[str]) -> list[list[str]]:
    """Return the lines of a table that `write_table` wrote, the header first.

    Raises
    ------
    csv.Error
        If it is not CSV.
    """
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as stream:
        return [[original_cell(cell) for cell in row] for row in csv.reader(stream, strict=True)]


def _quoted(value: Any) -> str:
    # The module csv of Python 3.11 does not quote carriage returns.
    text = escaped_cell(value)
    return '"' + text.replace('"', '""') + '"' if re.search(r'[,"\r\n]', text) else text
