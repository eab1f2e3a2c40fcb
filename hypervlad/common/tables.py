"""Tables as CSV, which spreadsheets show as they are: no text is run as a formula."""

# An apostrophe precedes each sign that begins a formula, as OWASP's page "CSV Injection" advises,
# also where another separator would begin a cell (quotes do not help: at semicolons, 0.5,"x;=1" has
# a cell =1). Where apostrophes precede the sign already, one more is written, so that removing one
# restores all text.

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hypervlad.common.files import append_line, parse_json, replace_when_complete
from hypervlad.common.limits import MAX_OUTLINES_VALUES

_SIGN = "[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]"
# Text with commas is quoted, so that a cell begins after none of them.
_CELL = r'(?:\A|(?<=[;\t\r\n"]))'
_FORMULA = re.compile(f"{_CELL}(?='*{_SIGN})")
_ESCAPED = re.compile(f"{_CELL}'(?='*{_SIGN})")
#: The sources of labels in tables.
MODEL_SOURCE, PERSON_SOURCE = "model", "person"
NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)


def escaped_cell(value: Any, *, is_first: bool = False) -> str:
    """Return the text of a cell, with apostrophes where a spreadsheet would run it.

    Numbers stay, and so does text that is a number, unless it `is_first` in its line (by default it
    is not): where commas do not separate, the first cell has the rest of the line.

    Examples
    --------
    >>> escaped_cell("=1+1"), escaped_cell("-0.5"), escaped_cell(-0.5), escaped_cell("'=1")
    ("'=1+1", '-0.5', '-0.5', "''=1")
    >>> escaped_cell("x;=1+1;.png")
    "x;'=1+1;.png"
    """
    text = "" if value is None else str(value)
    if isinstance(value, float | int | np.number) or (NUMBER.fullmatch(text) and not is_first):
        return text
    return _FORMULA.sub("'", text)


def original_cell(text: str) -> str:
    """Return the text that `escaped_cell` was given."""
    return _ESCAPED.sub("", text)


def table_as_bytes(header: Sequence[Any], rows: Iterable[Sequence[Any]]) -> bytes:
    """Return a table as CSV, in UTF-8; file names that are not valid text keep their bytes.

    None is an empty cell.
    """
    lines = [
        ",".join(_quoted(escaped_cell(value, is_first=not i)) for i, value in enumerate(row))
        for row in (header, *rows)
    ]
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")


def write_table(
    path: str | os.PathLike[str], header: Sequence[Any], rows: Iterable[Sequence[Any]]
) -> None:
    with replace_when_complete(path) as stream:
        stream.write(table_as_bytes(header, rows))


def read_table(path: str | os.PathLike[str]) -> list[list[str]]:
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as stream:
        return [[original_cell(cell) for cell in row] for row in csv.reader(stream, strict=True)]


class Journal:
    """What was added to tables since they were written: values that JSON can store, one a line.

    It lies beside its table until this is written as a whole, at the end of a run, or at the
    beginning of the next one if the process was killed.
    """

    def __init__(self, table: Path) -> None:
        self.path = table.with_suffix(".jsonl")

    def add(self, value: Any) -> None:
        append_line(self.path, json.dumps(value).encode())

    def read(self) -> list[Any]:
        """Return the values, without one whose line a kill cut off; a ValueError if damaged."""
        if not self.path.exists():
            return []
        lines = self.path.read_bytes().split(b"\n")[:-1]
        try:
            return [parse_json(line, MAX_OUTLINES_VALUES) for line in lines]
        except ValueError as error:
            raise self.damaged(error) from error

    def damaged(self, error: Exception) -> ValueError:
        return ValueError(
            f"{self.path}: damaged, or not of an earlier run ({error}); delete it if this folder "
            "is of one: its last images are done again"
        )

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def _quoted(text: str) -> str:
    # The module csv of Python 3.11 does not quote carriage returns.
    return '"' + text.replace('"', '""') + '"' if re.search(r'[,"\r\n]', text) else text
