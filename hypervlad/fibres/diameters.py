"""Diameters of fibres, from the profiles across them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.common.constraints import OneOf, check_value
from hypervlad.common.progress import joined_notes
from hypervlad.fibres.bundles import ribbons, several_wide, within_bundles
from hypervlad.fibres.contrast import OF_FEW_LEVELS, Values, few_levels
from hypervlad.fibres.kinds import fit_kinds, two_around_median
from hypervlad.fibres.left_out import marked_places
from hypervlad.fibres.places import (
    PROBABILITY,
    Appearance,
    Field,
    LongFibres,
    Places,
    followed,
    sharp_field,
)
from hypervlad.fibres.profile_network import LOOKS, ProfileNetwork
from hypervlad.fibres.shells import (
    OF_RIBBONS,
    OF_WALLS,
    PERHAPS_RIBBONS,
    PERHAPS_TUBES,
    WholeBodies,
    are_walls,
)
from hypervlad.images import Annotation, PixelSizes, ReadOptions
from hypervlad.images.annotations import annotation_mask, words_of_annotations
from hypervlad.images.faults import saturated_share
from hypervlad.images.reading import image_name
from hypervlad.images.resampling import at_own_sampling
from hypervlad.images.sample import Annotations, Sample, one_or_many, read_sample
from hypervlad.statistics.groups import Interval, weighted_quantiles

Polarity: TypeAlias = Literal["auto", "bright", "dark"]
SIGNS: Mapping[Polarity, Sequence[float]] = {"bright": [1.0], "dark": [-1.0], "auto": [1.0, -1.0]}
#: Why places are not measured.
REFUSALS: tuple[str, ...] = ("outside the mask", "no whole fibre", "not resolved", "uncertain")
_SEVERAL, _MANY = "side by side", 0.15  # a reason more, and from which share of the others a note
# In thinner fibres, the two edges are one: 18 of 20 such mats of the benchmark are refused.
_SMALLEST = 3.0  # diameter in pixels
_RESOLVED = 2.355  # diameter over the blur's standard deviation: its full width at half maximum
_OF_SATURATED = 3.0  # times the share of saturated pixels, by which intervals are wider
_LEAST_LEVELS = 4
_OF_LEVELS = 55.0  # over the square of the number of few levels, by which intervals are wider
_OF_DARK = 0.15  # by which intervals are wider, of dark fibres that look flat
# The same in transmission, where errors of places are larger than this: of many layers, two fibres
# may look like one.
_OF_LAYERS, _UNSURE = 0.15, 0.1
# The same of diameters that are at most so many times the blur: they come out up to a sixth wider.
_OF_BLUR, _BLURRED = 0.1, 5.0
_OF_SEVERAL = 1.5  # times the logarithm by which leaving out what touches shifts the median
_LEVEL, _UPRIGHT = 8, 0.9995  # of drawn lines: pixels of one level on both sides; cosine
_MARGIN = 1.2  # of the median over the smallest diameter: with less, thin fibres are missed
_MAX_HALF_WIDTH = np.log(2)  # of the interval of the logarithm of the median: half to twice it
# By which edges of looks that the network has not learnt are off. Without, intervals hold 93 % of
# 549 mats of three drawing programs, with it 95 %.
_OF_LOOKS = 0.04
_MIN_ERROR = 0.01  # of the logarithm of a diameter, that counts
_MAX_ERROR = 0.4  # of the logarithm of a diameter
# Bounds of a correction that was fitted to synthetic mats: beyond, single places weigh too much.
_POWERS = (-0.5, 1.5)  # of the diameter, that acceptance may go with
_FACTOR = np.log(2)  # of the diameter
#: The arrays of `FibreDiameters` with one entry per place.
PER_PLACE = ("diameters", "errors", "positions", "directions", "weights", "fibres")
_DISC = [(y, x) for y in range(-2, 3) for x in range(-2, 3) if y * y + x * x <= 5]
_DARK = (
    "the fibres are dark and look flat: if they are round, as on a film in transmission, diameters "
    "are a tenth too small; strands of a film are measured like fibres: look at the cross lines"
)
_OF_THEIR_FIBRES = (
    ": diameters are estimates of those of their fibres, and the interval is wider; where fibres "
    "are fused or lie in layers, it may miss them"
)
_OF_PARALLEL = (
    "where the fibres are parallel, some touch: {:.0%} of the places are probably several fibres "
    "wide, as narrower ones lie within them, and are left out"
)
_OF_KINDS = (
    "the fibres are of two widths, around {:.3g} and {:.3g} {}, and one kind may be missed more, "
    "so the median may be of either, as the interval says; report both"
)
LEAST_PLACES = 10  # places of an image, at least
N_PLACES = (1000, 8000)  # per image, by its area


@dataclass(frozen=True, eq=False)
class FibreDiameters:
    """Diameters of the fibres of one image.

    Attributes
    ----------
    diameters : ndarray of float64, shape (n,)
        At the accepted places, in nm if the pixel size is known, else in pixels.
    errors : ndarray of float64, shape (n,)
        Standard errors in the same unit, of each place by itself.
    positions : ndarray of float64, shape (n, 2)
        Row and column of the middle of the fibre, in pixels.
    directions : ndarray of float64, shape (n,)
        Along the fibre, radians in [0, pi), counter-clockwise from the +x axis (y up).
    weights : ndarray of float64, shape (n,)
        Visible length that each place stands for, in the unit of the diameters: the way to its
        neighbours, more where fibres of its diameter are accepted less often, and for each fibre
        of a bundle.
    fibres : ndarray of int64, shape (n,)
        Places with the same number follow each other along one fibre.
    interval : Interval
        95 % interval of the median, from the errors of medians of synthetic mats with as many and
        as uncertain places, as much cover, and diameters that differ as much; as wide as to the
        medians of two kinds of fibres, where one may be missed more.
    refused : dict of str to int
        Number of places that were not accepted, by reason.
    profile : str or None
        How the brightness probably changes across fibres: "flat", "rims", "round" or
        "transmission".
    polarity : str
        "bright" or "dark" fibres; without diameters, what was asked.
    blur : float
        Standard deviation of the image's blur, in pixels.
    unit : str
        "nm" or "px".
    reason : str or None
        Why there are no diameters.
    annotations : list of Annotation
        What was left out, as it is no sample.
    annotation_share : float
        Share of the image that they cover.
    pixel_size : float or None
        Nanometres per pixel.
    enlarged : float
        How many times a program had enlarged the image, 1 if that does not show. Diameters are
        measured at the image's own sampling; pixels are those of the image as given.
    note : str
        What is doubtful or particular: few grey levels, shells around fibres, tubes, dark fibres
        that look flat, edges that are brighter on one side, widths that change along fibres,
        bundles, parallel fibres that touch.
    digest : str
        Of the image's pixels, by which copies are told; "" if it is not known.
    """

    diameters: Values
    errors: Values
    positions: Values
    directions: Values
    weights: Values
    fibres: NDArray[np.int64]
    interval: Interval
    refused: Mapping[str, int]
    profile: str | None
    polarity: str
    blur: float
    unit: str
    reason: str | None
    annotations: list[Annotation] = field(default_factory=list)
    annotation_share: float = 0.0
    pixel_size: float | None = None
    enlarged: float = 1.0
    note: str = ""
    digest: str = ""

    @property
    def mean(self) -> float:
        """Mean, weighted by visible length."""
        if not len(self.diameters):
            return float("nan")
        return float(np.average(self.diameters, weights=self.weights))

    @property
    def standard_deviation(self) -> float:
        """Standard deviation, weighted by visible length, with the errors of single places."""
        if not len(self.diameters):
            return float("nan")
        return float(np.sqrt(np.average((self.diameters - self.mean) ** 2, weights=self.weights)))

    @property
    def median(self) -> float:
        """Median, weighted by visible length."""
        return float(self.percentiles([50])[0])

    @property
    def of_fibres(self) -> Values:
        """Diameter and weight of each fibre with several places, shape (n_fibres, 2).

        Sure places count more. The median of the first column is number-weighted, but what hides a
        fibre cuts it in two.
        """
        number = np.unique(self.fibres, return_inverse=True)[1]
        shares = self.weights / np.maximum(self.errors / self.diameters, _MIN_ERROR) ** 2
        sums = np.bincount(number, shares * np.log(self.diameters))
        diameters = np.exp(sums / np.bincount(number, shares))
        of_fibres = np.stack([diameters, np.bincount(number, self.weights)], axis=1)
        return np.asarray(of_fibres[np.bincount(number) > 1])

    @property
    def modes(self) -> Values:
        """Kinds of fibres, shape (n_modes, 3); none of fewer than six, or of a few of two widths.

        Median, standard deviation of the logarithm, share of the visible length.
        """
        diameters, lengths = self.of_fibres.T
        return fit_kinds(np.log(diameters), lengths)

    def percentiles(self, shares: ArrayLike) -> Values:
        """Return percentiles of the diameters, weighted by visible length.

        Parameters
        ----------
        shares : array-like of float
            Percent.

        Returns
        -------
        ndarray of float64
            NaN if there are no diameters.
        """
        asked = np.atleast_1d(np.asarray(shares, dtype=float)) / 100
        return weighted_quantiles(self.diameters, self.weights, list(asked))


@one_or_many("mask", "leave_out")
def fibre_diameters(
    image: Any,
    *,
    pixel_size: float | PixelSizes | None = None,
    mask: ArrayLike | None = None,
    polarity: Polarity = "auto",
    leave_out: ArrayLike | None = None,
    annotations: Annotations = "leave_out",
    read_options: Mapping[str, Any] | ReadOptions | None = None,
) -> FibreDiameters:
    """Measure the diameters of fibres, wires or tubes.

    Profiles are taken at points of the centre lines of bright or dark lines, across and for a few
    pixels along. A small network that has learnt from synthetic mats of exact diameters says
    where a fibre lies with both edges visible, and how wide it is. It sees each profile beside all
    others of the image, which share its blur and its look: edges are where they were drawn, not
    where a threshold is crossed.

    Parameters
    ----------
    image : path or array, or list of these
        As in :func:`hypervlad.read_micrograph`, of any gain and offset. Colours are averaged.
    pixel_size : float or PixelSizes, optional
        In nm per pixel, of an image that states none; where it is unknown, diameters are in pixels.
    mask : array-like of bool, shape (H, W), optional
        Where to measure; what is elsewhere has no influence. With a list of images, a list.
    polarity : {"auto", "bright", "dark"}, default="auto"
        Whether fibres are brighter or darker than what is beside them.
    leave_out : array-like of shape (n, 2), optional
        Row and column of places that a person has left out, within a pixel: see `read_left_out`.
        With a list of images, a list.
    annotations : {"leave_out", "keep"}, default="leave_out"
        Whether margins and what was drawn into the image are left out, as
        :func:`hypervlad.images.find_annotations` finds them.
    read_options : dict or ReadOptions, optional
        The fields of :class:`hypervlad.images.ReadOptions`; ``scaling="auto"`` is "minmax" here.

    Returns
    -------
    FibreDiameters, or list of them
        Empty, with a `reason`, if no fibres are found. A list of images gives a list.

    Raises
    ------
    ValueError
        If an image cannot be read, is not finite within the mask, or has fewer than 3 x 3 pixels,
        or a parameter is out of range; the image is named.

    Notes
    -----
    There are no diameters if the median is not resolved: below 3 pixels, or below the full width at
    half maximum of the image's blur, or if its interval would be wider than from half to twice it.
    An image that a program has enlarged is measured at its own sampling; a warning says so.
    Fibres wider than about a quarter of the image's shorter side may not be found.

    Examples
    --------
    >>> from hypervlad.data import make_fibre_images
    >>> from hypervlad.fibres import fibre_diameters
    >>> (image,), _ = make_fibre_images(1, diameter=9, spread=0, cover=0.3, random_state=0)
    >>> found = fibre_diameters(image, pixel_size=20)
    >>> found.profile, found.unit, 165 < found.median < 195
    ('rims', 'nm', True)
    """
    check_value("polarity", polarity, [OneOf(*get_args(Polarity))])
    sample = read_sample(
        image, annotations=annotations, read_options=read_options, pixel_size=pixel_size, mask=mask
    )
    found = replace(_measured(sample, polarity, image_name(image)), digest=sample.digest)
    pixels, _, size, left_out, _ = sample
    if found.reason and left_out:
        reason = f"{found.reason}, besides what looks like {words_of_annotations(left_out)}"
        found = replace(found, reason=reason)
    share = float(annotation_mask(left_out, pixels.shape).mean())
    found = replace(found, annotations=left_out, annotation_share=share, pixel_size=size)
    if leave_out is None:
        return found
    return without_places(found, marked_places(found.positions, leave_out, image_name(image)))


def _measured(sample: Sample, polarity: Polarity, name: str) -> FibreDiameters:
    pixels, allowed, pixel_size, *_ = sample
    unit = "px" if pixel_size is None else "nm"
    if allowed.any():  # otherwise, what is elsewhere would decide on the contrast
        pixels = np.where(allowed, pixels, np.median(pixels[allowed]))
    rows, columns = (np.flatnonzero(allowed.any(axis=axis)) for axis in (1, 0))
    if not allowed.all() and min(len(rows), len(columns)) < 3:
        return _nothing("nothing may be measured", polarity, unit, {})
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    pixels, allowed, corner = pixels[box], allowed[box], np.array([rows[0], columns[0]])
    if pixels.min() == pixels.max():
        return _nothing("the image is flat", polarity, unit, {})
    values, note = pixels[allowed], ""
    widened = 1 + _OF_SATURATED * saturated_share(values)
    if n_levels := few_levels(values):
        widened += _OF_LEVELS / max(n_levels, _LEAST_LEVELS) ** 2
        note = OF_FEW_LEVELS.format(n_levels)
    pixels, allowed, enlarged = at_own_sampling(pixels, allowed, name)
    how = SIGNS[polarity], N_PLACES, ProfileNetwork.pretrained()
    field, found, step = sharp_field(pixels, allowed, *how, name)
    step *= enlarged
    result = _nothing("no lines that could be fibres", polarity, unit, {})
    if found is not None:
        result = _result(field, found, (pixel_size or 1.0) * step, unit, polarity, widened, note)
    positions = (result.positions + 0.5) * step - 0.5 + corner
    return replace(result, positions=positions, blur=result.blur * step, enlarged=enlarged)


def _result(
    field: Field,
    found: Appearance,
    size: float,
    unit: str,
    polarity: str,
    widened: float,
    note: str,
) -> FibreDiameters:
    places, refused = accepted_places(field, found)
    doubts = list[tuple[str, float]]()  # in words, and by how much intervals may miss for each

    def nothing(reason: str) -> FibreDiameters:
        why = "; ".join(filter(None, [reason, note, *(words for words, _ in doubts)]))
        return _nothing(why, polarity, unit, refused)

    if len(places) < LEAST_PLACES:
        return nothing("too few places show both edges of a fibre")
    fibres, lengths = followed(places)
    if are_walls(field, found.sign, places, lengths):
        return nothing(OF_WALLS)
    long = LongFibres.of(places, fibres, lengths)
    bodies = WholeBodies.of(field, found, long, few_levels=bool(note))
    bundled = _OF_THEIR_FIBRES * bool((bodies.n_wide > 1).any())
    doubts += [(words + bundled, error) for words, error in bodies.doubts]
    places = within_bundles(places, bodies.n_wide)
    places = replace(places, diameter=bodies.outer * places.diameter)
    lengths = bodies.n_wide * lengths
    if not is_resolved(found, places, lengths):
        return nothing("the fibres are too thin for the image: their diameters are not resolved")
    facts, logs = image_facts(field, found, places, lengths), np.log(places.diameter)
    weights = ProfileNetwork.pretrained().weights
    if of_ribbons := ribbons(places, fibres, lengths):
        doubts.append((of_ribbons, 0.0))
    else:
        lengths = corrected(lengths, logs, float(weights["acceptance"] @ facts))
    half_width = widened * float(np.exp(weights["interval"] @ median_facts(facts, logs, lengths)))
    (median,) = weighted_quantiles(places.diameter, lengths, [0.5])
    is_plain = all(words in (OF_RIBBONS, PERHAPS_RIBBONS, PERHAPS_TUBES) for words, _ in doubts)
    if is_plain and (aside := several_wide(places, fibres, lengths)).any():
        refused[_SEVERAL], share = int(aside.sum()), float(aside.mean())
        places, fibres, lengths = places.chosen(~aside), fibres[~aside], lengths[~aside]
        if len(places) < LEAST_PLACES:
            return nothing("too few places are of one fibre, not of several side by side")
        before, (median,) = median, weighted_quantiles(places.diameter, lengths, [0.5])
        words = _OF_PARALLEL.format(share) if share > _MANY else ""
        doubts.append((words, _OF_SEVERAL * np.log(before / median)))
    if found.sign < 0 and found.look == "flat" and (bodies.outer == 1).all():
        doubts.append((_DARK, _OF_DARK))
    if found.look == "transmission" and np.exp(facts[1]) > _UNSURE:
        doubts.append(("", _OF_LAYERS))
    if median < _BLURRED * found.blur:
        doubts.append(("", _OF_BLUR))
    half_width = math.hypot(half_width, _OF_LOOKS, *(wider for _, wider in doubts))
    if half_width > _MAX_HALF_WIDTH:
        return nothing("the median would be too uncertain")
    diameters, ratio, tangents = places.diameter * size, np.exp(half_width), places.tangents
    result = FibreDiameters(
        diameters=diameters,
        errors=diameters * places.error,
        positions=places.positions,
        directions=np.arctan2(-tangents[:, 0], tangents[:, 1]) % np.pi,
        weights=lengths * size,
        fibres=fibres,
        interval=Interval(float(size * median / ratio), float(size * median * ratio)),
        refused=refused,
        profile=found.look,
        polarity="bright" if found.sign > 0 else "dark",
        blur=found.blur,
        unit=unit,
        reason=None,
        note=joined_notes([note, *(words for words, _ in doubts)]),
    )
    return _between_kinds(result)


def _between_kinds(result: FibreDiameters) -> FibreDiameters:
    """Widen the interval where chance may decide of which kind of fibres the median is."""
    diameters, lengths = result.of_fibres.T
    around = two_around_median(np.log(diameters), lengths)
    if around is None:
        return result
    thinner, wider = around
    median, interval = result.median, result.interval
    low, high = min(thinner, median) / median, max(wider, median) / median
    interval = Interval(low * interval.low, high * interval.high)
    note = joined_notes([result.note, _OF_KINDS.format(thinner, wider, result.unit)])
    return replace(result, interval=interval, note=note)


def accepted_places(field: Field, found: Appearance) -> tuple[Places, dict[str, int]]:
    """Return the places that are measured, and how many are not, by reason."""
    places, accepted, refused = found.places, np.ones(len(found.places), bool), dict[str, int]()
    edge = places.diameter[:, None] / 2 * places.normals
    inside = [field.allows(places.positions + share * edge) for share in (-1, 0, 1)]
    # What is followed along the image's edge can end up beyond it.
    middle = np.rint(places.positions)
    is_within = np.all((middle >= 0) & (middle < np.asarray(field.shape)), axis=1)
    passed = (
        np.logical_and.reduce(inside) & ~is_drawn(field, places),
        is_within & (places.probability > PROBABILITY),
        places.diameter >= smallest_diameter(found),
        places.error < _MAX_ERROR,
    )
    for reason, each in zip(REFUSALS, passed, strict=True):
        if n := int((accepted & ~each).sum()):
            refused[reason] = n
        accepted &= each
    return places.chosen(accepted), refused


def is_drawn(field: Field, places: Places) -> NDArray[np.bool_]:
    """Return which places of a noisy image are on level lines along its sides, such as frames."""
    steps = np.arange(-_LEVEL, _LEVEL + 1)[:, None, None] * places.tangents
    at = np.rint(places.positions + steps).clip(0, np.asarray(field.shape) - 1).astype(np.intp)
    is_level = np.ptp(field.contrast[at[..., 0], at[..., 1]], axis=0) == 0
    is_upright = np.abs(places.normals).max(axis=1) > _UPRIGHT
    return np.asarray(is_level & is_upright & (field.noise.deviation > 0))


def smallest_diameter(found: Appearance) -> float:
    return max(_SMALLEST, _RESOLVED * found.blur)


def is_resolved(found: Appearance, places: Places, lengths: Values) -> bool:
    (median,) = weighted_quantiles(places.diameter, lengths, [0.5])
    return bool(median >= _MARGIN * smallest_diameter(found))


def image_facts(field: Field, found: Appearance, places: Places, lengths: Values) -> Values:
    """Return what the weights of an image's places depend on.

    They are 1, the logarithms of the places' errors and of their cover, how different they are, and
    which of the looks but the last one fibres have.
    """
    logs, share = np.log(places.diameter), lengths / lengths.sum()
    (error,) = weighted_quantiles(np.log(places.error), lengths, [0.5])
    cover = float(lengths @ places.diameter) / field.mask.sum()
    spread = np.sqrt(share @ (logs - share @ logs) ** 2)
    looks = [found.look == each for each in LOOKS[:-1]]
    return np.array([1.0, error, np.log(cover + 0.02), spread, *looks])


def median_facts(facts: Values, logs: Values, lengths: Values) -> Values:
    """Return what the interval of an image's median depends on.

    They are 1, the logarithms of the places' errors and of their cover, of how much the diameters
    in the middle fifth differ, and of the number of places. Looks make no difference beside these.
    """
    low, high = weighted_quantiles(logs, lengths, [0.4, 0.6])
    return np.array([*facts[:3], np.log(high - low + 0.01), np.log(len(logs))])


def corrected(lengths: Values, logs: Values, power: float) -> Values:
    """Return lengths, of the same sum, as if thick fibres were not accepted more often than others.

    The share that is accepted goes with a power of the diameter, within a factor of two around the
    middle one: beyond, single places would weigh too much. Along a fibre, it does not.
    """
    apart = around_middle(logs, np.median(logs))
    weights = lengths * np.exp(-np.clip(power, *_POWERS) * apart)
    return np.asarray(weights * (lengths.sum() / weights.sum()))


def around_middle(logs: Values, middle: np.floating) -> Values:
    return np.clip(logs - middle, -_FACTOR, _FACTOR)


def _nothing(reason: str, polarity: str, unit: str, refused: dict[str, int]) -> FibreDiameters:
    nan, none = float("nan"), np.zeros(0)
    places = none, none, np.zeros((0, 2)), none, none, np.zeros(0, np.int64)
    return FibreDiameters(*places, Interval(nan, nan), refused, None, polarity, nan, unit, reason)


# --- where diameters were measured ---------------------------------------------------------------


def cross_lines(found: FibreDiameters, pixel_size: float | None = None) -> Values:
    """Return the lines across fibres along which diameters were measured, from edge to edge.

    Parameters
    ----------
    found : FibreDiameters
    pixel_size : float, optional
        Nanometres per pixel, if the diameters are in nm.

    Returns
    -------
    ndarray of float64, shape (n, 2, 2)
        Both ends, each as row and column, in pixels.

    Raises
    ------
    ValueError
        If the diameters are in nm and there is no pixel size, or the other way round.

    Examples
    --------
    >>> from hypervlad.data import make_fibre_images
    >>> from hypervlad.fibres import cross_lines, fibre_diameters
    >>> (image,), _ = make_fibre_images(1, diameter=9, size=256, random_state=0)
    >>> found = fibre_diameters(image)
    >>> ends = cross_lines(found)
    >>> len(ends) == len(found.diameters), ends.shape[1:]
    (True, (2, 2))
    """
    if (found.unit == "nm") == (pixel_size is None):
        give = "leave it out" if found.unit == "px" else "give that of the image"
        raise ValueError(
            f"the diameters are in {found.unit}, and pixel_size is {pixel_size}; {give}"
        )
    half = found.diameters / 2 / (pixel_size or 1.0)
    across = np.stack([np.cos(found.directions), np.sin(found.directions)], axis=1)
    reach = half[:, None] * across
    return np.stack([found.positions - reach, found.positions + reach], axis=1)


def diameter_map(found: FibreDiameters, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return the diameters as an image, such as for a layer of napari or a signal of HyperSpy.

    Parameters
    ----------
    found : FibreDiameters
    shape : (H, W)
        Shape of the image.

    Returns
    -------
    ndarray of float32, shape (H, W)
        The diameter, in the unit of `found`, within two pixels of each place; NaN elsewhere.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.data import make_fibre_images
    >>> from hypervlad.fibres import diameter_map, fibre_diameters
    >>> (image,), _ = make_fibre_images(1, diameter=9, size=256, random_state=0)
    >>> drawn = diameter_map(fibre_diameters(image), image.shape)
    >>> drawn.shape, bool(np.isnan(drawn).any())
    ((256, 256), True)
    """
    drawn = np.full(shape, np.nan, np.float32)
    middle = np.rint(found.positions).astype(int)
    for offset in _DISC:
        rows, columns = (middle + offset).T
        inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
        drawn[rows[inside], columns[inside]] = found.diameters[inside]
    return drawn


def without_places(found: FibreDiameters, left_out: ArrayLike) -> FibreDiameters:
    """Return diameters without some of n places, as if a person had refused them.

    The interval moves with the median; its relative width is as before.
    """
    kept = ~np.asarray(left_out, bool)
    if kept.all():
        return found
    rest = replace(found, **{name: getattr(found, name)[kept] for name in PER_PLACE})
    ratio = rest.median / found.median
    interval = Interval(ratio * found.interval.low, ratio * found.interval.high)
    reason = None if kept.any() else found.reason or "all places were left out"
    return replace(rest, interval=interval, reason=reason)
