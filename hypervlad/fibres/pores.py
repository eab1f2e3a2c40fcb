"""Pores between fibres, and how much of an image fibres cover."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter, label, map_coordinates, zoom

from hypervlad.common.constraints import Integer, check_value
from hypervlad.fibres.contrast import FloatMap, Values, noise_deviation, normalised_contrast
from hypervlad.fibres.diameters import FibreDiameters, cross_lines
from hypervlad.images import PixelSizes, ReadOptions
from hypervlad.images.morphology import EIGHT, grown
from hypervlad.images.reading import image_name
from hypervlad.images.resampling import areas_of
from hypervlad.images.sample import Annotations, drop_hidden, one_or_many, read_sample
from hypervlad.objects.particle import Outlines, marked_outlines
from hypervlad.statistics.groups import Interval, weighted_quantiles

_BODY = 0.8  # of the diameter, across which brightness is averaged
_CLEAN = 8.0  # contrast over the noise, which smoothing is to reach
_SMOOTHING = (0.5, 0.25)  # standard deviation: least in pixels, most in median diameters
# Where fibres end, between background (0) and bodies (1). Bright ones: the mean of what is measured
# at their edges and what lower, dimmer fibres have, and not so much that dim middles of fibres with
# bright rims are pores; dense mats have many lower ones. Dark ones add up where they cross.
_LOWER, _HIGHEST, _OF_DENSE, _OF_DARK = 0.3, 0.42, 0.35, 0.3
_DENSE = 0.6, 0.85  # covers from which on a mat is, partly and fully
_REACH = 0.23  # by which these may be wrong, within 95 %
_BLOCKS = 48  # along the shorter side, in which brightnesses are compared
_LOCAL = 0.25  # of the shorter side: standard deviation of the average of what is near
_N_PASSES = 4


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Pores(Outlines):
    """The outlines of pores, in the order of their first pixels.

    Attributes
    ----------
    cover : float
        Share of the image that fibres cover: all but pores, also those too small for an outline;
        NaN without diameters, and then ``note`` says why.
    cover_interval : Interval
        95 % interval of the cover of this image, from how soft edges are; the sample's own needs
        several images.
    """

    cover: float
    cover_interval: Interval


@one_or_many("found", "leave_out")
def find_pores(
    image: Any,
    found: FibreDiameters,
    *,
    pixel_size: float | PixelSizes | None = None,
    min_area: int = 30,
    leave_out: ArrayLike | None = None,
    annotations: Annotations = "leave_out",
    read_options: Mapping[str, Any] | ReadOptions | None = None,
) -> Pores:
    """Find the pores between fibres: regions with the brightness that is found beside fibres.

    The limit is a share of the contrast between the bodies of the fibres whose diameters were
    measured and the background near them: what bright fibres have at their edges tells it. It
    follows uneven light.

    Parameters
    ----------
    image : path or array, or list of these
        As for `fibre_diameters`.
    found : FibreDiameters
        From `fibre_diameters` of this image. With a list of images, a list.
    pixel_size : float or PixelSizes, optional
        Nanometres per pixel, with which the diameters were measured.
    min_area : int, default=30
        Pores of fewer pixels have no outline.
    leave_out : array-like of shape (n, 2), optional
        Row and column, in pixels, of a point in each pore that a person has left out: there, fibres
        cover the image. See `read_left_out`. With a list of images, a list.
    annotations : {"leave_out", "keep"}, default="leave_out"
        Whether margins, at which pores are cut off as at the image's edge, and what was drawn into
        the image, with the pores that it covers in part, are left out, also of the cover.
    read_options : dict or ReadOptions, optional
        As for `fibre_diameters`.

    Returns
    -------
    Pores, or list of them
        Outlines, for :func:`hypervlad.particles.measure` and ``cut_particles``, and the `cover`.
        Empty if there are no diameters.

    Raises
    ------
    ValueError
        If diameters are of a larger image or need a pixel size, the image
        cannot be read, or a parameter is out of range.

    Examples
    --------
    >>> from hypervlad.data import make_fibre_images
    >>> from hypervlad.fibres import fibre_diameters, find_pores
    >>> (image,), (truth,) = make_fibre_images(
    ...     1, diameter=9, look="flat", cover=0.5, size=256, random_state=0
    ... )
    >>> pores = find_pores(image, fibre_diameters(image))
    >>> pores.cover_interval.low < truth.cover < pores.cover_interval.high, len(pores) > 10
    (True, True)
    """
    from hypervlad.objects.splitting import numbers_of, values_of  # not above: it imports skimage

    check_value("min_area", min_area, [Integer()])
    if not isinstance(found, FibreDiameters):
        raise ValueError(
            f"found: expected the FibreDiameters of the image, got {type(found).__name__}; of a "
            "list of images, give a list"
        )
    sample = read_sample(
        image, annotations=annotations, read_options=read_options, pixel_size=pixel_size
    )
    grey, seen, size, left_out, _ = sample
    if not len(found.diameters):
        note = f"no pores without diameters of fibres, and there are none: {found.reason}"
        nothing = (grey.shape[0], grey.shape[1]), (), size, left_out
        unknown = Interval(math.nan, math.nan)
        return Pores(*nothing, note=note, cover=math.nan, cover_interval=unknown)
    contrast = normalised_contrast(grey, image_name(image))
    contrast *= 1 if found.polarity == "bright" else -1
    shape = contrast.shape[0], contrast.shape[1]
    ends = cross_lines(found, size)
    if (ends.min(axis=1) > shape).any():
        raise ValueError(
            f"the image has {shape[0]} x {shape[1]} pixels, and diameters were measured beyond "
            "them; give the image that they were measured on"
        )
    smooth = gaussian_filter(contrast, 1.0)
    bodies, beside = _brightness(smooth, ends, found.blur)
    typical = max(float(np.median(bodies - beside)), 1e-3)
    noise = noise_deviation(contrast) / (2 * np.sqrt(np.pi))  # over the standard deviation
    width = float(np.median(np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1)))
    sigma = max(_SMOOTHING[0], min(_CLEAN * noise / typical, _SMOOTHING[1] * width))
    smooth = gaussian_filter(contrast, sigma)
    open_, low, high = _open_pixels(smooth, seen, ends, found)
    labels, n = label(open_, EIGHT)
    values_of(labels, numbers_of(areas_of(labels, n) >= min_area), labels)
    around = grown(~(seen | sample.margin), corners=True)
    n_beside = drop_hidden(labels, sample._replace(mask=~around), min_area)
    pores = Outlines.of_labels(labels)
    if leave_out is not None:
        is_out = marked_outlines(pores.outlines, leave_out, image_name(image))
        for each in pores[is_out]:
            open_[each.window] &= ~each.mask
        pores = pores[~is_out]
    cover = 1 - float(open_[seen].mean())
    interval = Interval(min(low, cover), max(high, cover))
    return Pores(
        shape, pores.outlines, size, left_out, n_beside, cover=cover, cover_interval=interval
    )


def _brightness(smooth: FloatMap, ends: Values, blur: float) -> tuple[Values, Values]:
    """Return the brightness on the bodies of fibres, and on the darker side beside them."""
    across = ends[:, 1] - ends[:, 0]
    beyond = (2 + 2 * blur) * across / np.linalg.norm(across, axis=1, keepdims=True)
    steps = _BODY * np.linspace(-0.5, 0.5, 9)[:, None, None]
    bodies = _at(smooth, ends.mean(axis=1) + steps * across).mean(axis=0)
    return bodies, np.minimum(_at(smooth, ends[:, 0] - beyond), _at(smooth, ends[:, 1] + beyond))


def _at(smooth: FloatMap, points: Values) -> Values:
    at = np.moveaxis(points, -1, 0)
    return np.asarray(map_coordinates(smooth, at, np.float64, order=1, mode="nearest"))


def _open_pixels(
    smooth: FloatMap, seen: NDArray[np.bool_], ends: Values, found: FibreDiameters
) -> tuple[NDArray[np.bool_], float, float]:
    """Return where no fibre is, and the ends of the interval of what fibres cover."""
    bodies, beside = _brightness(smooth, ends, found.blur)

    def open_at(share: float) -> NDArray[np.bool_]:
        return np.asarray((smooth < _level(smooth, (bodies, beside), found, share)) & seen)

    def cover_at(share: float) -> float:
        return 1 - float(open_at(share)[seen].mean())

    share = _OF_DARK
    if found.polarity == "bright":
        shares = (_at(smooth, ends).mean(axis=1) - beside) / np.maximum(bodies - beside, 1e-3)
        (at_edges,) = weighted_quantiles(shares, found.weights, [0.5])
        edges = min((_LOWER + float(at_edges)) / 2, _HIGHEST)
        is_dense = float(np.interp(cover_at(_OF_DENSE), _DENSE, (0, 1)))
        share = edges + is_dense * min(_OF_DENSE - edges, 0)
    return open_at(share), cover_at(share + _REACH), cover_at(share - _REACH)


def _level(
    smooth: FloatMap, brightness: tuple[Values, Values], found: FibreDiameters, share: float
) -> Values:
    """Return the brightness at each pixel below which there is no fibre."""
    step = max(1, min(smooth.shape) // _BLOCKS)
    some = smooth[::step, ::step].astype(np.float64)
    reach = _LOCAL * min(some.shape)
    at = np.rint(found.positions / step).astype(int)
    row, column = np.clip(at, 0, np.asarray(some.shape) - 1).T

    def near(values: Values, weights: Values) -> Values:
        far = 1e-3 * weights.mean()  # counts where nothing is near
        mean = np.average(values, weights=weights)
        sums = gaussian_filter(values * weights, reach) + far * mean
        return np.asarray(sums / (gaussian_filter(weights, reach) + far))

    def near_places(values: Values) -> Values:
        sums, weights = np.zeros(some.shape), np.zeros(some.shape)
        np.add.at(sums, (row, column), values * found.weights)
        np.add.at(weights, (row, column), found.weights)
        return near(sums / np.where(weights > 0, weights, 1), weights)

    bodies, background = map(near_places, brightness)
    level = background + share * (bodies - background)
    for _ in range(_N_PASSES):
        if (is_open := some < level).any():
            background = near(some, is_open.astype(np.float64))
            level = background + share * (bodies - background)
    height, width = smooth.shape
    return np.asarray(zoom(level, step, order=1)[:height, :width])
