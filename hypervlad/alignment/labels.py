"""What is known of training images: which of their windows are aligned."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.classifier.validation import of_length
from hypervlad.defects.truth import MIXED
from hypervlad.fibres import aligned_fraction
from hypervlad.fibres.lattice import Lattice
from hypervlad.images import ImageReadError, ReadOptions, read_mask
from hypervlad.images.masks import mask_rows
from hypervlad.images.outcomes import name_of
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
            _check_value(value, name_of(images[position], position))
        return cls(images, values, options)

    def of_windows(self, position: int, lattice: Lattice) -> NDArray[np.str_]:
        """Return the labels (n,) of an image's windows, row by row.

        Unknown where less than half of a window is known, and in the background, where there is
        nothing to be aligned.
        """
        name = name_of(self.images[position], position)
        grey = grey_of(self.images[position], self.options, name)
        where = self._map(position, grey.shape, name)
        known = np.isfinite(where)
        n_known = lattice.sums(known)
        share = lattice.sums(np.where(known, where, 0)) / np.maximum(n_known, 1)
        labels = np.where(share >= 0.5, ALIGNED, NOT_ALIGNED)
        unknown = n_known < _LEAST_KNOWN * lattice.areas
        labels[unknown | _background(grey, lattice, name)] = UNKNOWN
        return labels.ravel()

    def _map(self, position: int, shape: tuple[int, ...], name: str) -> NDArray[np.float64]:
        value = self.y[position]
        label = _label_of(value)
        if label is not None:
            return np.full(shape, label)
        height, width = shape
        try:
            if _has_holes(value):
                return _with_holes(np.asarray(value, dtype=np.float64), (height, width))
            rows = mask_rows(self.options)
            return read_mask(value, shape=(height, width), banner_rows=rows).astype(np.float64)
        except ImageReadError as error:
            raise ImageReadError(f"the map (y) of {name}: {error}") from error


def grey_of(image: Any, options: ReadOptions, name: str) -> NDArray[np.float32]:
    """Read an image with nothing clipped, of colours their mean."""
    pixels = read_named(image, replace(options, scaling="minmax"), name).pixels
    return pixels if pixels.ndim == 2 else pixels.mean(axis=2)


def check_both_kinds(labels: NDArray[np.str_]) -> None:
    """Raise a ValueError unless windows of both kinds are known."""
    for kind in (ALIGNED, NOT_ALIGNED):
        if kind not in labels:
            raise ValueError(
                f"no window is {kind} by the labels (y), of {len(labels)} that are known and show "
                "fibres: these have one class only, and two are needed. In a map, white (1, True) "
                "is aligned"
            )


def _background(grey: NDArray[np.float32], lattice: Lattice, name: str) -> NDArray[np.bool_]:
    window = round(float(np.mean([*np.diff(lattice.rows), *np.diff(lattice.columns)])))
    try:
        return aligned_fraction(grey, window=window).background
    except ValueError as error:
        raise ImageReadError(f"{name}: {error}") from error


def _label_of(value: Any) -> float | None:
    """Return 1 or 0 for a label of a whole image, None for a map."""
    if isinstance(value, bool | np.bool_):
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


def _has_holes(value: Any) -> bool:
    return not isinstance(value, str | os.PathLike) and bool(
        np.asarray(value).dtype.kind == "f" and np.isnan(np.asarray(value)).any()
    )


def _with_holes(values: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Check a map with unknown pixels: 0, 1 and not-a-number."""
    filled = read_mask(np.where(np.isnan(values), 0, values), shape=shape).astype(np.float64)
    filled[np.isnan(values)] = np.nan
    return filled
