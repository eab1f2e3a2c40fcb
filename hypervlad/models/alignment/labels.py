"""Labels of the windows of training images: aligned, not aligned, or unknown."""

from __future__ import annotations

import numbers
import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.evaluation.splits import check_column
from hypervlad.features.windows.dataset import UNKNOWN, PreparedImage
from hypervlad.fibres.alignment import background_windows
from hypervlad.fibres.regions import TileGrid
from hypervlad.images import ImageReadError, ReadOptions, read_mask
from hypervlad.images.masks import mask_banner_rows
from hypervlad.images.reading import image_name, read_named
from hypervlad.models.classifier.fitting import of_length

ALIGNED, NOT_ALIGNED = "aligned", "not aligned"
_LABELS = {ALIGNED: 1.0, NOT_ALIGNED: 0.0}
_MIN_KNOWN = 0.5  # share of a window


@dataclass(frozen=True, eq=False)
class AlignmentLabels:
    """For each training image a label or a map, from which its windows are labelled."""

    y: list[Any]
    options: ReadOptions

    @classmethod
    def check(cls, images: list[Any], y: Any, options: ReadOptions) -> AlignmentLabels:
        """Check the user's labels and maps."""
        if y is None:
            raise ValueError(
                "this classifier requires y to be passed, but the target y is None: give for each "
                f"image {ALIGNED!r} or {NOT_ALIGNED!r}, or a map of where it is aligned"
            )
        check_column("y", y)
        values = list(y)
        of_length("labels or maps (y)", np.empty(len(values)), len(images))
        for position, value in enumerate(values):
            _check_value(value, image_name(images[position], position))
        return cls(values, options)

    def of_windows(self, position: int, image: PreparedImage, window: int) -> NDArray[np.str_]:
        """Return the labels (n,) of the windows of the image at a position, row by row.

        Unknown where less than half of a window is known, and where there are no fibres.
        """
        assert image.converted is not None
        tiles = TileGrid.over(image.shape, window)
        truth = self._map(self.y[position], image)
        known = np.isfinite(truth)
        n_known = tiles.sums(known)
        share = tiles.sums(np.where(known, truth, 0)) / np.maximum(n_known, 1)
        labels = np.where(share >= 0.5, ALIGNED, NOT_ALIGNED)
        background = background_windows(image.converted, window)
        labels[(n_known < _MIN_KNOWN * tiles.areas) | background] = UNKNOWN
        return labels.ravel()

    def _map(self, value: Any, image: PreparedImage) -> NDArray[np.float64]:
        label = _label_of(value)
        if label is not None:
            return np.full(image.shape, label)
        try:
            return _read_map(value, image.shape, mask_banner_rows(self.options))
        except ImageReadError as error:
            raise ImageReadError(f"the map (y) of {image.name}: {error}") from error


def read_grey(image: Any, options: ReadOptions, name: str) -> NDArray[np.float32]:
    """Read an image in grey, scaled to [0, 1] without clipping; colours are averaged."""
    pixels = read_named(image, replace(options, scaling="minmax"), name).pixels
    grey: NDArray[np.float32] = pixels if pixels.ndim == 2 else pixels.mean(axis=2)
    if not grey.min() < grey.max():
        raise ImageReadError(f"{name}: the image is flat, so nothing is aligned; leave it out")
    return grey


def check_both_classes(labels: NDArray[np.str_]) -> None:
    for name in (ALIGNED, NOT_ALIGNED):
        if name not in labels:
            raise ValueError(
                f"the labelled windows with fibres are of one class: none of {len(labels)} is "
                f"{name!r} according to y, and windows of both classes are needed. In a map, "
                "white (1, True) is aligned"
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
    """Return a map of 0, 1 and, where nothing is known, NaN."""
    if isinstance(value, str | os.PathLike) or np.asarray(value).dtype.kind != "f":
        return read_mask(value, shape=shape, banner_rows=rows).astype(np.float64)
    values = np.asarray(value)
    unknown = read_mask(np.isnan(values), shape=shape, banner_rows=rows)
    filled = read_mask(np.nan_to_num(values), shape=shape, banner_rows=rows).astype(np.float64)
    filled[unknown] = np.nan
    return filled
