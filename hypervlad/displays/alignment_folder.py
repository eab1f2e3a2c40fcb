"""The folder of `write_alignment`: tables that say at any time what is in it."""

from __future__ import annotations

import csv
import math
import time
import unicodedata
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from hypervlad.displays.alignment_found import AlignmentFound, AlignmentRecipe
from hypervlad.displays.alignment_table import (
    image_columns,
    image_row,
    region_columns,
    region_rows,
)
from hypervlad.displays.tables import table_as_bytes
from hypervlad.modelfile import replace_when_complete

MAPS, OVERLAYS, FIGURES = "maps", "overlays", "figures"
IMAGES_TABLE, REGIONS_TABLE = "alignment.csv", "regions.csv"
SECONDS_APART = 20.0  # between two writings of the tables: all that a power cut can cost
_MAP_KINDS = ("orientation", "coherence", "regions")

Row = Mapping[str, Any]


def map_files(folder: Path, name: str) -> dict[str, Path]:
    """Return where the maps of an image go, by their kinds."""
    return {kind: folder / MAPS / f"{name}.{kind}.tif" for kind in _MAP_KINDS}


def picture_files(folder: Path, name: str) -> dict[str, Path]:
    """Return where the pictures of an image go, by their kinds."""
    return {kind: folder / kind / f"{name}.png" for kind in (OVERLAYS, FIGURES)}


class AlignmentFolder:
    """Results of many images, entered for a ``with`` block in which they come in one by one.

    However the block ends, its tables are written and name every image whose files are there. Until
    it has ended well, that includes images of an earlier run that this one has not come to; then
    these go, files and lines. Only what an earlier table names is ever removed.

    Parameters
    ----------
    folder : Path
        Made if it is missing.
    recipe : AlignmentRecipe

    Raises
    ------
    ValueError
        If a table of that name is there already which is none of these.
    """

    def __init__(self, folder: Path, recipe: AlignmentRecipe) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.recipe = folder, recipe
        self._earlier = {row["path"]: row for row in _rows_of(folder / IMAGES_TABLE)}
        self._earlier_regions = list(_rows_of(folder / REGIONS_TABLE))
        if self._earlier_regions and not self._earlier:
            raise _foreign(folder / REGIONS_TABLE)
        self._images: dict[str, Row] = {}
        self._regions: list[Row] = []
        self._written = time.monotonic()

    def __enter__(self) -> AlignmentFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: object, _trace: TracebackType | None
    ) -> None:
        if not self._images:
            return
        stale = [] if kind else [name for name in self._earlier if name not in self._images]
        for name in stale:
            del self._earlier[name]
        self._write_tables()
        self._remove_all(stale)

    def add(self, name: str, found: AlignmentFound, files: Collection[Path]) -> None:
        """Take up an image whose files are there, all that it has."""
        self._images[name] = dict(
            zip(image_columns(self.recipe), image_row(name, found, self.recipe), strict=True)
        )
        columns = region_columns()
        self._regions += [dict(zip(columns, row, strict=True)) for row in region_rows(name, found)]
        if self._earlier.pop(name, None) is not None:
            self._remove(path for path in self._files_of(name) if path not in files)
        if time.monotonic() - self._written >= SECONDS_APART:
            self._write_tables()

    def _write_tables(self) -> None:
        kept = [row for row in self._earlier_regions if row["path"] in self._earlier]
        rows = [*self._images.values(), *self._earlier.values()]
        _write_table(self.folder / IMAGES_TABLE, image_columns(self.recipe), rows)
        _write_table(self.folder / REGIONS_TABLE, region_columns(), [*self._regions, *kept])
        self._written = time.monotonic()

    def _remove_all(self, names: Sequence[str]) -> None:
        # Where a disk takes A and a for one name, what is there is this run's.
        own = {_folded(name) for name in self._images}
        gone = [name for name in names if _is_below(name) and _folded(name) not in own]
        self._remove(path for name in gone for path in self._files_of(name))
        if gone:
            images = gone[0] if len(gone) == 1 else f"{len(gone)} images, such as {gone[0]}"
            warnings.warn(
                f"{self.folder}: removed what an earlier run found in {images}: this run has no "
                "results of it.",
                stacklevel=4,
            )

    def _files_of(self, name: str) -> Iterator[Path]:
        yield from map_files(self.folder, name).values()
        yield from picture_files(self.folder, name).values()

    def _remove(self, paths: Iterator[Path]) -> None:
        for path in paths:
            if path.is_file():
                path.unlink()
                self._remove_empty(path.parent)

    def _remove_empty(self, folder: Path) -> None:
        while folder != self.folder and not any(folder.iterdir()):
            folder.rmdir()
            folder = folder.parent


def _rows_of(path: Path) -> Iterator[dict[str, str]]:
    """Yield the lines of a table that an earlier run has left."""
    if not path.is_file():
        return
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as stream:
            rows = list(csv.DictReader(stream, restval="", strict=True))
    except csv.Error:
        rows = [{}]
    for row in rows:
        if not row.get("path") or None in row:
            raise _foreign(path)
    yield from rows


def _foreign(path: Path) -> ValueError:
    return ValueError(
        f"{path} is no table of an earlier run, and would be overwritten; choose another folder."
    )


def _is_below(name: str) -> bool:
    """Whether a name, which anybody may have written into a table, stays within its folder."""
    path = Path(name)
    return not (path.is_absolute() or path.drive or ".." in path.parts)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _write_table(path: Path, columns: Sequence[str], rows: Sequence[Row]) -> None:
    header = dict.fromkeys([*columns, *(column for row in rows for column in row)])
    lines = [[_cell(row.get(column)) for column in header] for row in rows]
    with replace_when_complete(path) as stream:
        stream.write(table_as_bytes(list(header), lines))


def _cell(value: Any) -> Any:
    """What is not known is empty; six digits are more than an angle or a share is good for."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value
