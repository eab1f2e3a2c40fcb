"""Diameters of fibres, from fitted profiles across them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from hypervlad.common.constraints import Integer, Number, OneOf, check_value
from hypervlad.fibres.appearance import Appearance, find_appearance
from hypervlad.fibres.axial import Interval
from hypervlad.fibres.gradients import normalised_contrast
from hypervlad.fibres.mixture import fit_kinds
from hypervlad.fibres.places import REFUSALS, Field
from hypervlad.fibres.profiles import Values, weighted_quantiles
from hypervlad.images.pixels import as_pixels
from hypervlad.images.scale_bars import ScaleBar, find_scale_bar

Polarity: TypeAlias = Literal["auto", "bright", "dark"]
_N_BOOTSTRAP = 400
_RESOLVED = 0.4  # how much better a body must fit than a blurred line
_EXPLAINED = 0.06  # share of the image's variance that fibres must explain
_BESIDE_BAR = 0.25  # lengths of a scale bar around it, within which its label is
_UNKNOWN = 0.05  # standard deviation of the logarithm of medians that no resampling shows


@dataclass(frozen=True, eq=False)
class FibreDiameters:
    """Diameters of the fibres of one image.

    Attributes
    ----------
    diameters : ndarray of float64, shape (n,)
        At the accepted places, in nm if the pixel size is known, else in pixels.
    errors : ndarray of float64, shape (n,)
        Standard errors in the same unit, from the noise and the fit; errors that the places of an
        image share, as of its blur, are not included.
    positions : ndarray of float64, shape (n, 2)
        Row and column of the middle of the fibre, in pixels.
    directions : ndarray of float64, shape (n,)
        Along the fibre, radians in [0, pi), counter-clockwise from the +x axis (y up).
    weights : ndarray of float64, shape (n,)
        Visible length that each place stands for, in the unit of the diameters.
    fibres : ndarray of int64, shape (n,)
        Places with the same number follow each other along one fibre.
    interval : Interval
        95 % interval of the median, from resampled fibres and from profiles that fit equally well;
        NaN with a single fibre.
    modes : ndarray of float64, shape (n_modes, 3)
        Kinds of fibres: median, standard deviation of the logarithm, share of the length; none if
        there are fewer than six fibres.
    refused : dict of str to int
        Number of places that were not accepted, by reason.
    profile : str or None
        Model of the brightness across fibres: "flat", "rims", "round" or "transmission".
    polarity : str
        "bright" or "dark" fibres.
    blur : float
        Standard deviation of the image's blur, in pixels.
    unit : str
        "nm" or "px".
    reason : str or None
        Why there are no diameters.
    """

    diameters: Values
    errors: Values
    positions: Values
    directions: Values
    weights: Values
    fibres: NDArray[np.int64]
    interval: Interval
    modes: Values
    refused: Mapping[str, int]
    profile: str | None
    polarity: str
    blur: float
    unit: str
    reason: str | None

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


def fibre_diameters(
    image: ArrayLike,
    *,
    pixel_size: float | None = None,
    mask: ArrayLike | None = None,
    polarity: Polarity = "auto",
    n_bootstrap: int = _N_BOOTSTRAP,
    random_state: int = 0,
) -> FibreDiameters:
    """Measure the diameters of fibres, wires or tubes.

    At points of the fibres' centre lines, a model of the profile is fitted to the brightness
    across, averaged over a few pixels along: equally bright, bright-rimmed, round, or of a
    transmission image, convolved with the blur of the image. The model and the blur are those that
    fit the image's profiles best. Neither a threshold nor a skeleton is needed.

    Parameters
    ----------
    image : array-like of shape (H, W)
        A grey image of any gain and offset.
    pixel_size : float, optional
        In nm per pixel; without it, diameters are in pixels.
    mask : array-like of bool, shape (H, W), optional
        Where to measure; what is elsewhere has no influence.
    polarity : {"auto", "bright", "dark"}, default="auto"
        Whether fibres are brighter or darker than what is beside them.
    n_bootstrap : int, default=400
        Number of resamples for the interval; 0 for none.
    random_state : int, default=0
        Seed of the bootstrap. Where diameters are measured does not depend on it.

    Returns
    -------
    FibreDiameters
        Empty, with a `reason`, if no fibres are found.

    Raises
    ------
    ValueError
        If the image has colours or holds NaN, or a parameter is out of range.

    Notes
    -----
    Fibres are followed from place to place by position, direction and diameter; a place that none
    continues is not believed. A scale bar that `hypervlad.images.find_scale_bar` finds is left out,
    with its label. If blurred lines without a body fit nearly as well as the best model, the
    diameters are not resolved, and there are none. In mats of many layers, wide fibres are followed
    more often than thin ones. Fibres wider than about a fifth of the image's shorter side are not
    found, and their bright rims may be taken for fibres.

    Examples
    --------
    >>> from hypervlad.data import make_fibre_images
    >>> from hypervlad.fibres import fibre_diameters
    >>> (image,), _ = make_fibre_images(1, diameter=9, spread=0, cover=0.3, random_state=0)
    >>> found = fibre_diameters(image, pixel_size=20)
    >>> found.profile, found.unit, 175 < found.median < 185
    ('rims', 'nm', True)
    """
    check_value("pixel_size", pixel_size, [Number(above=0, meaning="a number of nm"), None])
    check_value("polarity", polarity, [OneOf(*get_args(Polarity))])
    check_value("n_bootstrap", n_bootstrap, [Integer(at_least=0)])
    check_value("random_state", random_state, [Integer(at_least=0)])
    pixels = as_pixels(image, "the image")
    allowed = _checked_mask(mask, pixels.shape)
    unit = "px" if pixel_size is None else "nm"
    if (bar := find_scale_bar(pixels)) is not None:
        _leave_out(bar, allowed)
    if pixels.ndim == 2 and allowed.any():  # a bright bar must not decide on the contrast
        pixels = np.where(allowed, pixels, np.median(pixels[allowed]).astype(pixels.dtype))
    if pixels.ndim == 2 and pixels.min() == pixels.max():
        return _nothing("the image is flat", polarity, unit, {})
    contrast = normalised_contrast(pixels)
    field = Field.of(contrast, allowed)
    tried = ("bright", "dark") if polarity == "auto" else (polarity,)
    signs = [1.0 if each == "bright" else -1.0 for each in tried]
    # Matrix products are small: on a busy machine, two threads take four times as long.
    with threadpool_limits(1, user_api="blas"):
        found = find_appearance(contrast, field, signs)
    if found is None:
        return _nothing("no fibres that can be followed", polarity, unit, {})
    n_followed = int(found.followed.chains.followed.sum())
    seen = contrast[allowed]
    structure = max(float(seen.var()) - field.noise**2, 1e-9) * seen.size
    if found.followed.explained < _EXPLAINED * structure:
        reason = "fibres that can be followed explain too little of the image"
        return _nothing(reason, polarity, unit, {"not followed": n_followed})
    if found.line < _RESOLVED:
        reason = "the fibres look like blurred lines: their diameters are not resolved"
        return _nothing(reason, polarity, unit, {"not resolved": n_followed})
    size = 1.0 if pixel_size is None else float(pixel_size)
    return _result(field, found, size, unit, n_bootstrap, np.random.default_rng(random_state))


def _checked_mask(mask: ArrayLike | None, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    allowed = np.ones(shape[:2], bool) if mask is None else np.array(mask)
    if allowed.shape != shape[:2] or allowed.dtype != bool:
        raise ValueError(
            f"mask: got {allowed.dtype} of shape {allowed.shape}; expected bool of the image's "
            f"shape {shape[:2]}."
        )
    return allowed


def _leave_out(bar: ScaleBar, allowed: NDArray[np.bool_]) -> None:
    top, left, bottom, right = bar.box
    beside = round(_BESIDE_BAR * (right - left))
    allowed[max(top - beside, 0) : bottom + beside, max(left - beside, 0) : right + beside] = False


def _result(
    field: Field,
    found: Appearance,
    pixel_size: float,
    unit: str,
    n_bootstrap: int,
    rng: np.random.Generator,
) -> FibreDiameters:
    polarity = "bright" if found.sign > 0 else "dark"
    everywhere, chains = found.followed.places, found.followed.chains
    places = everywhere.chosen(chains.followed)
    reasons = np.bincount(everywhere.refused[~everywhere.accepted], minlength=len(REFUSALS))
    reasons[-1] = int((everywhere.accepted & ~chains.followed).sum())
    refused = {name: int(n) for name, n in zip(REFUSALS, reasons, strict=True) if n}
    # Places near the rim of the image are not measured, of thick fibres more than of thin ones.
    room = 1 - 2 * places.margin(field) / np.asarray(field.shape)
    weights = chains.length[chains.followed] / np.maximum(room, 0.1).prod(axis=1)
    diameters = places.diameter * np.exp(found.shift) * pixel_size
    fibres = np.unique(chains.fibre[chains.followed], return_inverse=True)[1]
    tangents = places.tangents
    return FibreDiameters(
        diameters=diameters,
        errors=places.error * pixel_size,
        positions=places.positions,
        directions=np.arctan2(-tangents[:, 0], tangents[:, 1]) % np.pi,
        weights=weights * pixel_size,
        fibres=fibres,
        interval=_interval(diameters, weights, fibres, found.error, n_bootstrap, rng),
        modes=fit_kinds(np.log(diameters), weights, int(fibres.max()) + 1),
        refused=refused,
        profile=found.followed.shape.name,
        polarity=polarity,
        blur=found.followed.blur,
        unit=unit,
        reason=None,
    )


def _nothing(reason: str, polarity: str, unit: str, refused: dict[str, int]) -> FibreDiameters:
    nan, none = float("nan"), np.zeros(0)
    return FibreDiameters(
        none,
        none,
        np.zeros((0, 2)),
        none,
        none,
        np.zeros(0, np.int64),
        Interval(nan, nan),
        np.zeros((0, 3)),
        refused,
        None,
        polarity,
        nan,
        unit,
        reason,
    )


def _interval(
    values: Values,
    weights: Values,
    groups: NDArray[np.int64],
    shape_error: float,
    n_bootstrap: int,
    rng: np.random.Generator,
) -> Interval:
    n_groups = int(groups.max()) + 1
    if n_bootstrap == 0 or n_groups < 2:
        return Interval(float("nan"), float("nan"))
    ordered = np.argsort(values)
    values, weights, groups = values[ordered], weights[ordered], groups[ordered]
    drawn = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_bootstrap)
    held = np.cumsum(drawn[:, groups] * weights, axis=1)
    middle = (held >= held[:, -1:] / 2).argmax(axis=1)
    error = np.hypot(shape_error, _UNKNOWN)
    medians = values[middle] * np.exp(error * rng.standard_normal(n_bootstrap))
    return Interval(*(float(q) for q in np.quantile(medians, [0.025, 0.975])))
