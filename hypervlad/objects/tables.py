"""The files of a folder of found particles: their names, and how they are read and written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypervlad.common.files import file_digest
from hypervlad.common.tables import original_cell, write_table
from hypervlad.common.wording import name_some
from hypervlad.images.files import path_parts
from hypervlad.objects.counts import Field
from hypervlad.objects.export import write_outlines
from hypervlad.objects.outlines import read_outlines

if TYPE_CHECKING:
    import pandas as pd

OUTLINES, REMOVED = "outlines", "removed"  # folders
RUN, FIELDS, PARTICLES, CONFUSION = "run.json", "fields.csv", "particles.csv", "confusion.csv"
OWN_FILES = (RUN, FIELDS, PARTICLES, CONFUSION)
LOCK = ".lock"
FORMATS = {"geojson": ".geojson", "roi": ".zip"}  # names of folders, and suffixes
FIELD_COLUMNS = ("micrograph", "height", "width", "pixel_size_nm", "particles", "outlines_digest")

_TEXTS = dict.fromkeys(("micrograph", "class", "true", "outlines_digest"), str)
_SAVE_AS_CSV = "; if a spreadsheet saved it, save it as CSV UTF-8, with commas and decimal points"


def is_below(name: Any) -> bool:
    """Return whether the name of a field is a path below a folder."""
    return isinstance(name, str) and not os.path.isabs(name) and ".." not in path_parts(name)


def outlines_file(folder: Path, micrograph: str) -> Path:
    # With the image's own suffix, as a.tif and a.png are two fields.
    return folder / OUTLINES / f"{micrograph}.tif"


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a table that a person may have edited; a ValueError if it lacks columns or numbers."""
    import pandas as pd

    if not path.exists():
        raise ValueError(f"{path}: missing, as finding was stopped; continue it with --resume")
    try:
        table = pd.read_csv(path, dtype=_TEXTS, keep_default_na=False, na_values=[""])
        table.columns = table.columns.map(original_cell)
        if table.empty:  # the type of a column without cells is unknown
            table = table.astype({name: _TEXTS.get(name, float) for name in table})
        for name in _TEXTS.keys() & set(table):
            table[name] = table[name].map(original_cell, na_action="ignore")
    except (ValueError, LookupError) as error:
        raise ValueError(f"{path}: not a table ({error}){_SAVE_AS_CSV}") from error
    if lacking := [name for name in columns if name not in table]:
        raise ValueError(f"{path}: no column is called {name_some(lacking)}{_SAVE_AS_CSV}")
    for name in table:
        is_number = name in (*columns, "confidence") or name.startswith("p_")
        if is_number and name not in _TEXTS and table[name].dtype.kind not in "biuf":
            raise ValueError(f"{path}: {name} has cells that are no numbers{_SAVE_AS_CSV}")
    return table


def write_tables(folder: Path, fields: Sequence[Field], tables: Sequence[pd.DataFrame]) -> None:
    """Write the tables, that of fields last: it says that the others are complete."""
    import pandas as pd

    table = pd.concat(tables, ignore_index=True)
    write_table(folder / PARTICLES, list(table), as_cells(table))
    rows = [
        [name, *field.shape, field.pixel_size, len(own), file_digest(outlines_file(folder, name))]
        for field, own in zip(fields, tables, strict=True)
        for name in [field.micrograph]
    ]
    write_table(folder / FIELDS, FIELD_COLUMNS, rows)


def as_cells(table: pd.DataFrame) -> list[list[Any]]:
    """Return the rows of a table, with None for what is unknown."""
    cells: list[list[Any]] = table.astype(object).where(table.notna(), None).to_numpy().tolist()
    return cells


def write_formats(
    folder: Path, micrograph: str, table: pd.DataFrame, formats: Sequence[str] = ()
) -> None:
    """Write the outlines of a field in given formats, and those that the folder has."""
    for kind, suffix in FORMATS.items():
        if not (kind in formats or (folder / kind).is_dir()):
            continue
        own: dict[str, Any] = {}
        if kind == "geojson":
            own = {"measures": table.drop(columns="particle")}
            own |= {"classes": table["class"].tolist()} if "class" in table else {}
        outlines = read_outlines(outlines_file(folder, micrograph))
        write_outlines(folder / kind / f"{micrograph}{suffix}", outlines, **own)
