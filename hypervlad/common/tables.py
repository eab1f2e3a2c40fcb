"""Tables as CSV, in the two ways of spreadsheets: how they are written, and read.

Commas separate cells, and numbers have decimal points; or, where commas are decimal, semicolons
separate them. No text is run as a formula.
"""

# An apostrophe precedes each sign that begins a formula, as OWASP's page "CSV Injection" advises,
# also where another separator would begin a cell (quotes do not help: at semicolons, 0.5,"x;=1" has
# a cell =1). Where apostrophes precede the sign already, one more is written, so that removing one
# restores all text.

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from hypervlad.common.files import append_line, json_text, parse_json, replace_when_complete
from hypervlad.common.limits import MAX_OUTLINES_VALUES
from hypervlad.common.wording import counted, is_utf8

T = TypeVar("T")
_SIGN = "[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]"
_CELL = r'(?:\A|(?<=[,;\t\r\n"]))'
_FORMULA = re.compile(f"{_CELL}(?='*{_SIGN})")
_ESCAPED = re.compile(f"{_CELL}'(?='*{_SIGN})")
#: The sources of labels in tables.
MODEL_SOURCE, PERSON_SOURCE = "model", "person"
CHOSEN_SOURCE = "training (review)"  # labels of a review, with which the classifier was trained
NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
#: Columns whose cells are texts, also those that look like numbers, such as a group 1.5.
TEXT_COLUMNS = frozenset(
    (
        *("path", "file", "folder", "image", "micrograph", "group", "sample", "over"),
        *("class", "true", "label", "likely", "possible", "kind", "kinds", "source"),
        *("reason", "remark", "doubt", "note", "notes", "annotations", "settings", "profile"),
        *("polarity", "image_digest", "outlines_digest", "corrected_in", "scale_bar"),
    )
)
SAVE_AS_UTF8 = "; in a spreadsheet, save as 'CSV UTF-8'"
_MARKS = {  # UTF-32's first, which begins like UTF-16's
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_decimal_comma = False  # of the process, as threads write tables too

# --- writing --------------------------------------------------------------------------------------


@contextlib.contextmanager
def decimal_commas(wanted: bool) -> Iterator[None]:
    """Write tables with decimal commas, and semicolons between cells, if it is `wanted`."""
    global _decimal_comma
    before, _decimal_comma = _decimal_comma, wanted
    try:
        yield
    finally:
        _decimal_comma = before


def separator() -> str:
    """Return what separates the cells of tables that are written."""
    return ";" if _decimal_comma else ","


def escaped_cell(value: Any, *, is_first: bool = False) -> str:
    """Return the text of a cell, with apostrophes where a spreadsheet would run it.

    Numbers stay, and so does text that is a number, unless it `is_first` in its line (by default it
    is not): where commas do not separate, the first cell has the rest of the line.

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
    lines = [_quoted_cells(header)]
    for row in rows:
        cells = _quoted_cells(row)
        if _decimal_comma:
            columns = zip(header, row, cells, strict=True)
            cells = [
                cell.replace(".", ",") if _is_number(value, name) else cell
                for name, value, cell in columns
            ]
        lines.append(cells)
    text = "".join(f"{separator().join(cells)}\n" for cells in lines)
    return text.encode("utf-8", "surrogateescape")


def _quoted_cells(row: Sequence[Any]) -> list[str]:
    # The module csv of Python 3.11 does not quote carriage returns.
    special = r'[,;"\r\n]' if _decimal_comma else r'[,"\r\n]'
    texts = [escaped_cell(value, is_first=not i) for i, value in enumerate(row)]
    return [
        '"' + text.replace('"', '""') + '"' if re.search(special, text) else text for text in texts
    ]


def _is_number(value: Any, column: str) -> bool:
    if isinstance(value, str):
        return column not in TEXT_COLUMNS and bool(NUMBER.fullmatch(value))
    return isinstance(value, float | np.floating)


def write_table(
    path: str | os.PathLike[str], header: Sequence[Any], rows: Iterable[Sequence[Any]]
) -> None:
    with replace_when_complete(path) as stream:
        stream.write(table_as_bytes(header, rows))


# --- reading --------------------------------------------------------------------------------------


def read_separated(
    path: Path, columns: str = "", *, strict: bool = False
) -> tuple[str, list[tuple[int, list[str]]]]:
    """Return what separates the cells of a table, and its lines that are not blank, by number.

    A ValueError, which names the expected `columns`, if it is no table; if it is `strict`, also if
    a quotation mark has no partner. See `text_of_table`.
    """
    text, delimiter = text_of_table(path, columns)
    return delimiter, lines_of_table(text, delimiter, path, strict=strict)


def lines_of_table(
    text: str, delimiter: str, path: Path, *, strict: bool = False
) -> list[tuple[int, list[str]]]:
    """Do the same for the text of a table, from `path`."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=strict)
    try:
        lines = [
            (reader.line_num, list(map(original_cell, row)))
            for row in reader
            if any(cell.strip() for cell in row)
        ]
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}.") from error
    for number, row in lines:
        n_cells = len(lines[0][1])
        if any(cell.strip() for cell in row[n_cells:]):
            raise ValueError(
                f"{path}, line {number}: {counted(len(row), 'cell')}, but the first line has "
                f"{n_cells}. Put a text that contains the separator {delimiter!r} in double "
                "quotes; if two lines were joined, separate them."
            )
    return lines


