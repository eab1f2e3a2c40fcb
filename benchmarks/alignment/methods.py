"""Ways to measure the aligned fraction, and what is kept of their answers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from benchmarks.alignment.published import orientationj, unit_gradients
from benchmarks.alignment.scenes import training_images
from hypervlad.datasets import NanowireTruth
from hypervlad.fibres import (
    AlignedFraction,
    aligned_fraction,
    aligned_fraction_of_map,
    axial_difference,
    local_orientation,
)
from hypervlad.fibres.alignment import (
    DEFAULT_MIN_FIBRE,
    DEFAULT_TOLERANCE,
    WindowSums,
    classify_windows,
)
from hypervlad.fibres.tiles import TileGrid

Way: TypeAlias = Callable[[np.ndarray, int], AlignedFraction]
SIGMA = 1.75  # the default of `aligned_fraction`: all masks are of this scale
# Chosen in OrientationJ's favour, of 1 to 3.5 px on images of other seeds: best over all of them,
# though worse than the default's where there is no noise.
WIDE_SIGMA = 3.5
LEARNED = "learned"
#: The scales of the maps of directions, pixels: the default's, a third of a wire's mean width.
ORIENTATION_SIGMAS = (SIGMA, 2.5)
FAR_OFF = float(np.deg2rad(10))


def all_ways(n_training: int) -> dict[str, Way]:
    """Return every way by its name: image and window to what is aligned."""
    return {
        "structure_tensor": by_structure_tensor,
        "lgo": by_lgo,
        LEARNED: Learned(n_training),
        "orientationj": functools.partial(by_orientationj, sigma=SIGMA),
        "orientationj_wide": functools.partial(by_orientationj, sigma=WIDE_SIGMA),
        "fibriltool": by_fibriltool,
    }


def by_structure_tensor(image: np.ndarray, window: int) -> AlignedFraction:
    return aligned_fraction(image, "structure_tensor", window=window)


def by_lgo(image: np.ndarray, window: int) -> AlignedFraction:
    return aligned_fraction(image, "lgo", window=window)


def by_orientationj(image: np.ndarray, window: int, *, sigma: float) -> AlignedFraction:
    """Judge OrientationJ's directions, weighted by their coherency as in its distribution."""
    found = orientationj(as_8_bit(image), sigma)
    orientation = np.where(mask_of(image), found.orientation, np.nan)
    return aligned_fraction_of_map(orientation, found.coherency, window)


def by_fibriltool(image: np.ndarray, window: int) -> AlignedFraction:
    """Judge FibrilTool's anisotropy: the length of the mean of the doubled directions."""
    x, y, kept = unit_gradients(as_8_bit(image))
    lattice = TileGrid.over(image.shape, window)
    # Gradients run across fibrils, at the opposite doubled angle.
    axes = lattice.sums(-((x + 1j * y) ** 2))
    sums = WindowSums(axes, lattice.sums(kept), lattice.sums(mask_of(image)))
    return classify_windows(sums, lattice, window, DEFAULT_TOLERANCE, DEFAULT_MIN_FIBRE)


class Learned:
    """A classifier of windows, learnt for each size of windows when that is first asked for.

    Parameters
    ----------
    n_training : int
        Images to learn from, none of which is in a set.
    """

    def __init__(self, n_training: int) -> None:
        self.n_training = n_training
        self._models: dict[int, Any] = {}

    def __call__(self, image: np.ndarray, window: int) -> AlignedFraction:
        return aligned_fraction(image, self.model(window), window=window)

    def model(self, window: int) -> Any:
        if window not in self._models:
            from hypervlad.alignment import AlignmentClassifier

            images, truths = self._examples
            maps = [truth.aligned_map(window) for truth in truths]
            model = AlignmentClassifier(window=window, random_state=0)
            self._models[window] = model.fit(images, maps)
        return self._models[window]

    @functools.cached_property
    def _examples(self) -> tuple[list[np.ndarray], list[NanowireTruth]]:
        return training_images(self.n_training)


def mask_of(image: np.ndarray) -> np.ndarray:
    """Return what is fibre to the structure tensor: to all ways but "lgo", which has its own."""
    return local_orientation(image, SIGMA).mask


def as_8_bit(image: np.ndarray) -> np.ndarray:
    """Return an image in whole grey levels, the darkest 0, the brightest 255."""
    low, high = float(image.min()), float(image.max())
    return np.rint((image.astype(np.float64) - low) * (255 / (high - low)))


def answers(
    way: Way, image: np.ndarray, truth: NanowireTruth, windows: Sequence[int]
) -> dict[str, Any]:
    """Return what a way says of an image, and of how many windows it is right.

    Returns
    -------
    dict
        By size of windows: the fraction (None if all is background), the share of the windows that
        are not background in truth about which it is right (None without any), and the share of
        all windows that it takes for background.
    """
    kept: dict[str, Any] = {"fraction": {}, "right": {}, "background": {}}
    for window in windows:
        said, known = way(image, window), truth.aligned_fraction(window)
        judged_rightly = (said.aligned == known.aligned)[~known.background]
        kept["fraction"][str(window)] = _number(said.fraction)
        kept["right"][str(window)] = _number(judged_rightly.mean()) if judged_rightly.size else None
        kept["background"][str(window)] = _number(said.background.mean())
    return kept


def true_fractions(truth: NanowireTruth, windows: Sequence[int]) -> dict[str, Any]:
    """Return the true fraction by size of windows, as `answers` has it."""
    return {str(window): _number(truth.aligned_fraction(window).fraction) for window in windows}


def orientation_errors(image: np.ndarray, truth: NanowireTruth) -> dict[str, Any]:
    """Return how far directions are off, on pixels that are wire in truth and to our mask."""
    grey = as_8_bit(image)
    errors: dict[str, Any] = {}
    for sigma in ORIENTATION_SIGMAS:
        found = local_orientation(image, sigma)
        by_way = {
            "structure_tensor": found.orientation,
            "lgo": local_orientation(image, sigma, method="lgo").orientation,
            "orientationj": orientationj(grey, sigma).orientation,
        }
        errors[f"{sigma:g}"] = {
            name: _off(along, truth, found.mask) for name, along in by_way.items()
        }
    return errors


def _off(along: np.ndarray, truth: NanowireTruth, mask: np.ndarray) -> dict[str, Any]:
    seen = truth.wires & mask
    apart = axial_difference(along[seen], truth.orientation[seen])
    return {
        "median": _number(np.rad2deg(np.median(apart))),
        "upper": _number(np.rad2deg(np.quantile(apart, 0.9))),
        "far_off": _number((apart > FAR_OFF).mean()),
        "lost": _number(1 - seen.sum() / truth.wires.sum()),
    }


def _number(value: float) -> float | None:
    return round(float(value), 5) if np.isfinite(value) else None
