"""What a scorer would miss: synthetic defects of known size and contrast on held-out images."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import qmc
from sklearn.linear_model import LogisticRegression

from hypervlad.common.constraints import Number, OneOf, check_value
from hypervlad.common.progress import ProgressBar
from hypervlad.common.stored import Array, Each, StoredPart, Value
from hypervlad.defects.findings import Finding
from hypervlad.features.lazy_torch import torch
from hypervlad.features.windows import PreparedImage

FloatArray = NDArray[np.float64]
_POSITIVE = Number(above=0, meaning="a positive number")
_CONTRAST = Number(above=0, at_most=1, meaning="a share of the range from black to white")


class Kind(NamedTuple):
    """An ellipse: length / breadth, share of the breadth that is soft edge, sign of the change."""

    stretch: float
    softness: float
    sign: int  # 0 for either


#: The kinds of synthetic defects, by their plural names.
KINDS = {
    "dark spots": Kind(1.5, 0, -1),
    "bright spots": Kind(1.5, 0, 1),
    "scratches": Kind(12, 0, 0),
    "stains": Kind(1.5, 1, 0),
}
NO_LIMITS = (
    "no detection limits were measured: fit a PatchDefectScorer without labels on at least 10 "
    "defect-free images of several groups, with n_planted above 0"
)
MIN_IMAGES = 10  # held out; from fewer, limits would say little of other images
_SMALLEST = 16.0  # px2
_LONGEST, _WIDEST = 0.7, 0.25  # of the image's shorter side
_CONTRASTS = 0.03, 0.6  # of the range from black to white
_LEAST_CONTRAST = 0.002  # half a grey level of 8 bits: less is never visible
_SHARP = 1.5  # pixels of the edge of a defect that is not soft
_TRIES = 20  # to find a place where the change is not cut off by black or white
_MIN_REGIONS = 20  # of synthetic defects, with which a region is compared
# Real defects differ from synthetic ones, and are often wider: without these factors, intervals of
# wide ones hold in half of cases.
_BELOW, _ABOVE = 2.0, 4.0
_MOST_UNCERTAIN = 40.0  # upper over lower end of an interval, above which a size is not resolved
_PENALTY = 10.0  # of the regression; weak
_FINE_AREA = 1e5  # nm2: smaller ones are shown in nm2
_MAX_AREA = 2.0**40  # px2, in a file
_PIXEL_SIZE = Number(above=0, below=1e9)  # nm


def area_unit(area: float, pixel_size: float | None) -> tuple[float, str]:
    """Return by what areas like this one, in pixels, are multiplied to be shown, and the unit."""
    if pixel_size is None:
        return 1.0, "px2"
    is_fine = area * pixel_size**2 < _FINE_AREA
    return pixel_size**2 * (1.0 if is_fine else 1e-6), "nm2" if is_fine else "um2"


def plant(
    image: PreparedImage,
    kind: str,
    size: float,
    contrast: float,
    rng: np.random.Generator,
) -> tuple[PreparedImage, NDArray[np.bool_], float]:
    """Put a defect on an image; return also its mask (h, w), and the contrast that it got.

    ``size`` is between 0, 16 px2, and 1, the largest that fits. ``contrast`` is the change of
    grey levels, of which black and white may cut off some.
    """
    shape, (stretch, softness, sign) = image.size, KINDS[kind]
    shorter = min(shape)
    largest = min((_WIDEST * shorter) ** 2, math.pi / 4 * (_LONGEST * shorter) ** 2 / stretch)
    area = _SMALLEST * (max(largest, _SMALLEST) / _SMALLEST) ** size
    half = math.sqrt(area / math.pi * stretch)  # its longer axis
    grey = image.tensor.numpy()
    best: tuple[float, Any, Any] = (-1.0, None, None)
    for _ in range(_TRIES):
        room = [min(half, (n - 1) / 2) for n in shape]
        centre = [rng.uniform(r, n - 1 - r) for r, n in zip(room, shape, strict=True)]
        angle, change = rng.uniform(0, math.pi), contrast * (sign or rng.choice([-1, 1]))
        strength = _ellipse(shape, centre, angle, half, stretch, softness)
        inside = strength >= 0.5
        changed = np.clip(grey + np.float32(change) * strength, 0, 1)
        shown = float(np.abs(changed - grey)[:, inside].mean() / strength[inside].mean())
        if shown > best[0]:
            best = shown, changed, inside
        if shown >= 0.9 * contrast:
            break
    shown, changed, inside = best
    planted = replace(image, key=f"{image.key}-planted", tensor=torch.from_numpy(changed))
    return planted, inside, shown


def _ellipse(
    shape: tuple[int, int],
    centre: Sequence[float],
    angle: float,
    half: float,
    stretch: float,
    softness: float,
) -> NDArray[np.float32]:
    """Return the strength (h, w) of an ellipse, which is 1/2 at its edge, and 1 inside."""
    rows, columns = (np.arange(n, dtype=np.float32) - c for n, c in zip(shape, centre, strict=True))
    along = rows[:, None] * math.sin(angle) + columns * math.cos(angle)
    beside = rows[:, None] * math.cos(angle) - columns * math.sin(angle)
    narrow = half / stretch
    inwards = narrow * (1 - np.hypot(along / half, beside / narrow))  # about the distance, pixels
    edge = max(_SHARP, 2 * softness * narrow)
    return np.clip(inwards / edge + 0.5, 0, 1).astype(np.float32)


_NAMES = Each(Value(str), lambda values: np.array([*values], str))


@dataclass(frozen=True, eq=False)
class DetectionLimits(StoredPart):
    """Synthetic defects on held-out defect-free images, and how many of them were found.

    A defect is found if its image is called anomalous, and a region lies on it.

    Attributes
    ----------
    kinds : ndarray of n str
        Of `KINDS`.
    areas : ndarray of float32, shape (n,)
        Pixels of the images; if the encoder has a ``pixel_size``, after they are resampled.
    contrasts : ndarray of float32, shape (n,)
        Changes of grey levels, 1 from black to white.
    region_areas : ndarray of float32, shape (n,)
        The area of the regions on each defect; 0 if there is none.
    is_called : ndarray of bool, shape (n,)
        Whether its image is called anomalous.
    pixel_size : float
        Nanometres per pixel, of these; NaN if it differs between images, or is not known.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.defects.limits import DetectionLimits
    >>> areas = np.geomspace(10, 1000, 40)
    >>> limits = DetectionLimits(
    ...     np.repeat("dark spots", 40), areas, np.full(40, 0.2), areas, areas > 100
    ... )
    >>> 95 < limits.area("dark spots", 0.5, contrast=0.2) < 105
    True
    """

    kinds: Annotated[NDArray[Any], _NAMES] = field(repr=False)
    areas: Annotated[NDArray[np.float32], Array("float32", 1, 1, _MAX_AREA)] = field(repr=False)
    contrasts: Annotated[NDArray[np.float32], Array("float32", 1, 1e-6, 1)] = field(repr=False)
    region_areas: Annotated[NDArray[np.float32], Array("float32", 1, 0, _MAX_AREA)] = field(
        repr=False
    )
    is_called: Annotated[NDArray[np.bool_], Array("bool", 1)] = field(repr=False)
    pixel_size: Annotated[float, Value(float, _PIXEL_SIZE, also=("nan",))] = math.nan

    def __post_init__(self) -> None:
        columns = (self.kinds, self.areas, self.contrasts, self.region_areas, self.is_called)
        lengths = {len(each) for each in columns}
        unknown = sorted(set(self.kinds.tolist()) - set(KINDS))
        if len(lengths) > 1 or unknown:
            raise ValueError(
                f"the columns of synthetic defects do not fit: {sorted(lengths)} rows, and "
                f"unknown kinds {unknown}"
            )

    @classmethod
    def none(cls) -> DetectionLimits:
        """Return limits without any defect, of scorers for which they were not measured."""
        nothing = np.zeros(0, np.float32)
        return cls(np.zeros(0, str), nothing, nothing, nothing, np.zeros(0, bool))

    @property
    def is_found(self) -> NDArray[np.bool_]:
        """Whether each defect was found (n,)."""
        return self.is_called & (self.region_areas > 0)

    def __len__(self) -> int:
        return len(self.areas)

    @property
    def unit(self) -> tuple[float, str]:
        """What areas in pixels are multiplied by to be shown, and their unit."""
        typical = float(np.median(self.areas)) if len(self) else 1.0
        return area_unit(typical, None if math.isnan(self.pixel_size) else self.pixel_size)

    def sentences(self, contrast: float = 0.2) -> dict[str, str]:
        """Return for each kind what is found of it at a contrast, for people to read."""
        scale, unit = self.unit
        found = {}
        for kind in np.unique(self.kinds).tolist():
            areas = [scale * self.area(kind, share, contrast) for share in (0.9, 0.5)]
            most, half = (f"{float(f'{area:.2g}'):,.9g} {unit}" for area in areas)
            if math.isinf(areas[1]):
                found[kind] = "less than half found, at any size that was tried"
            elif math.isinf(areas[0]):
                found[kind] = f"half found from {half} on, never 9 in 10"
            elif areas[0] == areas[1]:
                found[kind] = f"9 in 10 found from {most} on, the smallest that was tried"
            else:
                found[kind] = f"9 in 10 found from {most} on, half from {half}"
        return found

    def lines(self) -> list[str]:
        if not len(self):
            return ["which defects are found was not measured: at least 10 images must be held out"]
        found = [f"  {kind}: {text}" for kind, text in self.sentences(contrast=0.2).items()]
        return [f"{len(self)} synthetic defects on held-out images, at 20 % contrast:", *found]

    def share(self, kind: str, area: float, contrast: float) -> float:
        """Return the share of the defects of a kind, area (px) and contrast that are found.

        It is from a logistic regression of the synthetic defects that were found, on the logarithms
        of both; the influence of area and contrast is the same for all kinds.
        """
        start, of_area, of_contrast = self._regression(kind, contrast)
        check_value("area", area, [_POSITIVE])
        return float(expit(start + of_area * math.log(area) + of_contrast * math.log(contrast)))

    def area(self, kind: str, share: float = 0.9, contrast: float = 0.2) -> float:
        """Return the area in pixels from which on such a share is found.

        Infinity if even the largest synthetic defects are found less often, and the area of the
        smallest ones if they are found that often.
        """
        check_value("share", share, [Number(above=0, below=1, meaning="a share of the defects")])
        start, of_area, of_contrast = self._regression(kind, contrast)
        wanted = math.log(share / (1 - share)) - start - of_contrast * math.log(contrast)
        own = self.areas[self.kinds == kind]
        if of_area <= 0:
            return float(own.min()) if wanted <= 0 else math.inf
        logarithm = wanted / of_area
        if logarithm > math.log(own.max()):
            return math.inf
        return max(math.exp(logarithm), float(own.min()))

    def area_interval(self, region: float) -> tuple[float, float] | None:
        """Return between which areas a defect lies, by the area of its region; all in pixels.

        The ends are half the smallest and four times the largest of the areas of the 20 synthetic
        defects whose regions are most similar in size, each scaled to this one, or the region's
        area if that is beyond. They are of those that were found, or of all that have a region if
        fewer than 20 were found. The lower end is 0 if the upper one is more than 40 times as high.
        None from fewer than 20 defects with regions.
        """
        is_found = self.is_found
        used = is_found if is_found.sum() >= _MIN_REGIONS else self.region_areas > 0
        if used.sum() < _MIN_REGIONS:
            return None
        true, found = np.array([self.areas, self.region_areas], np.float64)[:, used]
        nearest = np.argsort(np.abs(np.log(found / region)), kind="stable")[:_MIN_REGIONS]
        like = region * (true / found)[nearest]
        low, high = min(like.min() / _BELOW, region), max(like.max() * _ABOVE, region)
        return float(low) if high <= _MOST_UNCERTAIN * low else 0.0, float(high)

    def sized(self, found: Finding, scale: float = 1.0) -> Finding:
        """Return a finding whose regions have intervals of their areas.

        One pixel of it has the area of ``scale`` pixels of `areas`.
        """
        regions = []
        for region in found.regions:
            interval = self.area_interval(scale * region.area)
            if interval is not None:
                low, high = interval[0] / scale, interval[1] / scale
                high = min(high, found.map.size)
                interval = min(low, region.area), max(high, region.area)  # despite rounding
            regions.append(replace(region, area_interval=interval))
        return replace(found, regions=regions)

    @functools.cached_property
    def _regressions(self) -> dict[str, tuple[float, float, float]]:
        names, codes = np.unique(self.kinds, return_inverse=True)
        found = self.is_found
        X = np.stack([np.log(self.areas), np.log(self.contrasts)], axis=1).astype(np.float64)
        centre, scale = X.mean(axis=0), np.maximum(X.std(axis=0), 1e-6)
        if len(np.unique(found)) < 2:
            start = math.inf if found.any() else -math.inf
            return dict.fromkeys(names.tolist(), (start, 0.0, 0.0))
        own = np.eye(len(names))[codes]
        fitted = LogisticRegression(C=_PENALTY, fit_intercept=False, max_iter=1000).fit(
            np.hstack([(X - centre) / scale, own]), found
        )
        slopes, starts = np.split(fitted.coef_[0], [2])
        slopes = np.maximum(slopes, 0) / scale  # larger and clearer defects are not found less
        return {
            name: (float(start - slopes @ centre), float(slopes[0]), float(slopes[1]))
            for name, start in zip(names.tolist(), starts, strict=True)
        }

    def _regression(self, kind: str, contrast: float) -> tuple[float, float, float]:
        if not len(self):
            raise ValueError(NO_LIMITS)
        check_value("kind", kind, [OneOf(*self._regressions)])
        check_value("contrast", contrast, [_CONTRAST])
        return self._regressions[kind]


def measure_limits(
    positions: Sequence[int],
    read: Callable[[int], PreparedImage],
    find: Callable[[int, PreparedImage], tuple[Finding, bool]],
    n_planted: int,
    seed: int,
    *,
    pixel_size: float | None = None,
    verbose: bool = False,
) -> DetectionLimits:
    """Put defects on the images at some positions, one on each copy, and look for them.

    ``find`` returns the regions of an image, in pixels of the network's input, and whether it is
    called anomalous, by a model without the image at the position. ``pixel_size`` is that of all
    inputs whose images have one, unless these keep their own.
    """
    rng = np.random.default_rng(seed)
    rows: list[tuple[str, float, float, float, bool]] = []
    sizes = set()
    plan = list(_plan(n_planted, seed))
    bar = ProgressBar(plan, desc="limits", unit="defect", shown=verbose)
    for kind, place, size, contrast in bar:
        at = positions[int(place * len(positions))]
        image = read(at)
        planted, mask, shown = plant(image, kind, size, contrast, rng)
        sizes.add(image.info.pixel_size and (pixel_size or image.info.pixel_size))
        # A dark spot on black, or one beside what is looked at.
        if shown < _LEAST_CONTRAST or image.covered[mask].mean() > 0.5:
            continue
        found, is_called = find(at, planted)
        area = sum(each.area for each in found.regions if mask[each.window][each.mask].any())
        rows.append((kind, mask.sum(), min(shown, 1.0), area, is_called))
    common = sizes.pop() if len(sizes) == 1 else None
    columns = [np.array([row[i] for row in rows], np.float32) for i in (1, 2, 3)]
    return DetectionLimits(
        np.array([row[0] for row in rows], str),
        areas=columns[0],
        contrasts=columns[1],
        region_areas=columns[2],
        is_called=np.array([row[4] for row in rows], bool),
        pixel_size=math.nan if common is None else float(common),
    )


def _plan(n: int, seed: int) -> Iterator[tuple[str, float, float, float]]:
    """Spread images and sizes, both from 0 to 1, and contrasts evenly over each kind of defect."""
    n_each = -(-n // len(KINDS))
    low, high = _CONTRASTS
    plans = [qmc.Halton(3, seed=seed + number).random(n_each) for number in range(len(KINDS))]
    for rows in zip(*plans, strict=True):
        for kind, (size, contrast, place) in zip(KINDS, rows, strict=True):
            yield kind, float(place), float(size), low * (high / low) ** float(contrast)
