"""Diameters of groups of images: medians with intervals, and how groups differ."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, compress
from typing import Any

import numpy as np
from scipy import stats

from hypervlad.common.wording import counted, verb, warn_user
from hypervlad.fibres.contrast import Values
from hypervlad.fibres.diameters import PER_PLACE, FibreDiameters
from hypervlad.images.pixels import are_copies
from hypervlad.statistics.groups import (
    LEVEL,
    NORMAL_FACTOR,
    Interval,
    Ratio,
    Sample,
    groups_needed,
    left_out_interval,
    student_factor,
    sums_without,
    with_error,
)

_SHARED = 0.6  # of the intervals of images, on logarithmic scale; see benchmarks/fibres
#: The only group if there are none.
ALL_IMAGES = "all images"


@dataclass(frozen=True, eq=False)
class GroupDiameters:
    """Diameters of the images of one group.

    Attributes
    ----------
    name : str
    n_images, n_samples : int
        Images with diameters, and their samples.
    places : FibreDiameters
        All places of the images, as if of one image, without an interval: refused places are
        summed, the blur is the median of images of one pixel size, and the profile None unless it
        is that of all.
    medians : ndarray of float64, shape (n_samples or n_images,)
        Of the samples, or of the images if there is one sample.
    errors : ndarray of float64, of the same shape
        Standard errors of their logarithms, from intervals of images and which fibres are in them.
    shared_error : float
        Share by which all may be wrong together, within 95 %, as images of one look are.
    interval : Interval
        95 % interval of `median`, from how much `medians` differ, and not narrower than their
        `errors` allow, with the `shared_error`; of one image, its own.
    interval_of : {"samples", "images", "images of one sample", "image"}
        What the interval is from, and of. How much samples differ is unknown from one sample.
    n_to_halve : int or None
        Number of samples or images, in all, for which the interval would be half as wide if they
        differ as those that were measured; None with one image, or if no number would do.
    """

    name: str
    n_images: int
    n_samples: int
    places: FibreDiameters = field(repr=False)
    medians: Values
    errors: Values
    shared_error: float
    interval: Interval
    interval_of: str
    n_to_halve: int | None

    @property
    def median(self) -> float:
        """Geometric mean of `medians`: each counts the same, however much of it is visible."""
        return float(np.exp(np.log(self.medians).mean()))

    @property
    def log_error(self) -> float:
        """Standard error of the logarithm of the median between samples; NaN of one."""
        n = len(self.medians) if self.n_samples > 1 else 0
        return float(np.log(self.medians).std(ddof=1) / np.sqrt(n)) if n else math.nan

    @property
    def least_error(self) -> float:
        """Standard error of the logarithm of the median if the samples did not differ."""
        return float(np.sqrt(np.square(self.errors).sum()) / len(self.errors))


@dataclass(frozen=True, eq=False)
class FolderDiameters:
    """Diameters of a folder of images, by group.

    Attributes
    ----------
    groups : tuple of GroupDiameters
        In order of their first images.
    """

    groups: tuple[GroupDiameters, ...]

    def ratios(self) -> list[Ratio]:
        """Return `ratio` of each two groups, the later one over the earlier."""
        pairs = combinations([group.name for group in self.groups], 2)
        return [self.ratio(one, other) for other, one in pairs]

    def ratio(self, one: str, other: str) -> Ratio:
        """Return the median of one group over that of another, with its 95 % interval.

        It is Welch's, of the logarithms, with Bonferroni's correction if there are more than two
        groups: all intervals together hold the true ratios in 95 % of cases. It is not narrower
        than the errors of the medians allow, without the `shared_error`. One that contains 1 shows
        no difference. An end that is further than a thousand times is open, NaN; both are if a
        group has a single sample: one sample is no group.
        """
        by_name = {group.name: group for group in self.groups}
        if absent := [name for name in (one, other) if name not in by_name]:
            raise ValueError(f"no group {absent[0]!r} with diameters, only {', '.join(by_name)}")
        pair = by_name[one], by_name[other]
        ratio = pair[0].median / pair[1].median
        squares = np.square([group.log_error for group in pair])
        if np.isnan(squares).any():
            return Ratio(one, other, ratio, Interval(math.nan, math.nan))
        freedom = np.array([len(group.medians) - 1 for group in pair])
        tail = (1 - LEVEL) / 2 / math.comb(sum(group.n_samples > 1 for group in self.groups), 2)
        least = stats.norm.isf(tail) * math.hypot(*(group.least_error for group in pair))
        with np.errstate(invalid="ignore"):  # all medians of both groups may be equal
            shared = squares.sum() ** 2 / (squares**2 / freedom).sum()
        reach = float(np.fmax(stats.t.isf(tail, shared) * np.sqrt(squares.sum()), least))
        return Ratio.reaching(one, other, ratio, reach, reach)


def compare_groups(
    found: Sequence[FibreDiameters],
    groups: Sequence[Any] | None = None,
    samples: Sequence[Any] | None = None,
) -> FolderDiameters:
    """Combine the diameters of images into those of groups.

    Images without diameters are left out, and copies of an image in its group, with a warning;
    another says of how many there are copies in several groups.

    Parameters
    ----------
    found : sequence of n FibreDiameters
        All in one unit.
    groups : sequence of n labels, optional
        What is compared, such as settings of a process; by default, all images are one group.
    samples : sequence of n labels, optional
        Images of one sample are not independent; by default, each image is a sample.

    Returns
    -------
    FolderDiameters

    Raises
    ------
    ValueError
        If lengths or units differ, or no image has diameters.

    Examples
    --------
    >>> from hypervlad.data import make_fibre_images
    >>> from hypervlad.fibres import compare_groups, fibre_diameters
    >>> images = [
    ...     make_fibre_images(1, diameter=each, cover=0.3, size=256, random_state=0)[0][0]
    ...     for each in (8, 8.2, 16, 16.4)
    ... ]
    >>> found = [fibre_diameters(image) for image in images]
    >>> groups = compare_groups(found, ["thin", "thin", "thick", "thick"])
    >>> ratio = groups.ratio("thick", "thin")
    >>> 1.5 < ratio.value < 2.5, ratio.verdict
    (True, 'they differ')
    """
    names = [ALL_IMAGES] * len(found) if groups is None else list(map(str, groups))
    origins: list[Any] = list(range(len(found))) if samples is None else list(map(str, samples))
    rows = [each for each in zip(found, names, origins, strict=True) if len(each[0].diameters)]
    digests, names = [each.digest for each, *_ in rows], [name for _, name, _ in rows]
    in_group, of_group = are_copies(digests, names), dict[str, list[tuple[Any, Any]]]()
    for each, name, origin in compress(rows, ~in_group):
        of_group.setdefault(name, []).append((each, origin))
    if n_copies := int(in_group.sum()):
        warn_user(
            f"{counted(n_copies, 'image')} {verb(n_copies, 'is a copy', 'are copies')} of others "
            "in the same group, and not counted again"
        )
    if n_between := int((are_copies(digests) & ~in_group).sum()):
        warn_user(
            f"{counted(n_between, 'image')} {verb(n_between, 'is', 'are')} in several groups, as "
            "copies: ratios of these groups contain them; leave all but one out"
        )
    if not of_group:
        raise ValueError("none of the images has diameters: their `reason` says why")
    if len({each.unit for own in of_group.values() for each, _ in own}) > 1:
        raise ValueError(
            "some diameters are in nm, others in px: give the pixel_size of all images, or of none"
        )
    return FolderDiameters(tuple(_group(name, of_group[name]) for name in of_group))


def _group(name: str, own: Sequence[tuple[FibreDiameters, Any]]) -> GroupDiameters:
    images = [each for each, _ in own]
    samples = list(dict.fromkeys(origin for _, origin in own))
    units, interval_of = [[each] for each in images], "images"
    if len(samples) == 1 < len(images):
        interval_of = "images of one sample"
    elif len(samples) < len(images):
        units = [[each for each, origin in own if origin == sample] for sample in samples]
        interval_of = "samples"
    shared = _SHARED * float(np.mean([_reach(each) for each in images]))
    group = GroupDiameters(
        name=name,
        n_images=len(images),
        n_samples=len(samples),
        places=_pooled(images),
        medians=np.array([_pooled(unit).median for unit in units]),
        errors=np.array([math.hypot(*map(_log_error, unit)) / len(unit) for unit in units]),
        shared_error=math.expm1(shared),
        interval=images[0].interval,
        interval_of="image",
        n_to_halve=None,
    )
    n = len(units)
    if n == 1:
        return group
    logs, least = np.log(group.medians), group.least_error
    *ends, _ = left_out_interval(logs.mean(), sums_without(logs) / (n - 1), least=least**2)
    low, high = with_error(np.exp(ends[0]), group.median, np.exp(ends[1]), group.shared_error)
    error, least = float(logs.std(ddof=1)) / math.sqrt(n), NORMAL_FACTOR * least
    reach = math.hypot(max(student_factor(n) * error, least), shared)
    rest = math.sqrt(max((reach / 2) ** 2 - shared**2, 0))
    return replace(
        group,
        interval=Interval(float(low), float(high)),
        interval_of=interval_of,
        n_to_halve=max(groups_needed(n, error, rest), math.ceil(n * (least / rest) ** 2))
        if rest
        else None,
    )


def _pooled(images: Sequence[FibreDiameters]) -> FibreDiameters:
    if len(images) == 1:
        return images[0]
    parts: dict[str, Any] = {
        name: np.concatenate([getattr(each, name) for each in images]) for name in PER_PLACE
    }
    ends = np.cumsum([each.fibres.max() + 1 for each in images])
    parts["fibres"] += np.repeat([0, *ends[:-1]], [len(each.fibres) for each in images])
    refused = Counter[str]()
    for each in images:
        refused.update(each.refused)
    profiles, sizes = ({getattr(each, k) for each in images} for k in ("profile", "pixel_size"))
    return replace(
        images[0],
        **parts,
        interval=Interval(float("nan"), float("nan")),
        refused=dict(refused),
        profile=profiles.pop() if len(profiles) == 1 else None,
        polarity=" and ".join(sorted({each.polarity for each in images})),
        blur=float(np.nanmedian([each.blur for each in images])) if len(sizes) == 1 else math.nan,
        pixel_size=sizes.pop() if len(sizes) == 1 else None,
        annotations=[],  # they are of images, not of groups
    )


def _reach(image: FibreDiameters) -> float:
    """Return half the width of the interval of the logarithm of a median; 0 if it is unknown."""
    return float(np.nan_to_num(np.log(image.interval.high / image.interval.low) / 2))


def _log_error(image: FibreDiameters) -> float:
    """Return the standard error of the logarithm of a median, of all fibres like these."""
    drawn = Sample(image.diameters, image.weights, image.fibres).quantiles([0.5])[1:3, 0]
    open_ends = image.diameters.min(), image.diameters.max()
    drawn = np.where(np.isnan(drawn), open_ends, drawn)
    return math.hypot(np.diff(np.log(drawn))[0] / 2, _reach(image)) / NORMAL_FACTOR
