"""Two programs that measure alignment today, from their published formulas.

OrientationJ: the structure tensor under a Gaussian window; Püspöki, Storath, Sage and Unser 2016,
"Transforms and operators for directional bioimage analysis: a survey", Advances in Anatomy,
Embryology and Cell Biology 219; coherency after Rezakhaniha et al. 2012, "Experimental
investigation of collagen waviness", Biomechanics and Modeling in Mechanobiology 11. FibrilTool: the
nematic tensor of unit gradients over a region; Boudaoud et al. 2014, "FibrilTool, an ImageJ plug-in
to quantify fibrillar structures in raw microscopy images", Nature Protocols 9.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter, shift, spline_filter1d

FloatMap = NDArray[np.float64]
GRADIENTS = ("cubic_spline", "finite_difference", "gaussian")
#: Added to the energy in OrientationJ's coherency, in squared grey levels of an 8-bit image.
EPSILON = 0.001
#: FibrilTool ignores gradients shorter than this, in grey levels of an 8-bit image.
FIBRILTOOL_THRESHOLD = 2.0


class Orientation(NamedTuple):
    """OrientationJ's maps, each of shape (H, W).

    Attributes
    ----------
    orientation : radians in (-pi / 2, pi / 2], along the fibre, counter-clockwise in the image
    coherency : 0 to 1
    energy : sum of the tensor's eigenvalues
    """

    orientation: FloatMap
    coherency: FloatMap
    energy: FloatMap


class Anisotropy(NamedTuple):
    """FibrilTool's result for a region.

    Attributes
    ----------
    direction : radians in (-pi / 2, pi / 2], along the fibrils, counter-clockwise in the image
    anisotropy : 0 to 1
    """

    direction: float
    anisotropy: float


def orientationj(
    image: ArrayLike,
    sigma: float = 1.0,
    gradient: Literal["cubic_spline", "finite_difference", "gaussian"] = "cubic_spline",
) -> Orientation:
    """Return OrientationJ's orientation, coherency and energy.

    With J the products of the gradients under a Gaussian window, y up: orientation
    atan2(-2 J_xy, J_yy - J_xx) / 2, coherency sqrt((J_yy - J_xx)^2 + 4 J_xy^2) / (J_xx + J_yy +
    epsilon).

    Parameters
    ----------
    image : array-like of shape (H, W)
        In grey levels of 8 bits.
    sigma : float, default=1.0
        Of the window ("local window" in OrientationJ), in pixels.
    gradient : {"cubic_spline", "finite_difference", "gaussian"}, default="cubic_spline"
        The first is OrientationJ's default; the last uses a Gaussian of one pixel.

    Examples
    --------
    >>> stripes = 100 * np.sin(0.5 * np.arange(40))[:, None] * np.ones(40)
    >>> found = orientationj(stripes, sigma=2)
    >>> bool(abs(found.orientation).max() < 1e-6), round(float(found.coherency[20, 20]), 3)
    (True, 1.0)
    """
    if gradient not in GRADIENTS:
        raise ValueError(f"gradient={gradient!r}: expected one of {', '.join(GRADIENTS)}.")
    down, right = _gradients(np.asarray(image, dtype=np.float64), gradient)
    xx, yy, xy = (
        gaussian_filter(product, sigma, mode="mirror")
        for product in (right * right, down * down, -right * down)
    )
    length = np.hypot(yy - xx, 2 * xy)
    orientation = 0.5 * np.arctan2(-2 * xy, yy - xx)
    return Orientation(orientation, length / (xx + yy + EPSILON), xx + yy)


def fibriltool(
    image: ArrayLike,
    region: ArrayLike | None = None,
    threshold: float = FIBRILTOOL_THRESHOLD,
) -> Anisotropy:
    """Return FibrilTool's mean direction and anisotropy of a region.

    With n the unit vectors along the gradients of the region's pixels, zero where the gradient is
    short: the eigenvector of the smaller eigenvalue of <n n^T>, and the difference of the
    eigenvalues over their sum.

    Parameters
    ----------
    image : array-like of shape (H, W)
        In grey levels of 8 bits.
    region : array-like of bool, shape (H, W), optional
        The whole image by default.
    threshold : float, default=2.0
        Gradients shorter than this are left out, in grey levels per pixel.

    Examples
    --------
    >>> stripes = 100 * np.sin(0.5 * np.arange(40))[:, None] * np.ones(40)
    >>> found = fibriltool(stripes)
    >>> abs(round(found.direction, 6)), round(found.anisotropy, 6)
    (0.0, 1.0)
    """
    pixels = np.asarray(image, dtype=np.float64)
    inside = np.ones(pixels.shape, bool) if region is None else np.asarray(region, dtype=bool)
    x, y, kept = unit_gradients(pixels, threshold)
    kept = kept & inside
    if not kept.any():
        return Anisotropy(0.0, 0.0)
    xx, yy, xy = (float(np.mean(product[kept])) for product in (x * x, y * y, x * y))
    return Anisotropy(
        float(0.5 * np.arctan2(-2 * xy, yy - xx)), float(np.hypot(xx - yy, 2 * xy) / (xx + yy))
    )


def unit_gradients(
    image: ArrayLike, threshold: float = FIBRILTOOL_THRESHOLD
) -> tuple[FloatMap, FloatMap, NDArray[np.bool_]]:
    """Return FibrilTool's unit vectors along the gradients (x right, y up), and where they count.

    Parameters
    ----------
    image : array-like of shape (H, W)
        In grey levels of 8 bits.
    threshold : float, default=2.0
        Shorter gradients are ignored: there x and y are zero.
    """
    pixels = np.asarray(image, dtype=np.float64)
    down, right = (_half_pixel_step(pixels, axis) for axis in (0, 1))
    length = np.hypot(down, right)
    kept = length >= threshold
    scale = np.where(kept, 1 / np.where(kept, length, 1), 0)
    return right * scale, -down * scale, kept


def _gradients(pixels: FloatMap, gradient: str) -> tuple[FloatMap, FloatMap]:
    """Return derivatives down and to the right."""
    if gradient == "gaussian":
        down = gaussian_filter(pixels, 1.0, order=(1, 0), mode="mirror")
        return down, gaussian_filter(pixels, 1.0, order=(0, 1), mode="mirror")
    source = (
        (spline_filter1d(pixels, 3, axis=axis, mode="mirror") for axis in (0, 1))
        if gradient == "cubic_spline"
        else (pixels, pixels)
    )
    # The derivative of a cubic B-spline at its knots is (c[k + 1] - c[k - 1]) / 2.
    down, right = (_central(values, axis) for axis, values in enumerate(source))
    return down, right


def _central(values: FloatMap, axis: int) -> FloatMap:
    along = np.moveaxis(np.pad(values, 1, mode="reflect"), axis, 0)
    steps = (along[2:] - along[:-2])[:, 1:-1] / 2
    return np.moveaxis(steps, 0, axis)


def _half_pixel_step(pixels: FloatMap, axis: int) -> FloatMap:
    """Return the difference of the image shifted half a pixel forward and backward."""
    half = np.eye(2)[axis] / 2
    ahead, behind = (shift(pixels, sign * half, order=3, mode="nearest") for sign in (-1, 1))
    return np.asarray(ahead - behind)
