"""Tables as a workbook of spreadsheets: numbers are numbers, texts are texts, units have a row."""

from __future__ import annotations

import importlib.util
import io
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hypervlad.common.tables import NUMBER, TEXT_COLUMNS, number_in_table
from hypervlad.common.wording import printable

Lines = Sequence[tuple[int, Sequence[str]]]  # as `read_separated` returns them

_UNITS = {"px": "px", "nm": "nm", "um": "µm", "deg": "°"}
_UNIT = re.compile(r"(.+)_(px|nm|um|deg)(2?)(_low|_high|)")
_TOO_LARGE = (
    "too large for a workbook, of which a sheet has 1,048,576 lines and 16,384 columns at most, "
    "and a cell 32,767 characters; use the CSV file"
)
_NO_VALUES = ("", "nan", "inf", "-inf")  # in columns of numbers
# Numbers that would be shown in another way, such as a specimen 1.10 or 1E2.
_IDENTIFIER = re.compile(r"[+-]?(0\d.*|\d{16,}|\d*[.,]\d+0|[\d.,]+[eE]\d+)")
_MAX_NAME = 31  # characters of a sheet's name
_MIN_WIDTH, _MAX_WIDTH = 8, 40  # of columns, in characters


def is_workbook(path: Path) -> bool:
    return path.suffix.lower() == ".xlsx"


def check_workbook(path: Path) -> None:
    """Raise if it would be a workbook, and the library that writes them is missing."""
    if is_workbook(path) and importlib.util.find_spec("xlsxwriter") is None:
        raise ValueError(
            f'{path}: workbooks need XlsxWriter: pip install "hypervlad[xlsx]"; or give a name '
            "that ends in .csv"
        )


def name_and_unit(column: str) -> tuple[str, str]:
    """Split the name of a column of numbers.

    >>> name_and_unit("area_px2"), name_and_unit("d50_low_nm"), name_and_unit("per_um2_high")
    (('area', 'px²'), ('d50_low', 'nm'), ('per_area_high', '1/µm²'))
    """
    found = _UNIT.fullmatch(f"_{column}")
    if found is None or column.startswith("p_"):  # the probability of a class
        return column, ""
    name, unit, square, ending = found.groups()
    unit = _UNITS[unit] + square.replace("2", "²")
    if name == "_per":
        name, unit = "_per_area", f"1/{unit}"
    return name[1:] + ending, unit


def workbook_of(tables: Iterable[tuple[str, str, Lines]]) -> bytes:
    """Return a workbook of one sheet for each table: name, separator of cells, and lines.

    ValueError if a table is larger than a sheet can be.
    """
    import xlsxwriter  # an extra

    content, taken = io.BytesIO(), set[str]()
    with xlsxwriter.Workbook(content, {"in_memory": True}) as book:
        looks = book.add_format({"bold": True}), book.add_format({"italic": True})
        for name, separator, lines in tables:
            sheet = book.add_worksheet(_sheet_name(name, taken))
            (_, header), *below = lines or [(0, [])]
            is_matrix = header[:1] == ["true"]  # of classes, which name the other columns
            heads = [(each, "") if is_matrix else name_and_unit(each) for each in header]
            names, units = [each for each, _ in heads], [unit for _, unit in heads]
            above = [names, units] if any(units) else [names]
            for row, (texts, look) in enumerate(zip(above, looks, strict=False)):
                for column, text in enumerate(texts):
                    _write(sheet, row, column, text, look)
            columns = [[row[n] for _, row in below if n < len(row)] for n in range(len(header))]
            is_text = [
                name in TEXT_COLUMNS or not _are_numbers(cells, separator, has_unit=bool(unit))
                for name, (_, unit), cells in zip(header, heads, columns, strict=True)
            ]
            widths = [max(len(text), _MIN_WIDTH) for text in names]
            for row, (line, cells) in enumerate(below, len(above)):
                for column, text in enumerate(cells[: len(header)]):
                    value = text if is_text[column] else _value(text, separator)
                    if _write(sheet, row, column, value):
                        raise ValueError(f"{name}, line {line}: {_TOO_LARGE}")
                    if isinstance(value, str):
                        widths[column] = max(widths[column], len(text))
            for column, width in enumerate(widths):
                sheet.set_column(column, column, min(width, _MAX_WIDTH) + 2)
            sheet.freeze_panes(len(above), 0)
    return content.getvalue()


def _are_numbers(cells: Iterable[str], separator: str, *, has_unit: bool) -> bool:
    """Return whether all cells of a column are numbers or truth values, if they are anything.

    Without a unit, what a spreadsheet would not show as it is written is a name.
    """
    return not any(
        (not has_unit and _IDENTIFIER.fullmatch(each))
        or (isinstance(_value(each, separator), str) and each.lower() not in _NO_VALUES)
        for each in cells
    )


def _value(text: str, separator: str) -> float | bool | str:
    if text in ("True", "False"):
        return text == "True"
    number = number_in_table(text, separator)
    value = float(number) if NUMBER.fullmatch(number) else math.nan
    return value if math.isfinite(value) else text


def _write(sheet: Any, row: int, column: int, value: float | bool | str, look: Any = None) -> int:
    """Write a cell, and return zero, unless it does not fit.

    XlsxWriter's own `write` would take texts for formulas and links.
    """
    code = 0
    if isinstance(value, bool):
        code = sheet.write_boolean(row, column, value, look)
    elif isinstance(value, float):
        code = sheet.write_number(row, column, value, look)
    elif value:
        code = sheet.write_string(row, column, printable(value), look)
    return code


def _sheet_name(name: str, taken: set[str]) -> str:
    """Return a name as sheets may have it, which no sheet has yet."""
    clean = re.sub(r"[\[\]:*?/\\]|^'|'$", "_", printable(name))[:_MAX_NAME] or "table"
    found, number = clean, 2
    while found.casefold() in taken or found.casefold() == "history":  # reserved by Excel
        found, number = f"{clean[: _MAX_NAME - len(str(number)) - 1]}_{number}", number + 1
    taken.add(found.casefold())
    return found
