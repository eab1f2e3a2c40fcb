"""Methods that measure the aligned fraction, and the part of their answers that is stored."""

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
from hypervlad.fibres.alignment import DEFAULT_TOLERANCE, WindowSums, classify_windows
from hypervlad.fibres.tiles import TileGrid

Method: TypeAlias = Callable[[np.ndarray, int], AlignedFraction]
SIGMA = 1.75  # the default of `aligned_fraction`; all masks have this scale
# Chosen in favour of OrientationJ, from 1 to 3.5 px on images of other seeds: the best on average,
# though worse than the default without noise.
WIDE_SIGMA = 3.5
LEARNED = "learned"
#: Scales of the direction maps in pixels: the default, and a third of the mean width of a wire.
ORIENTATION_SIGMAS = (SIGMA, 2.5)
LARGE_ERROR = float(np.deg2rad(10))


def all_methods(n_training: int) -> dict[str, Method]:
    """Return every method by its name, as a function of an image and a window size."""
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
    """Apply the rule to OrientationJ's directions, weighted by coherency as in its distribution."""
    found = orientationj(as_8_bit(image), sigma)
    orientation = np.where(mask_of(image), found.orientation, np.nan)
    return aligned_fraction_of_map(orientation, found.coherency, window)


def by_fibriltool(image: np.ndarray, window: int) -> AlignedFraction:
    """Apply the rule to FibrilTool's anisotropy, the length of the mean doubled direction."""
    x, y, kept = unit_gradients(as_8_bit(image))
    tiles = TileGrid.over(image.shape, window)
    # Gradients run across fibrils, at the opposite doubled angle.
    axes = tiles.sums(-((x + 1j * y) ** 2))
    sums = WindowSums(axes, tiles.sums(kept), tiles.sums(mask_of(image)))
    return classify_windows(sums, tiles, window, DEFAULT_TOLERANCE)


class Learned:
    """A classifier of windows, trained for each window size when it is first used.

    Parameters
    ----------
    n_training : int
        Training images, none of which is in a set.
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
    """Return the structure tensor's mask of fibres; "lgo" has its own, all others use this one."""
    return local_orientation(image, SIGMA).mask


def as_8_bit(image: np.ndarray) -> np.ndarray:
    """Return an image in integer grey levels from 0 (darkest) to 255 (brightest)."""
    low, high = float(image.min()), float(image.max())
    return np.rint((image.astype(np.float64) - low) * (255 / (high - low)))


def answers(
    method: Method, image: np.ndarray, truth: NanowireTruth, windows: Sequence[int]
) -> dict[str, Any]:
    """Return the answers of a method for an image, and how many windows it classifies correctly.

    Returns
    -------
    dict
        By window size: the fraction (None if all is background), the share of correctly classified
        windows among those that are truly not background (None without any), and the share of all
        windows classified as background.
    """
    kept: dict[str, Any] = {"fraction": {}, "right": {}, "background": {}}
    for window in windows:
        found, known = method(image, window), truth.aligned_fraction(window)
        correct = (found.aligned == known.aligned)[~known.background]
        kept["fraction"][str(window)] = _number(found.fraction)
        kept["right"][str(window)] = _number(correct.mean()) if correct.size else None
        kept["background"][str(window)] = _number(found.background.mean())
    return kept


def true_fractions(truth: NanowireTruth, windows: Sequence[int]) -> dict[str, Any]:
    """Return the true fraction by window size, in the form of `answers`."""
    return {str(window): _number(truth.aligned_fraction(window).fraction) for window in windows}


def orientation_errors(image: np.ndarray, truth: NanowireTruth) -> dict[str, Any]:
    """Return the errors of directions on pixels that are wire in truth and in our mask."""
    grey = as_8_bit(image)
    errors: dict[str, Any] = {}
    for sigma in ORIENTATION_SIGMAS:
        found = local_orientation(image, sigma)
        by_method = {
            "structure_tensor": found.orientation,
            "lgo": local_orientation(image, sigma, method="lgo").orientation,
            "orientationj": orientationj(grey, sigma).orientation,
        }
        errors[f"{sigma:g}"] = {
            name: _errors(along, truth, found.mask) for name, along in by_method.items()
        }
    return errors


def _errors(along: np.ndarray, truth: NanowireTruth, mask: np.ndarray) -> dict[str, Any]:
    known = truth.wires & mask
    apart = axial_difference(along[known], truth.orientation[known])
    return {
        "median": _number(np.rad2deg(np.median(apart))),
        "upper": _number(np.rad2deg(np.quantile(apart, 0.9))),
        "far_off": _number((apart > LARGE_ERROR).mean()),
        "lost": _number(1 - known.sum() / truth.wires.sum()),
    }


def _number(value: float) -> float | None:
    return round(float(value), 5) if np.isfinite(value) else None
