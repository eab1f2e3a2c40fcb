"""The images that an extraction has met, as they were, and whether they are the same still."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hypervlad.extraction.sources import Item
from hypervlad.extraction.table import beside, described, description
from hypervlad.images import SkippedImage
from hypervlad.modelfile import replace_when_complete

_SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("path", "label", "digest", "name", "reason")),
        *(pa.field(name, pa.int64()) for name in ("size", "time")),
    ]
)
_ROWS = 10_000  # written at once


@dataclass(frozen=True)
class Met:
    """One image as it was met.

    Attributes
    ----------
    path, label : str or None
        As in the table of features.
    digest : str or None
        None if the image could not be read.
    name, reason : str or None
        What errors called such an image, and why.
    size, time : int or None
        Of a file, before it was read: bytes, and when it was changed (ns).
    """

    path: str | None
    label: str | None
    digest: str | None
    name: str | None
    reason: str | None
    size: int | None
    time: int | None


@dataclass(frozen=True)
class Comparison:
    """How images are compared with those that were met.

    Attributes
    ----------
    digest_now : callable
        Reads an image; returns its digest, or None if it cannot be read.
    verify : bool
        Read all files, although size and time have not changed.
    """

    digest_now: Callable[[Any], str | None]
    verify: bool

    def unchanged(self, items: list[Item], met: list[Met]) -> bool:
        """Say whether images are those that were met, and as they were.

        Files are compared by size and time. Arrays are read again, and so are files that could not
        be read: what failed once may have been the share, not the file.
        """
        return len(items) == len(met) and all(map(self._is_same, items, met))

    def _is_same(self, item: Item, was: Met) -> bool:
        if (item.path, item.label) != (was.path, was.label):
            return False
        if item.path is not None and item.stamp() != (was.size, was.time):
            return False
        is_known = item.path is not None and was.digest is not None and not self.verify
        return is_known or self.digest_now(item.image) == was.digest


def skipped_of(met: Iterable[Met], start: int) -> list[SkippedImage]:
    """Return the images that could not be read, with positions counted from ``start``."""
    return [
        SkippedImage(position, was.name or "image", was.reason)
        for position, was in enumerate(met, start)
        if was.reason is not None
    ]


# --- beside the file of features ------------------------------------------------------------------


def place_of(output: Path) -> Path:
    """Return where it is kept which images a file of features was made from."""
    return beside(output, "images")


@contextlib.contextmanager
def keeping(output: Path, facts: dict[str, Any]) -> Iterator[Callable[[list[Met]], None]]:
    """Write the images that a file was made from beside it; not into it, because times are in here.

    Yields
    ------
    callable
        Takes some images more.
    """
    waiting: list[Met] = []
    with (
        replace_when_complete(place_of(output)) as stream,
        pq.ParquetWriter(stream, described(_SCHEMA, facts), compression="zstd") as writer,
    ):

        def write() -> None:
            rows = [vars(met) for met in waiting]
            writer.write_table(pa.Table.from_pylist(rows, described(_SCHEMA, facts)))
            waiting.clear()

        def keep(met: list[Met]) -> None:
            waiting.extend(met)
            if len(waiting) >= _ROWS:
                write()

        yield keep
        write()


def kept(output: Path, facts: dict[str, Any]) -> list[Met] | None:
    """Return the images that a file was made from; None if nobody knows, or the facts differ."""
    place = place_of(output)
    try:
        table = pq.read_table(place)
        if description(table.schema, place) != facts:
            return None
        return [Met(**row) for row in table.to_pylist()]
    except (pa.ArrowException, OSError, ValueError, TypeError):
        return None


def forget(output: Path) -> None:
    """Remove what is kept of an earlier file."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(place_of(output))
