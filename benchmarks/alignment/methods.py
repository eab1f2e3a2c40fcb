"""Methods that measure the aligned fraction, and the part of their answers that is stored.

Two programs that measure alignment today are computed from their published formulas. OrientationJ,
the structure tensor under a Gaussian window: Püspöki, Storath, Sage and Unser 2016, Advances in
Anatomy, Embryology and Cell Biology 219; coherency after Rezakhaniha et al. 2012, Biomechanics and
Modeling in Mechanobiology 11. FibrilTool, the nematic tensor of unit gradients over a region:
Boudaoud et al. 2014, Nature Protocols 9.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from scipy.ndimage import gaussian_filter, shift, spline_filter1d

from benchmarks.alignment.scenes import training_images
from hypervlad import AlignmentClassifier
from hypervlad.data import NanowireTruth
from hypervlad.fibres import (
    AlignedFraction,
    aligned_fraction,
    aligned_fraction_of_map,
    axial_difference,
    local_orientation,
)
from hypervlad.fibres.alignment import DEFAULT_TOLERANCE, WindowSums, classify_windows
from hypervlad.fibres.regions import TileGrid

Method: TypeAlias = Callable[[np.ndarray, int], AlignedFraction]
SIGMA = 1.75  # the default of `aligned_fraction`; all masks have this scale
# Chosen in favour of OrientationJ, from 1 to 3.5 px on images of other seeds: the best on average,
# though worse than the default without noise.
WIDE_SIGMA = 3.5
LEARNED = "learned"
#: Scales of the direction maps in pixels: the default, and a third of the mean width of a wire.
ORIENTATION_SIGMAS = (SIGMA, 2.5)
LARGE_ERROR = float(np.deg2rad(10))
#: Added to the energy in OrientationJ's coherency, in squared grey levels of an 8-bit image.
EPSILON = 0.001
#: FibrilTool ignores gradients shorter than this, in grey levels of an 8-bit image.
MIN_GRADIENT = 2.0


def all_methods(n_training: int) -> dict[str, Method]:
    """Return every method by its name, as a function of an image and a window size."""
    return {
        "structure_tensor": by_structure_tensor,
        LEARNED: Learned(n_training),
        "orientationj": functools.partial(by_orientationj, sigma=SIGMA),
        "orientationj_wide": functools.partial(by_orientationj, sigma=WIDE_SIGMA),
        "fibriltool": by_fibriltool,
    }


def by_structure_tensor(image: np.ndarray, window: int) -> AlignedFraction:
    return aligned_fraction(image, "structure_tensor", window=window)


def by_orientationj(image: np.ndarray, window: int, *, sigma: float) -> AlignedFraction:
    """Apply the rule to OrientationJ's directions, weighted by coherency as in its distribution."""
    orientation, coherency = orientationj(as_8_bit(image), sigma)
    known = np.where(mask_of(image), orientation, np.nan)
    return aligned_fraction_of_map(known, coherency, window)


def by_fibriltool(image: np.ndarray, window: int) -> AlignedFraction:
    """Apply the rule to FibrilTool's anisotropy, the length of the mean doubled direction."""
    x, y, kept = unit_gradients(as_8_bit(image))
    tiles = TileGrid.over(image.shape, window)
    # Gradients run across fibrils, at the opposite doubled angle.
    axes = tiles.sums(-((x + 1j * y) ** 2))
    sums = WindowSums(axes, tiles.sums(kept), tiles.sums(mask_of(image)))
    return classify_windows(sums, tiles, window, DEFAULT_TOLERANCE)


class Learned:
    """A classifier of windows, trained for each window size when it is first used."""

    def __init__(self, n_training: int) -> None:
        self.n_training = n_training
        self._models: dict[int, Any] = {}

    def __call__(self, image: np.ndarray, window: int) -> AlignedFraction:
        return aligned_fraction(image, self.model(window), window=window)

    def model(self, window: int) -> Any:
        if window not in self._models:
            images, truths = self._examples
            maps = [truth.aligned_map(window) for truth in truths]
            model = AlignmentClassifier(window=window, random_state=0)
            self._models[window] = model.fit(images, maps)
        return self._models[window]

    @functools.cached_property
    def _examples(self) -> tuple[list[np.ndarray], list[NanowireTruth]]:
        return training_images(self.n_training)


def orientationj(image: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Return OrientationJ's orientation in radians and coherency, each of shape (H, W).

    With J the products of cubic-spline gradients under a Gaussian window, y up: orientation
    atan2(-2 J_xy, J_yy - J_xx) / 2, coherency sqrt((J_yy - J_xx)^2 + 4 J_xy^2) / (J_xx + J_yy +
    epsilon).

    Examples
    --------
    >>> stripes = 100 * np.sin(0.5 * np.arange(40))[:, None] * np.ones(40)
    >>> orientation, coherency = orientationj(stripes, sigma=2)
    >>> bool(abs(orientation).max() < 1e-6), round(float(coherency[20, 20]), 3)
    (True, 1.0)
    """
    # The derivative of a cubic B-spline at its knots is (c[k + 1] - c[k - 1]) / 2.
    down, right = (
        _central(spline_filter1d(image, 3, axis=axis, mode="mirror"), axis) for axis in (0, 1)
    )
    xx, yy, xy = (
        gaussian_filter(product, sigma, mode="mirror")
        for product in (right * right, down * down, -right * down)
    )
    orientation = 0.5 * np.arctan2(-2 * xy, yy - xx)
    return orientation, np.hypot(yy - xx, 2 * xy) / (xx + yy + EPSILON)


def _central(values: np.ndarray, axis: int) -> np.ndarray:
    along = np.moveaxis(np.pad(values, 1, mode="reflect"), axis, 0)
    steps = (along[2:] - along[:-2])[:, 1:-1] / 2
    return np.moveaxis(steps, 0, axis)


def unit_gradients(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return FibrilTool's unit vectors along the gradients (x right, y up), and where they count.

    Short gradients are ignored: there x and y are zero.
    """
    down, right = (_half_pixel_step(image, axis) for axis in (0, 1))
    length = np.hypot(down, right)
    kept = length >= MIN_GRADIENT
    scale = np.where(kept, 1 / np.where(kept, length, 1), 0)
    return right * scale, -down * scale, kept


def _half_pixel_step(pixels: np.ndarray, axis: int) -> np.ndarray:
    """Return the difference of the image shifted half a pixel forward and backward."""
    half = np.eye(2)[axis] / 2
    ahead, behind = (shift(pixels, sign * half, order=3, mode="nearest") for sign in (-1, 1))
    return np.asarray(ahead - behind)


def mask_of(image: np.ndarray) -> np.ndarray:
    """Return the structure tensor's mask of fibres, which all methods use."""
    return local_orientation(image, SIGMA).mask


def as_8_bit(image: np.ndarray) -> np.ndarray:
    """Return an image in integer grey levels from 0 (darkest) to 255 (brightest)."""
    low, high = float(image.min()), float(image.max())
    return np.rint((image.astype(np.float64) - low) * (255 / (high - low)))


def answers(
    method: Method, image: np.ndarray, truth: NanowireTruth, windows: Sequence[int]
) -> dict[str, Any]:
    """Return the answers of a method for an image by window size; None where there is none.

    The fraction, the share of correctly classified windows among those that are truly not
    background, and the share of windows classified as background.
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
            "orientationj": orientationj(grey, sigma)[0],
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
