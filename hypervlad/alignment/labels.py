"""What is known of training images: which of their windows are aligned."""

from __future__ import annotations

import numbers
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.classifier.validation import of_length
from hypervlad.defects.truth import MIXED
from hypervlad.fibres import aligned_fraction
from hypervlad.fibres.tiles import TileGrid
from hypervlad.images import ImageReadError, ReadOptions, read_mask
from hypervlad.images.errors import image_name
from hypervlad.images.masks import mask_banner_rows
from hypervlad.images.reading import read_named

ALIGNED, NOT_ALIGNED, UNKNOWN = "aligned", "not aligned", MIXED
_LABELS = {ALIGNED: 1.0, NOT_ALIGNED: 0.0}
_LEAST_KNOWN = 0.5  # of a window


@dataclass(frozen=True, eq=False)
class WindowLabels:
    """Labels of the windows of training images.

    Attributes
    ----------
    images : list of paths and arrays
    y : list
        For each image a label of all of it, or a map.
    options : ReadOptions
        How images are read.
    """

    images: list[Any]
    y: list[Any]
    options: ReadOptions

    @classmethod
    def of(cls, images: list[Any], y: Any, options: ReadOptions) -> WindowLabels:
        """Check what the user gave.

        Raises
        ------
        ValueError
            If there is no y, or not one value for each image, or one that is neither label nor map.
        """
        if y is None:
            raise ValueError(
                "this classifier requires y to be passed, but the target y is None: give for each "
                f"image {ALIGNED!r} or {NOT_ALIGNED!r}, or a map of where it is aligned"
            )
        if isinstance(y, str | bytes) or not isinstance(y, Sequence | np.ndarray):
            raise ValueError(f"y is a list, one label or map for each image; got {y!r}")
        values = list(y)
        of_length("labels or maps (y)", np.empty(len(values)), len(images))
        for position, value in enumerate(values):
            _check_value(value, image_name(images[position], position))
        return cls(images, values, options)

    def of_windows(self, position: int, window: int) -> NDArray[np.str_]:
        """Return the labels (n,) of an image's windows side by side, row by row.

        Unknown where less than half of a window is known, and in the background, where there is
        nothing to be aligned.
        """
        name = image_name(self.images[position], position)
        grey = grey_of(self.images[position], self.options, name)
        lattice = TileGrid.over(grey.shape, window)
        where = self._map(position, grey.shape, name)
        known = np.isfinite(where)
        n_known = lattice.sums(known)
        share = lattice.sums(np.where(known, where, 0)) / np.maximum(n_known, 1)
        labels = np.where(share >= 0.5, ALIGNED, NOT_ALIGNED)
        unknown = n_known < _LEAST_KNOWN * lattice.areas
        labels[unknown | aligned_fraction(grey, window=window).background] = UNKNOWN
        return labels.ravel()

    def _map(self, position: int, shape: tuple[int, ...], name: str) -> NDArray[np.float64]:
        value = self.y[position]
        label = _label_of(value)
        if label is not None:
            return np.full(shape, label)
        try:
            return _read_map(value, (shape[0], shape[1]), mask_banner_rows(self.options))
        except ImageReadError as error:
            raise ImageReadError(f"the map (y) of {name}: {error}") from error


def grey_of(image: Any, options: ReadOptions, name: str) -> NDArray[np.float32]:
    """Read an image, from 0 to 1 with nothing clipped; of colours their mean.

    Raises
    ------
    ImageReadError
        If it cannot be read, or is flat.
    """
    pixels = read_named(image, replace(options, scaling="minmax"), name).pixels
    grey: NDArray[np.float32] = pixels if pixels.ndim == 2 else pixels.mean(axis=2)
    if not grey.min() < grey.max():
        raise ImageReadError(f"{name}: the image is flat, so nothing is aligned; leave it out")
    return grey


def check_both_kinds(labels: NDArray[np.str_]) -> None:
    """Raise a ValueError unless windows of both kinds are known."""
    for kind in (ALIGNED, NOT_ALIGNED):
        if kind not in labels:
            raise ValueError(
                f"no window is {kind} by the labels (y), of {len(labels)} that are known and show "
                "fibres: these have one class only, and two are needed. In a map, white (1, True) "
                "is aligned"
            )


def _label_of(value: Any) -> float | None:
    """Return 1 or 0 for a label of a whole image, None for anything else."""
    if isinstance(value, bool | np.bool_ | numbers.Integral) and value in (0, 1):
        return float(value)
    return _LABELS.get(value) if isinstance(value, str) else None


def _check_value(value: Any, name: str) -> None:
    if _label_of(value) is not None or np.ndim(value) == 2:
        return
    if isinstance(value, str | os.PathLike):
        if os.path.isfile(value):
            return
        raise ImageReadError(
            f"y of {name} is {os.fspath(value)!r}: expected {ALIGNED!r}, {NOT_ALIGNED!r}, or the "
            "path of a map; there is no such file"
        )
    raise ValueError(
        f"y of {name}: expected {ALIGNED!r}, {NOT_ALIGNED!r}, True, False, the path of a map, or a "
        f"map of shape (H, W); got {type(value).__name__} of shape {np.shape(value)}"
    )


def _read_map(value: Any, shape: tuple[int, int], rows: int | None) -> NDArray[np.float64]:
    """Return a map of 0, 1 and, where it is not known, not-a-number."""
    if isinstance(value, str | os.PathLike) or np.asarray(value).dtype.kind != "f":
        return read_mask(value, shape=shape, banner_rows=rows).astype(np.float64)
    values = np.asarray(value)
    unknown = read_mask(np.isnan(values), shape=shape, banner_rows=rows)
    filled = read_mask(np.nan_to_num(values), shape=shape, banner_rows=rows).astype(np.float64)
    filled[unknown] = np.nan
    return filled