def text_of_table(path: Path, columns: str) -> tuple[str, str]:
    """Return the text of a table, and what separates its cells: a comma, a semicolon or a tab.

    A first line such as ``sep=;`` may name it, and is blank in the text. The file is UTF-8, UTF-16
    or UTF-32. Bytes of file names that are not UTF-8 become surrogates.
    """
    text = _decoded(path.read_bytes(), path, columns)
    found = re.search(r"[^\r\n]*\S[^\r\n]*", text)
    first = found[0] if found else ""
    if not first.isascii() and not is_utf8(text):
        raise ValueError(f"{path}, line 1: not UTF-8 text{SAVE_AS_UTF8}.")
    if named := re.fullmatch(r"sep=([,;\t])[,;\t]*", first.strip(" ")):  # for Excel
        return text.replace(first, "", 1), named[1]  # numbers of lines stay
    outside_quotes = re.sub(r'"[^"]*"', "", first)
    return text, max(",;\t", key=outside_quotes.count)


def number_in_table(text: str, delimiter: str) -> str:
    """Return a number with a decimal point; it may have a comma where none separates the cells.

    Other text stays as it is.
    """
    pointed = text.replace(",", ".")
    return pointed if delimiter != "," and NUMBER.fullmatch(pointed) else text


def _decoded(content: bytes, path: Path, columns: str) -> str:
    """Return the text of a table; without a mark, bytes that are not UTF-8 become surrogates."""
    if content.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise ValueError(f"{path}: a workbook, not a text file{SAVE_AS_UTF8}.")
    if not content.startswith(tuple(_MARKS)):
        # Text in UTF-16 without a mark: each second byte of what is ASCII is zero.
        head = content[:65_536]
        zeros = [head[start::2].count(0) for start in (0, 1)]
        if len(content) % 2 == 0 and max(zeros) > len(head) / 8 and not min(zeros):
            content = (codecs.BOM_UTF16_BE if zeros[0] else codecs.BOM_UTF16_LE) + content
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding, "surrogateescape" if encoding == "utf-8" else "strict")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: begins as {encoding.upper()}, but is damaged ({error.reason}){SAVE_AS_UTF8}."
        ) from error
    if "\0" in text:
        raise ValueError(f"{path}: not a text file; expected a CSV with {columns}.")
    return text.removeprefix("\ufeff")


# --- while a table grows --------------------------------------------------------------------------


class Journal:
    """What was added to tables since they were written: values that JSON can store, one a line.

    It lies beside its table until this is written as a whole, at the end of a run, or at the
    beginning of the next one if the process was killed.
    """

    def __init__(self, table: Path) -> None:
        self.path = table.with_suffix(".jsonl")

    def add(self, value: Any) -> None:
        append_line(self.path, json_text(value))

    def read(self, convert: Callable[[Any], T]) -> list[T]:
        """Return the values, without one whose line a kill cut off; a ValueError if damaged."""
        if not self.path.exists():
            return []
        lines = self.path.read_bytes().split(b"\n")[:-1]
        try:
            return [convert(parse_json(line, MAX_OUTLINES_VALUES)) for line in lines]
        except (ValueError, TypeError, LookupError) as error:
            raise ValueError(
                f"{self.path}: damaged, or not of an earlier run ({error}); delete it if this "
                "folder is of one: its last images are done again"
            ) from error

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
