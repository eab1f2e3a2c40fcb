"""The table of pixel sizes that ``hypervlad scale`` writes, or a person."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from hypervlad.common.progress import by_reader
from hypervlad.common.tables import number_in_table
from hypervlad.common.wording import counted, name_some, verb, warn_user
from hypervlad.folders.groups import ImageFolderError, ImageFolderWarning, file_at, read_separated
from hypervlad.images import PixelSizes
from hypervlad.images.metadata import are_plausible

#: The column of pixel sizes by labels that were read, and not accepted.
PROPOSED = "proposed_pixel_size"
BAR = "bar_length_px", "bar_error_px"
_EXPECTED = "path and pixel_size"


def load_pixel_sizes(
    table: str | os.PathLike[str], images: Sequence[str | os.PathLike[str]] | None = None
) -> PixelSizes:
    """Read a table of pixel sizes; no image is opened.

    Parameters
    ----------
    table : path
        CSV file with the columns ``path`` (relative to the table) and ``pixel_size`` (nanometres
        per pixel; empty if not known), as ``hypervlad scale`` writes it. Its ``bar_length_px`` and
        ``bar_error_px`` say how precise a size is, unless ``source`` is "metadata".
    images : sequence of paths, optional
        Images that are used: a warning if the table has the pixel size of none.

    Returns
    -------
    PixelSizes
        For ``pixel_size`` of :class:`hypervlad.images.ReadOptions` and :func:`hypervlad.load`.

    Raises
    ------
    ImageFolderError
        A ValueError: no such table, a column is missing, a pixel size is no number between 1 pm and
        1 mm, a file has two, or none of the files exists.

    Warns
    -----
    ImageFolderWarning
        If some files do not exist, pixel sizes are only proposed, or none of `images` has one.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from hypervlad.data import load_pixel_sizes
    >>> with tempfile.TemporaryDirectory() as root:
    ...     pathlib.Path(root, "a.png").touch()
    ...     _ = pathlib.Path(root, "sizes.csv").write_text("path,pixel_size\\na.png,2.5\\n")
    ...     load_pixel_sizes(f"{root}/sizes.csv").of(f"{root}/a.png")
    2.5
    """
    path = Path(table).expanduser()
    separator, lines = read_separated(path, _EXPECTED)
    header = [cell.strip().lower() for cell in lines[0][1]] if lines else []
    if not {"path", "pixel_size"} <= set(header):
        columns = ", ".join(header) or "none"
        raise ImageFolderError(f"{path}: its columns are {columns}; expected {_EXPECTED}.")
    n_proposed = 0
    of_path, of_size = header.index("path"), header.index("pixel_size")
    sizes, errors = (dict[str | os.PathLike[str], float]() for _ in range(2))
    first = dict[str, tuple[int, float | None]]()  # by the real path: line and size
    missing = []
    for line, cells in lines[1:]:
        cells += [""] * (len(header) - len(cells))
        name, where = cells[of_path].strip(), f"{path}, line {line}"
        if not name:
            raise ImageFolderError(f"{where}: no path. Give each line one, or delete it.")
        size = _nanometres(cells[of_size].strip(), separator, where)
        file = file_at(path.parent, cells[of_path])
        if not os.path.exists(file):
            missing.append(f"{name} (line {line})")
        before, known = first.setdefault(os.path.realpath(file), (line, size))
        if known != size:
            raise ImageFolderError(
                f"{where}: {name} has another pixel size in line {before}; delete one of them."
            )
        if size is not None:
            sizes[file] = size
            cell = dict(zip(header, cells, strict=False))
            bar = [cell.get(name, "").strip() for name in BAR]
            if cell.get("source") != "metadata" and all(bar):
                try:
                    length, error = (float(number_in_table(each, separator)) for each in bar)
                    if not 0 <= 2 * error < length:
                        raise ValueError
                    errors[file] = 2 * error / length
                except ValueError:
                    raise ImageFolderError(
                        f"{where}: {bar} are no length of a bar and its error, in pixels."
                    ) from None
        elif PROPOSED in header and cells[header.index(PROPOSED)].strip():
            n_proposed += 1
    where = f"Paths are relative to the folder of the table, {path.absolute().parent}."
    n = len(missing)
    if n == len(lines) - 1:
        raise ImageFolderError(f"{path}: no line is of a file that exists. {where}")
    if missing:
        warn_user(
            f"{path}: {counted(n, 'line')} {verb(n, 'is', 'are')} of no file that exists: "
            f"{name_some(missing)}. {where}",
            ImageFolderWarning,
        )
    if n_proposed:
        warn_user(
            f"{path}: {counted(n_proposed, 'pixel size')} {verb(n_proposed, 'is', 'are')} only "
            "proposed, and not used: check the labels on the page of 'hypervlad scale', then "
            "repeat that command with --accept-labels.",
            ImageFolderWarning,
        )
    found = PixelSizes(sizes, errors)
    is_own = by_reader("", "page")  # which has the sizes of all images that people have given
    if images and not is_own and not any(map(found.of, images)):
        warn_user(
            f"{path}: has the pixel size of none of the {counted(len(images), 'image')}. {where}",
            ImageFolderWarning,
        )
    return found


def _nanometres(cell: str, separator: str, where: str) -> float | None:
    """Return a number, with a decimal comma only where commas do not separate the cells."""
    if not cell:
        return None
    try:
        size = float(number_in_table(cell, separator))
    except ValueError:
        size = math.nan
    if not are_plausible((size, size)):
        raise ImageFolderError(
            f"{where}: {cell!r} is no pixel size; expected nanometres per pixel, a number such as "
            "2.5, or nothing if it is not known."
        )
    return size
