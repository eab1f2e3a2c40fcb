"""Faults of an image that change what is measured in it: saturation, blur, unsteady scan lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hypervlad.common.progress import Sentence, warn_of_image
from hypervlad.common.wording import name_some
from hypervlad.images.resampling import middle

_MIN_SIDE, _MAX_SIDE = 128, 384  # of the part that is looked at
_LEVELS = 256  # of grey, as most cameras have
_FEW_LEVELS = 64  # drawings have fewer
_SCALES = 1.5, 3.0  # pixels, at which edges are compared
_EDGES = 0.02  # of the pixels, where the image is steepest
_STEEP = 2.0  # times more across than along the scan lines
_MIN_ACROSS = 0.05  # of the squares of slopes, that are so: of long fibres along the lines, less
_MIN_EDGE = 0.4  # of the range, that edges step by: noise and uneven light do not
_NEAR = 11  # scan lines
_OTHER = 3.0  # times the same across the scan lines, which the sample may show, too


class Faults(NamedTuple):
    """How far an image is from what a microscope can show.

    Attributes
    ----------
    saturated : float
        Share of pixels that are as dark or as bright as can be, if more are than just beside.
    blur : float
        Standard deviation in pixels of the blur of the sharpest edges.
    uneven, shifted : float
        Standard deviation from one scan line to the next of their brightness, as a share of the
        range, and of their place, in pixels; 0 if neighbouring columns differ as much.
    """

    saturated: float
    blur: float
    uneven: float
    shifted: float


def find_faults(grey: NDArray[np.float32], mask: NDArray[np.bool_]) -> Faults:
    """Look for faults in the middle of a grey image (H, W), where the mask is True.

    Edges are compared at two scales, at which their slopes would be equal if they were infinitely
    blurred (Zhuo and Sim 2011, "Defocus map estimation from a single image", Pattern Recognition
    44).

    >>> image = np.tile(np.linspace(0, 1, 128, dtype=np.float32), (96, 1)).clip(0, 0.75)
    >>> round(find_faults(image, np.ones(image.shape, bool)).saturated, 2)
    0.26
    """
    if not mask.any():
        return Faults(0.0, 0.0, 0.0, 0.0)
    values = grey[mask]
    saturated = _saturated(values)
    window = middle(grey.shape, _MAX_SIDE)
    part = np.where(mask[window], grey[window], np.median(values))
    low, high = np.percentile(part, (1, 99))
    if min(part.shape) < _MIN_SIDE or not low < high:
        return Faults(saturated, 0.0, 0.0, 0.0)
    lines, columns = (_unsteady((each - low) / (high - low)) for each in (part, part.T))
    uneven, shifted = (
        own if own > _OTHER * other else 0.0 for own, other in zip(lines, columns, strict=True)
    )
    return Faults(saturated, _blur(part, high - low), uneven, shifted)


def _saturated(values: NDArray[np.float32]) -> float:
    """Return the share of the darkest and of the brightest level, if they stand out."""
    counts, _ = np.histogram(values, _LEVELS)
    if np.count_nonzero(counts) < _FEW_LEVELS:
        return 0.0
    ends = (counts[0], counts[1:5]), (counts[-1], counts[-5:-1])
    return float(sum(own for own, beside in ends if own > 5 * max(beside)) / len(values))


def _blur(part: NDArray[np.float32], range_: float) -> float:
    narrow, wide = (ndimage.gaussian_gradient_magnitude(part, scale) for scale in _SCALES)
    steepest = narrow >= np.quantile(narrow, 1 - _EDGES)
    ratio = float(np.median(narrow[steepest] / np.maximum(wide[steepest], 1e-12)))
    # An edge of variance v has slopes as 1 / sqrt(v + scale ** 2).
    first, second = np.square(_SCALES)
    variance = max(second - ratio**2 * first, 0) / max(ratio**2 - 1, 1e-3)
    step = np.median(narrow[steepest]) * np.sqrt(2 * np.pi * (variance + first))
    return float(np.sqrt(variance)) if step >= _MIN_EDGE * range_ else 0.0


def _unsteady(part: NDArray[np.float32]) -> tuple[float, float]:
    """Return by how much lines differ from their neighbours in brightness and in place."""
    means = part.mean(axis=1)
    uneven = _deviation(means[2:] + means[:-2] - 2 * means[1:-1]) / np.sqrt(6)
    down, across = np.gradient(ndimage.gaussian_filter(part, 1))
    whole = np.square(down).sum() + np.square(across).sum()
    across = np.where(np.abs(across) > _STEEP * np.abs(down), across, 0)
    if np.square(across).sum() < _MIN_ACROSS * whole:
        return uneven, 0.0
    slopes = (across[1:] + across[:-1]) / 2
    moved = (np.diff(part, axis=0) * slopes).sum(axis=1)
    shifts = moved / np.maximum(np.square(slopes).sum(axis=1), 1e-12)
    shifts -= ndimage.median_filter(shifts, _NEAR)
    return uneven, _deviation(shifts) / np.sqrt(2)


def note_faults(name: str, grey: NDArray[np.float32], mask: NDArray[np.bool_]) -> None:
    """Say in UserWarnings, one of each kind for all images of a run, what faults do to numbers."""
    for kind, value in find_faults(grey, mask)._asdict().items():
        least, sentence = _EFFECTS[kind]
        if value >= least:
            warn_of_image(sentence, name, value)


def _effect(text: str) -> Sentence:
    def sentence(facts: Mapping[str, Any], _n_images: int) -> str:
        return f"{name_some([f'{name} ({value:.2g})' for name, value in facts.items()])}: {text}"

    return sentence


# From where on numbers of drawn images change: `python -m benchmarks.particles.faults`.
_EFFECTS: dict[str, tuple[float, Sentence]] = {
    "saturated": (
        0.2,
        _effect(
            "this share of the pixels is as dark or as bright as can be, which hides edges: of "
            "0.4, drawn particles and fibres came out 12 % too large, and a fifth of the particles "
            "was missed"
        ),
    ),
    "blur": (
        4.0,
        _effect(
            "edges are blurred by this standard deviation in pixels: of 3, a quarter of drawn "
            "fibre mats had no diameters; of 5, none had, and two of three particles were missed"
        ),
    ),
    "uneven": (
        0.12,
        _effect(
            "scan lines differ in brightness by this share of the range: of 0.18, a quarter of "
            "drawn particles was missed, and fibres had no diameters, or much too small ones"
        ),
    ),
    "shifted": (
        1.0,
        _effect(
            "scan lines are shifted by this many pixels against each other: of 1.2, half of the "
            "outlines of drawn particles were wrong, and fibres came out 8 % too thin"
        ),
    ),
}


def _deviation(values: NDArray[np.floating[Any]]) -> float:
    return float(np.median(np.abs(values - np.median(values))) / 0.6745)
