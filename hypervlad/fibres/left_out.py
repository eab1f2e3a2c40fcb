"""What a person has left out: places of diameters, single fibres and pores, marked by points."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from hypervlad.common.constraints import check_points
from hypervlad.common.tables import number_in_table
from hypervlad.fibres.contrast import Values
from hypervlad.objects.particle import warn_of_missing

CHOICE = ("path", "x_px", "y_px")
_NEAR = 1.0  # pixels from a point to the place that it marks; tables have two digits


def read_left_out(path: str | os.PathLike[str]) -> dict[str, Values]:
    """Read what a person has left out, such as the table that the page of diameters saves.

    Parameters
    ----------
    path : path of a .csv file
        With the columns path, x_px and y_px.

    Returns
    -------
    dict of ndarray of float64, shape (n, 2)
        Row and column of the points of each image, by its path in the table: `leave_out` of
        `fibre_diameters`, `find_fibres` and `find_pores`.

    Raises
    ------
    ValueError
        If it is no such table.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from hypervlad.fibres import read_left_out
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = pathlib.Path(folder, "choice.csv")
    ...     _ = table.write_text("path,x_px,y_px\\nmats/a.tif,120,40.5\\n")
    ...     read_left_out(table)
    {'mats/a.tif': array([[ 40.5, 120. ]])}
    """
    from hypervlad.folders.groups import read_separated  # not above: importing it takes long

    separator, lines = read_separated(Path(path), ", ".join(CHOICE))
    (_, header), *lines = lines or [(0, [])]
    found = defaultdict[str, list[tuple[float, float]]](list)
    try:
        columns = [header.index(name) for name in CHOICE]
        for _, cells in lines:
            name, x, y = (cells[column] for column in columns)
            row, column = (float(number_in_table(text, separator)) for text in (y, x))
            found[name].append((row, column))
    except (ValueError, IndexError) as error:
        raise ValueError(
            f"{os.fspath(path)}: expected a table with the columns {', '.join(CHOICE)}, as the "
            f"page saves it ({error})"
        ) from error
    return {name: np.array(points) for name, points in found.items()}


def marked_places(positions: Values, points: ArrayLike | None, name: str) -> NDArray[np.bool_]:
    """Return which positions (n, 2) are next to a point; a warning counts points without one."""
    is_marked, own = np.zeros(len(positions), bool), check_points("leave_out", points)
    distance = np.full(len(own), np.inf)
    if len(own) and len(positions):
        distance, nearest = cKDTree(positions).query(own)
        is_marked[nearest[distance <= _NEAR]] = True
    warn_of_missing(name, own[distance > _NEAR], "those measured")
    return is_marked
