"""Faults of an image that change what is measured in it, and looks unlike those of training."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hypervlad.common.progress import Sentence, warn_of_image
from hypervlad.common.wording import name_some
from hypervlad.images.resampling import halved, middle, smoothed

_MIN_SIDE, MAX_SIDE = 128, 384  # of the part that is looked at
_INPUT_SIDE = 96  # pixels, of the part of a network's input where time counts
_LEVELS = 256  # of grey, as most cameras have
_BLANK = 1e-3  # of black to white: the range of an image that shows nothing
_FEW_LEVELS = 64  # drawings have fewer
_SCALES = 1.5, 3.0  # pixels, at which edges are compared
_FURTHER = float(np.sqrt(_SCALES[1] ** 2 - _SCALES[0] ** 2))
_EDGES = 0.02  # of the pixels, where the image is steepest
_STEEP = 2.0  # times more across than along the scan lines
_MIN_ACROSS = 0.05  # of the squares of slopes, that are so: of long fibres along the lines, less
_MIN_EDGE = 0.4  # of the range, that edges step by: noise and uneven light do not
_NEAR = 11  # scan lines
_WIDE = 12  # scan lines: bands are of fewer
_DARK = 0.2  # of the pixels of a line; as many are bright
_MOST = 0.95  # of the training images have smaller faults; of looks, as many have larger ones
_N_OCTAVES = 3  # details of one, two and four pixels
# Looks may lie outside of the range of most by this share of it, of few images by more: with less,
# more than two of a hundred images of the same source would be warned of.
_FENCE, _OF_FEW = 0.5, 5
TOLERANCE = 0.1  # beyond that; all as logarithms
_LOOKS = (
    *("brightness", "contrast", "noise", "sharpness", "texture"),
    *("elongation", "solidity", "evenness"),  # of outlined particles
)
_SLIGHT = 0.02, 0.3, 0.01  # unevenness, shift and bands that are none
_OTHER = 3.0  # times the same across the scan lines, which the sample may show, too


#: From when on a fault matters, and what it does.
Effects: TypeAlias = dict[str, tuple[float, Sentence]]


class Faults(NamedTuple):
    """How far an image is from what a microscope can show, and, of its last ones, how it looks.

    Looks are no faults, but a model may know none like them. Those that cannot be measured are 0.
    """

    #: Share of pixels that are as dark or as bright as can be, if more are than just beside.
    saturated: float = 0.0
    #: Standard deviation in pixels of the blur of the steepest slopes if they are edges, else 0.
    blur: float = 0.0
    #: Standard deviation from one scan line to the next of their brightness, as a share of the
    #: range, and of their place, in pixels; 0 if neighbouring columns differ as much.
    uneven: float = 0.0
    shifted: float = 0.0
    #: Standard deviation of the brightness of bands of several scan lines, likewise.
    bands: float = 0.0
    #: Mean grey level, and their range without the outermost per cents.
    brightness: float = 0.0
    contrast: float = 0.0
    #: How much pixels differ from what those beside them share, by noise or fine texture, as a
    #: share of the range: 1.6 times the standard deviation of white noise.
    noise: float = 0.0
    #: The same, not as a share of the range, but of what it is of the image of half the size; and
    #: that of what it is of a quarter of the size. White noise has 2.
    sharpness: float = 0.0
    texture: float = 0.0
    #: Of its outlined particles, upper quartile of length over width, lower quartile of the area
    #: over that of the convex hull, and of the contrast to the background over the upper one.
    elongation: float = 0.0
    solidity: float = 0.0
    evenness: float = 0.0

    def without_looks(self) -> Faults:
        return self._replace(**dict.fromkeys(_LOOKS, 0.0))


def find_faults(
    grey: NDArray[np.float32], mask: NDArray[np.bool_], side: int | None = None
) -> Faults:
    """Look for faults in the middle of a grey image (H, W), where the mask is True.

    Blur and those of scan lines are looked for in a part of this `side` in pixels, and in no
    smaller image.

    Edges are compared at two scales, at which their slopes would be equal if they were infinitely
    blurred (Zhuo and Sim 2011, "Defocus map estimation from a single image", Pattern Recogn. 44).

    >>> image = np.tile(np.linspace(0, 1, 128, dtype=np.float32), (96, 1)).clip(0, 0.75)
    >>> round(find_faults(image, np.ones(image.shape, bool)).saturated, 2)
    0.26
    """
    if not mask.any():
        return Faults()
    values = grey[mask]
    saturated = saturated_share(values)
    window = middle(grey.shape, MAX_SIDE)
    part = grey[window]
    if not mask[window].all():
        part = np.where(mask[window], part, np.median(values))
    known = Faults(saturated, **_looks(part))
    part = part[middle(part.shape, side or MAX_SIDE)]
    some = np.sort(part[::2, ::2], axis=None)
    low, high = some[len(some) // 100], some[-1 - len(some) // 100]
    if min(part.shape) < (side or _MIN_SIDE) or high - low <= _BLANK:
        return known
    part = (part - low) / (high - low)
    smooth = smoothed(part, _SCALES[0], truncate=3)
    further = smoothed(smooth, _FURTHER, truncate=3)
    narrow, wide = np.gradient(smooth), np.gradient(further)
    unsteady = _unsteady(part, *narrow)
    if (np.array(unsteady) > _SLIGHT).any():
        columns = _unsteady(part.T, *(each.T for each in narrow[::-1]))
        pairs = zip(unsteady, columns, strict=True)
        uneven, shifted, bands = (own if own > _OTHER * other else 0.0 for own, other in pairs)
    else:
        uneven = shifted = bands = 0.0
    blur = _blur(np.hypot(*narrow), np.hypot(*wide))
    return known._replace(blur=blur, uneven=uneven, shifted=shifted, bands=bands)


def faults_of_input(grey: NDArray[np.float32]) -> Faults:
    """Look for faults in the middle of what a network gets (H, W), in little time."""
    part = grey[middle(grey.shape, MAX_SIDE)]
    return find_faults(part, np.ones(part.shape, bool), _INPUT_SIDE)


def _looks(part: NDArray[np.float32]) -> dict[str, float]:
    some = np.sort(part[::2, ::2], axis=None)
    contrast = float(some[-1 - len(some) // 100] - some[len(some) // 100])
    looks = {"brightness": float(part.mean()), "contrast": contrast}
    if contrast <= _BLANK or min(part.shape) < 2 ** (_N_OCTAVES + 1):
        return looks
    details = list[float]()
    for _ in range(_N_OCTAVES):
        fine = np.diff(np.diff(part, axis=0), axis=1)
        details.append(max(float(np.abs(fine).mean()), 1e-9))
        part = halved(part)
    sharpness, texture = (one / other for one, other in pairwise(details))
    return looks | {"noise": details[0] / contrast, "sharpness": sharpness, "texture": texture}


def saturated_share(values: NDArray[np.float32]) -> float:
    """Return the share of the darkest and of the brightest level, if they stand out."""
    counts, _ = np.histogram(values, _LEVELS) if np.ptp(values) > _BLANK else (np.zeros(1), None)
    if np.count_nonzero(counts) < _FEW_LEVELS:
        return 0.0
    ends = (counts[0], counts[1:5]), (counts[-1], counts[-5:-1])
    return float(sum(own for own, beside in ends if own > 5 * max(beside)) / len(values))


def _blur(narrow: NDArray[np.float32], wide: NDArray[np.float32]) -> float:
    """Return the blur of the steepest slopes, if they are edges, from two scales."""
    steepest = narrow >= np.quantile(narrow, 1 - _EDGES)
    ratio = _median(narrow[steepest] / np.maximum(wide[steepest], 1e-12))
    # An edge of variance v has slopes as 1 / sqrt(v + scale ** 2); differences blur it, too.
    first, second = np.square(_SCALES) + 1 / 3
    variance = max(second - ratio**2 * first, 0) / max(ratio**2 - 1, 1e-3)
    step = _median(narrow[steepest]) * np.sqrt(2 * np.pi * (variance + first))
    return float(np.sqrt(variance)) if step >= _MIN_EDGE else 0.0


def _unsteady(
    part: NDArray[np.float32], down: NDArray[np.float32], across: NDArray[np.float32]
) -> tuple[float, float, float]:
    """Return by how much lines differ from others near them in brightness and in place.

    Slopes are those of the smoothed part, down the lines and across each.
    """
    means = part.mean(axis=1)
    uneven = _deviation(means[2:] + means[:-2] - 2 * means[1:-1]) / np.sqrt(6)
    whole = np.square(down).sum() + np.square(across).sum()
    across = np.where(np.abs(across) > _STEEP * np.abs(down), across, 0)
    if np.square(across).sum() < _MIN_ACROSS * whole:
        return uneven, 0.0, _bands(part)
    slopes = (across[1:] + across[:-1]) / 2
    moved = (np.diff(part, axis=0) * slopes).sum(axis=1)
    shifts = moved / np.maximum(np.square(slopes).sum(axis=1), 1e-12)
    shifts -= ndimage.median_filter(shifts, _NEAR)
    return uneven, _deviation(shifts) / np.sqrt(2), _bands(part)


def _bands(part: NDArray[np.float32]) -> float:
    """Return how far the brightness of lines goes up and down together in all their parts.

    That is, among the dark and among the bright pixels of each quarter.
    """
    quarters = np.stack(np.array_split(part[:, : part.shape[1] // 4 * 4], 4, axis=1))
    quarters.sort(axis=2)
    n = round(_DARK * quarters.shape[2])
    levels = np.concatenate([quarters[:, :, n], quarters[:, :, -1 - n]])
    levels -= ndimage.gaussian_filter1d(levels, _WIDE, axis=1)
    return float(np.sqrt(max(np.cov(levels).min(), 0)))


def note_faults(name: str, grey: NDArray[np.float32], mask: NDArray[np.bool_]) -> None:
    """Say in UserWarnings, one of each kind for all images of a run, what faults do to numbers."""
    for sentence, value in UsualFaults.among([]).effects(find_faults(grey, mask), _ON_SIZES):
        warn_of_image(sentence, name, value)


@dataclass(frozen=True)
class UsualFaults:
    """Between which values each of `Faults` lies in most training images, of which so many."""

    least: tuple[float, ...]
    most: tuple[float, ...]
    n_measured: int

    def __post_init__(self) -> None:
        values = (*self.least, *self.most, self.n_measured)
        n_expected = 2 * len(Faults._fields) + 1
        if len(values) != n_expected or not all(0 <= each < math.inf for each in values):
            raise ValueError("the record of the training images is damaged: their faults")

    @classmethod
    def among(cls, images: Sequence[Faults]) -> UsualFaults:
        known = np.reshape(images or [Faults()], (-1, len(Faults._fields)))
        limits = list[Any]()
        for kind, own in zip(Faults._fields, known.T, strict=True):
            is_measured = own > 0 if kind in _LOOKS and own.any() else np.ones(len(own), bool)
            limits.append(np.quantile(own[is_measured], (1 - _MOST, _MOST)).tolist())
        least, most = zip(*limits, strict=True)
        return cls(least, most, len(images))

    def effects(self, found: Faults, effects: Effects) -> Iterator[tuple[Sentence, Any]]:
        """Give what larger faults than usual in training, and other looks, do, with how large."""
        most, unlike = Faults(*self.most), defaultdict[Sentence, list[str]](list)
        for kind, (least, sentence) in effects.items():
            if kind not in _LOOKS:
                # Variances of two faults add up.
                if (value := getattr(found, kind)) >= math.hypot(least, getattr(most, kind)):
                    yield sentence, value
            elif ratio := self._unusual_ratio(kind, found, least):
                unlike[sentence].append(f"{kind} {ratio:.2g}")
        for sentence, each in unlike.items():
            yield sentence, ", ".join(each)

    def _unusual_ratio(self, kind: str, found: Faults, tolerance: float) -> float | None:
        """Return how many times the usual value an image has, if that is far from most."""
        values = (getattr(Faults(*each), kind) for each in (self.least, self.most, found))
        least, most, own = (math.log(each) if each else -math.inf for each in values)
        if math.isinf(least) or math.isinf(own):  # not measured
            return None
        margin = (_FENCE + _OF_FEW / max(1, self.n_measured)) * (most - least) + tolerance
        is_usual = least - margin <= own <= most + margin
        return None if is_usual else math.exp(own - (least + most) / 2)


_WHAT = {
    "saturated": "saturated (share of the pixels that are as dark or as bright as possible)",
    "blur": "edges are blurred (standard deviation in pixels)",
    "uneven": "scan lines differ in brightness (share of the range)",
    "shifted": "scan lines are shifted against each other (pixels)",
    "bands": "bands of scan lines, as of charging, differ in brightness (share of the range)",
}
_UNUSUAL = ", more than in nearly all training images"
_UNLIKE = "unlike nearly all training images (so many times what is usual there)"
_OF_STEEL = "of the steel surfaces of a test were classified correctly, instead of 100 %"
_OF_TILES = "of the defect-free tiles of a test were called anomalous, instead of none"


def _effects(where: str = "", unusual: str = _UNUSUAL, /, **kinds: tuple[float, str]) -> Effects:
    """Return from when on faults matter, by kind, with sentences on what they do then."""
    return {
        kind: (least, partial(_sentence, f"{_WHAT[kind]}{unusual}", f"{where}{then}"))
        for kind, (least, then) in kinds.items()
    }


def _sentence(what: str, then: str, facts: Mapping[str, float | str]) -> str:
    texts = {
        name: f"{fact:.2g}" if isinstance(fact, float) else fact for name, fact in facts.items()
    }
    each = [f"{name} ({text})" for name, text in texts.items()]
    return f"{what}: {name_some(each)}; {then}"


def _looks_matter(then: str, kinds: Sequence[str] = _LOOKS) -> Effects:
    """Return what other looks do, in one sentence for all of these kinds."""
    return dict.fromkeys(kinds, (TOLERANCE, partial(_sentence, _UNLIKE, then)))


# From where on numbers of drawn images change: `python -m benchmarks.particles.faults`.
_ON_SIZES = _effects(
    "in drawn images ",
    "",
    saturated=(0.2, "at 0.4, sizes came out 12 % too large, and 20 % of particles were missed"),
    blur=(
        4.0,
        "at 3, 38 % of mats had no diameters; at 5, 75 %, and half of the outlines were wrong",
    ),
    uneven=(
        0.12,
        "at 0.18, three in ten outlines were wrong, and 62 % of mats had no diameters"
        "; at 0.14, directions of fibres were 30 degrees wrong",
    ),
    shifted=(
        1.0,
        "at 1.5, half of the outlines were wrong, fibres came out 8 % too thin, and order"
        " parameters 0.2 wrong",
    ),
    bands=(
        0.05,
        "at 0.09, a third of particles were missed, fibres came out 12 % too thin, and"
        " directions 40 degrees wrong",
    ),
)

#: Likewise, of real images: `python -m benchmarks.particles.faults --data`.
ON_CLASSES = _effects(
    saturated=(0.1, f"at 0.4, 65 % {_OF_STEEL}"),
    uneven=(0.05, f"at 0.12, 18 % {_OF_STEEL}"),
    shifted=(1.0, f"at 1.2 pixels of the network's input, 88 % {_OF_STEEL}"),
    bands=(0.08, f"at 0.1, 70 % {_OF_STEEL}"),
) | _looks_matter(
    f"classes may be due to that: with the noise of few electrons, 50 % {_OF_STEEL}, and wrong "
    "classes had a mean probability of 0.92; with a blur of 3 pixels of the network's input, only "
    "32 % of these surfaces were classified correctly"
)
ON_DEFECTS = _effects(
    saturated=(0.2, f"at 0.4, 25 % {_OF_TILES}"),
    uneven=(0.05, f"at 0.2, 70 % {_OF_TILES}"),
    shifted=(1.0, f"at 1.2, 75 % {_OF_TILES}"),
    bands=(0.08, f"at 0.14, 33 % {_OF_TILES}"),
) | _looks_matter(
    "scores may be due to that, unless defects are what differs: in tests, 75 % of drawn mats "
    "without a defect were called anomalous because of a blur of 3 pixels or twice the contrast, "
    "and the noise of few electrons hid all defects of tiles, of which 25 % were found without it"
)
ON_OUTLINES = _looks_matter("outlines may be wrong", _LOOKS[2:])


def _deviation(values: NDArray[np.floating[Any]]) -> float:
    return _median(np.abs(values - _median(values))) / 0.6745


def _median(values: NDArray[np.floating[Any]]) -> float:
    return float(np.sort(values)[len(values) // 2])  # of few values, much faster than np.median
