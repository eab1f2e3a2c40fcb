"""The files of a folder of found particles: outlines of fields, and the table of fields."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hypervlad.common.files import file_digest
from hypervlad.common.tables import Journal, write_table
from hypervlad.common.wording import name_some
from hypervlad.images.files import is_below
from hypervlad.objects.export import write_outlines
from hypervlad.objects.found_tables import as_cells, read_table
from hypervlad.objects.outlines import read_outlines
from hypervlad.objects.particle import Outlines

if TYPE_CHECKING:
    import pandas as pd

FIELD_COLUMNS = (
    *("micrograph", "group", "sample", "particles", "height", "width", "pixel_size_nm"),
    *("annotated_px", "beside", "removed", "note", "image_digest", "outlines_digest"),
)
_NEEDED = ("micrograph", "height", "width", "pixel_size_nm", "outlines_digest")
_FORMATS = {"geojson": ".geojson", "roi": ".zip"}  # names of folders, and suffixes


class FieldTable:
    """``fields.csv``, with one row per field; while a run goes on, ``fields.jsonl`` has new ones.

    Both are written before the outlines of a field, which contain less than its row.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._journal = path, Journal(path)

    @cached_property
    def table(self) -> pd.DataFrame:
        found = read_table(self.path, _NEEDED).astype({"pixel_size_nm": float})
        if strange := [str(name) for name in found["micrograph"] if not is_below(name)]:
            raise ValueError(f"{self.path}: no images are called {name_some(strange)}")
        return found.reindex(columns=list(dict.fromkeys([*FIELD_COLUMNS, *found])))

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return the rows by their images; what a stopped run has left is in the table then."""
        rows = dict[str, dict[str, Any]]()
        if self.path.exists():
            cells = as_cells(self.table)
            found = [dict(zip(self.table, row, strict=True)) for row in cells]
            rows |= {row["micrograph"]: row for row in found}
        if self._journal.path.exists():
            try:
                rows |= {row["micrograph"]: row for row in self._journal.read()}
            except (TypeError, LookupError) as error:
                raise self._journal.damaged(error) from error
            if rows:
                self.write(rows.values())
            self._journal.remove()
        return rows

    def read_again(self) -> None:
        """Forget what was read: the table may have been edited, or a run may have been stopped."""
        vars(self).pop("table", None)
        if self._journal.path.exists():
            self.rows()

    def add(self, row: Mapping[str, Any]) -> None:
        """Keep a row until the table is written, which takes the longer, the more rows it has."""
        self._journal.add(row)

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        rows = list(rows)
        columns = dict.fromkeys([*FIELD_COLUMNS, *(name for row in rows for name in row)])
        cells = [[row.get(name) for name in columns] for row in rows]
        write_table(self.path, list(columns), cells)
        self._journal.remove()
        vars(self).pop("table", None)


class OutlineFiles:
    """The outlines of fields: a.tif and a.png are two."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, name: str) -> Path:
        return self._folder / "outlines" / f"{name}.tif"

    def digest(self, name: str) -> str | None:
        file = self.path(name)
        return file_digest(file) if file.exists() else None

    def read(self, name: str) -> Outlines:
        return read_outlines(self.path(name))

    def remove(self, name: str, labels: Iterable[int]) -> int:
        """Move outlines into a new file of removed ones; return how many were there."""
        outlines = self.read(name)
        is_wrong = np.isin([outline.label for outline in outlines], list(labels))
        if is_wrong.any():
            new = next(path for path in self._removed(name) if not path.exists())
            write_outlines(new, outlines[is_wrong])
            write_outlines(self.path(name), outlines[~is_wrong])
        return int(is_wrong.sum())

    def n_removed(self, name: str) -> int:
        files = itertools.takewhile(Path.exists, self._removed(name))
        return sum(len(read_outlines(file)) for file in files)

    def _removed(self, name: str) -> Iterator[Path]:
        return (self._folder / "removed" / f"{name}-{n}.tif" for n in itertools.count(1))

    def write_formats(self, name: str, table: pd.DataFrame, formats: Sequence[str]) -> None:
        """Write the outlines of a field in given formats, and those that the folder has."""
        for kind, suffix in _FORMATS.items():
            if not (kind in formats or (self._folder / kind).is_dir()):
                continue
            own: dict[str, Any] = {}
            if kind == "geojson":
                own = {"measures": table.drop(columns="particle")}
                own |= {"classes": table["class"].fillna("").tolist()} if "class" in table else {}
            write_outlines(self._folder / kind / f"{name}{suffix}", self.read(name), **own)
