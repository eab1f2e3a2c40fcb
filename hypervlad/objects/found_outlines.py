"""Outlines in a folder of found particles: its own, and those that people corrected elsewhere."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hypervlad.common.files import file_digest
from hypervlad.images.errors import ImageReadError
from hypervlad.images.files import list_files
from hypervlad.objects.outlines import (
    is_marked,
    is_of_outlines,
    outlines_of_fields,
    read_outlines,
    write_outlines,
)
from hypervlad.objects.particle import Outlines

if TYPE_CHECKING:
    import pandas as pd

_FORMATS = {"geojson": ".geojson", "roi": ".zip"}  # names of folders, and suffixes
_OWN = (".geojson", ".tif")  # of outlines in the folder; a label image has no overlaps or classes


class OutlineFiles:
    """The outlines of fields: a.tif and a.png are two."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._removed_folder = folder / "outlines", folder / "removed"

    def path(self, name: str) -> Path:
        polygons, labels = (self.folder / f"{name}{suffix}" for suffix in _OWN)
        return polygons if polygons.exists() else labels

    def digest(self, name: str) -> str | None:
        file = self.path(name)
        return file_digest(file) if file.exists() else None

    def read(self, name: str, shape: tuple[int, int] | None) -> Outlines:
        file = self.path(name)
        return read_outlines(file, shape=None if file.suffix == ".tif" else shape)

    def write(self, name: str, outlines: Outlines, pixel_size: float | None = None) -> None:
        """Write the outlines of a field, as polygons if a label image cannot contain them."""
        n_pixels = sum(np.count_nonzero(outline.mask) for outline in outlines)
        is_flat = n_pixels == np.count_nonzero(outlines.label_image())
        is_flat &= not any(each.class_name or each.given_name for each in outlines)
        polygons, labels = (self.folder / f"{name}{suffix}" for suffix in _OWN)
        chosen, other = (labels, polygons) if is_flat else (polygons, labels)
        write_outlines(chosen, outlines, pixel_size=pixel_size)
        other.unlink(missing_ok=True)

    def corrected(self, images: Path, taken: Mapping[str, str | None]) -> dict[str, Path]:
        """Return files of outlines that people have saved in other programs, by their fields.

        In the folder of outlines, or beside an image, where they must be younger than its outlines
        here. Those whose digest is that in `taken`, where all fields are, are known already. An
        `ImageReadError` if a field has two.
        """
        own = {self.folder / f"{name}{suffix}" for name in taken for suffix in _OWN}
        inside = [Path(file) for file in list_files(self.folder)] if self.folder.is_dir() else []
        inside = [file for file in inside if is_of_outlines(file) and file not in own]
        by_field = outlines_of_fields(taken, inside, self.folder)
        beside = list[Path]()
        for parent in {os.path.dirname(name) for name in taken}:
            folder = images / parent
            files = [Path(each) for each in os.scandir(folder)] if folder.is_dir() else []
            beside += [file for file in files if is_marked(file) and file.is_file()]
        # Files of images are not outlines, whatever they are called.
        beside = [file for file in beside if file.relative_to(images).as_posix() not in taken]
        for name, files in outlines_of_fields(taken, beside, images).items():
            before = self._age(name)
            by_field[name] += [file for file in files if file.stat().st_mtime_ns > before]
        found = dict[str, Path]()
        for name, files in by_field.items():
            new = [file for file in files if file_digest(file) != taken[name]]
            if len(new) > 1:
                raise ImageReadError(
                    f"{name}: two files of corrected outlines, {new[0]} and {new[1]}; keep one"
                )
            if new:
                found[name] = new[0]
        return found

    def _age(self, name: str) -> int:
        """Return when the outlines of a field were written, or the folder was begun."""
        run, own = self.folder.parent / "run.json", self.path(name)
        return (own if own.exists() else run).stat().st_mtime_ns

    def remove(self, name: str, outlines: Outlines, labels: Iterable[int]) -> int:
        """Move outlines of a field into a new file of removed ones; return how many were there."""
        is_wrong = np.isin([outline.label for outline in outlines], list(labels))
        if is_wrong.any():
            new = next(path for path in self._removed(name) if not path.exists())
            write_outlines(new, outlines[is_wrong])
            self.write(name, outlines[~is_wrong])
        return int(is_wrong.sum())

    def n_removed(self, name: str) -> int:
        files = itertools.takewhile(Path.exists, self._removed(name))
        return sum(len(read_outlines(file)) for file in files)

    def _removed(self, name: str) -> Iterator[Path]:
        return (self._removed_folder / f"{name}-{n}.tif" for n in itertools.count(1))

    def write_formats(
        self, name: str, outlines: Outlines, table: pd.DataFrame, formats: Sequence[str]
    ) -> None:
        """Write the outlines of a field in given formats, and those that the folder has."""
        for kind, suffix in _FORMATS.items():
            folder = self.folder.with_name(kind)
            if not (kind in formats or folder.is_dir()):
                continue
            own: dict[str, Any] = {}
            if kind == "geojson":
                own = {"measures": table.drop(columns="particle")}
                own |= {"classes": table["class"].fillna("").tolist()} if "class" in table else {}
            write_outlines(folder / f"{name}{suffix}", outlines, **own)
