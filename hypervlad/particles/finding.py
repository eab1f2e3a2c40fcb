"""Particles found without training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hypervlad.common.constraints import Integer, OneOf, check_value
from hypervlad.images import ReadOptions
from hypervlad.images.sample import Annotations, drop_hidden, one_or_many, read_sample
from hypervlad.objects.detection import MIN_AREA
from hypervlad.objects.particle import Outlines
from hypervlad.objects.splitting import (
    EIGHT,
    BoolMap,
    FloatMap,
    LabelMap,
    Window,
    areas_of,
    label_parts,
    larger_window,
    largest_piece,
    separate_at_necks,
    values_of,
    without_holes,
)

_SMOOTHINGS = (1.0, 2.0)  # standard deviations in pixels; the larger if noise hides half contrast
_FLOOR = 6.0  # standard deviations of the noise, which chance does not reach in a connected area
_MIN_NOISE = 0.001  # of the range of grey levels: images without noise have rounded levels
_GAP = 4  # radius in pixels of what is filled between particles that nearly touch
_MIN_GAP = 0.1  # depth of a gap, of the contrast beside it
_GAP_FLOOR = 3.0  # depth of a gap, in standard deviations of the particles' own texture
_N_BLOCKS = 64  # along the shorter side of the field, to fit the background
_DEGREE = 4  # of the polynomial
_MIN_STEP = 0.25  # of a particle's contrast, which it has at its outline: light has no outlines
_LOCAL = 8  # blocks: standard deviation of the smoothing of what a polynomial leaves


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class FoundParticles(Outlines):
    """The outlines of the particles that `find_particles` found, and how it found them.

    Attributes
    ----------
    polarity : {"bright", "dark"} or None
        Whether particles are brighter or darker than the background; None if not given and
        nothing was found.
    confidence : float
        Of the polarity, from 0 to 1: how much more contrast it explains than the opposite one. 1
        if the polarity was given, 0 if nothing was found.
    """

    polarity: Literal["bright", "dark"] | None
    confidence: float


@one_or_many()
def find_particles(
    image: Any,
    *,
    polarity: Literal["auto", "bright", "dark"] = "auto",
    min_area: int = MIN_AREA,
    annotations: Annotations = "leave_out",
    read_options: Mapping[str, Any] | ReadOptions | None = None,
) -> FoundParticles:
    """Find particles that are brighter or darker than the background, without training.

    Hot pixels, far beyond all others, are clipped. Annotations are left out, with the particles
    that they cover in part. A smooth background is subtracted. A particle stands out by at least
    six standard deviations of the noise, and half the contrast of most of the particles' area, over
    `min_area` pixels. Its outline runs at half of its own contrast. Smaller holes are filled.
    Touching particles are separated at gaps between them and at narrow necks.

    More than half of the field must be background, and four fifths where particles are narrower
    than ten pixels: of denser ones, none may be found. Dirt is found as well, and branched or
    curved particles may be found in pieces.

    Parameters
    ----------
    image : path or array, or list of these
        As in :func:`hypervlad.read_micrograph`. Colours are averaged.
    polarity : {"auto", "bright", "dark"}, default="auto"
        "auto" chooses what stands out by more, summed over pixels.
    min_area : int, default=20
        Particles of fewer pixels are left out.
    annotations : {"leave_out", "keep"}, default="leave_out"
        Whether what was drawn into the image, as :func:`hypervlad.images.find_annotations` finds
        it, is left out.
    read_options : dict or ReadOptions, optional
        The fields of :class:`hypervlad.images.ReadOptions`; ``scaling="auto"`` is "minmax" here.

    Returns
    -------
    FoundParticles, or list of them
        The `Outlines`; ``np.asarray`` of it is a label image. A list of images gives a list.

    Raises
    ------
    ValueError
        If a parameter is out of range, or an image cannot be read (`ImageReadError`); it is named.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.particles import find_particles
    >>> image = np.random.default_rng(0).normal(0.7, 0.02, (64, 64))
    >>> image[10:20, 10:20] -= 0.3
    >>> image[40:55, 30:40] -= 0.3
    >>> found = find_particles(image.clip(0, 1))
    >>> len(found), found.polarity, np.asarray(found).shape
    (2, 'dark', (64, 64))
    """
    check_value("polarity", polarity, [OneOf("auto", "bright", "dark")])
    check_value("min_area", min_area, [Integer()])
    grey, seen, pixel_size, left_out = read_sample(
        image, annotations=annotations, read_options=read_options
    )
    # In place where possible: each map of the largest images takes 256 MB.
    flat = _background(ndimage.gaussian_filter(grey, _SMOOTHINGS[0]))
    np.subtract(grey, flat, out=flat)
    del grey
    for smoothing in _SMOOTHINGS:
        contrast = ndimage.gaussian_filter(flat, smoothing)
        floor = _FLOOR * max(_spread(contrast), _MIN_NOISE)
        bright = float((contrast[contrast > floor] - floor).sum())
        dark = float((-contrast[contrast < -floor] - floor).sum())
        is_dark = polarity == "dark" or (polarity == "auto" and dark > bright)
        if is_dark:
            np.negative(contrast, out=contrast)
        threshold = max(floor, _half_contrast(contrast[contrast > floor]))
        if threshold > floor:
            break
    del flat
    # Faint particles beside bright ones: their outlines follow half of their own contrast.
    mask = without_holes(_connected_to(contrast, threshold / 2, threshold, min_area), min_area)
    texture = (contrast - ndimage.gaussian_filter(contrast, 2 * smoothing))[mask]
    min_gap = _GAP_FLOOR * _spread(texture) if mask.any() else 0.0

    def partition(window: Window, inside: BoolMap) -> LabelMap:
        if not _has_edge(contrast, window, inside, threshold / 2):
            return np.zeros(inside.shape, np.int32)
        cores = inside & ~_gaps(contrast, window, min_gap)
        parts = separate_at_necks(inside, without_holes(cores, min_area))
        _trim(parts, contrast[window], threshold / 2, min_area)
        return parts

    labels = label_parts(mask, min_area, partition)
    n_beside = drop_hidden(labels, seen)
    outlines = Outlines.of_labels(labels)
    found, is_given = len(outlines) > 0, polarity != "auto"
    known: Literal["bright", "dark"] | None = "dark" if is_dark else "bright"
    known = known if found or is_given else None
    confidence = 1.0 if is_given else abs(bright - dark) / (bright + dark) if found else 0.0
    return FoundParticles(
        outlines.shape,
        outlines.outlines,
        pixel_size,
        polarity=known,
        confidence=confidence,
        annotations=left_out,
        n_beside=n_beside,
    )


# --- contrast to the background ------------------------------------------------------------------


def _spread(values: FloatMap) -> float:
    """Return the standard deviation of most values around 0, from about a million of them."""
    every = len(values.ravel()) // 1_000_000 | 1  # odd, for all columns to take part
    return float(1.4826 * np.median(np.abs(values.ravel()[::every])))


def _background(grey: FloatMap) -> NDArray[np.float32]:
    """Fit a surface to the background: a robust polynomial, and what it leaves, smoothed."""
    height, width = grey.shape
    block = max(1, min(grey.shape) // _N_BLOCKS)
    grey = np.pad(grey, [(0, -side % block) for side in grey.shape], mode="edge")
    shape = grey.shape[0] // block, grey.shape[1] // block
    tiles = grey.reshape(shape[0], block, shape[1], block)
    blocks = np.stack([np.median(row, axis=(0, 2)) for row in tiles])
    tiles -= blocks[:, None, :, None]
    noise = float(np.median(np.abs(grey, out=grey), overwrite_input=True))
    del grey, tiles
    blocks = blocks.astype(np.float64)
    y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
    powers = [(i, j) for i in range(_DEGREE + 1) for j in range(_DEGREE + 1 - i)]
    terms = np.stack([(y**i * x**j).ravel() for i, j in powers], axis=1)
    values = blocks.ravel()
    scale, surface = _robust_fit(terms, values, np.full_like(values, np.median(values)))
    surface = surface.reshape(shape)
    scale = max(scale, 4.5 * noise)
    for _ in range(4):
        left = blocks - surface
        free = np.abs(left) < scale
        near = ndimage.gaussian_filter(np.where(free, left, 0), _LOCAL)
        surface += near / np.maximum(ndimage.gaussian_filter(free.astype(float), _LOCAL), 0.1)
    # A block more on each side, linearly continued, for the pixels beyond the middle of the last.
    wider = np.pad(surface.astype(np.float32), 1, mode="reflect", reflect_type="odd")
    enlarged: NDArray[np.float32] = ndimage.zoom(
        wider, block, order=1, mode="nearest", grid_mode=True
    )
    return enlarged[block : block + height, block : block + width]


def _robust_fit(terms: FloatMap, values: FloatMap, fitted: FloatMap) -> tuple[float, FloatMap]:
    """Improve a fit by reweighted least squares; return its width and its values."""
    for _ in range(20):
        left = values - fitted
        scale = max(6 * float(np.median(np.abs(left))), 1e-6)
        weighted = terms * (np.clip(1 - (left / scale) ** 2, 0, None) ** 2)[:, None]  # Tukey's
        # The normal equations: terms are few and between -1 and 1, values may be many.
        normal, right = weighted.T @ terms, weighted.T @ values
        fitted = terms @ np.linalg.lstsq(normal, right, rcond=None)[0]
    return scale, fitted


def _half_contrast(values: FloatMap) -> float:
    """Return half the median of contrasts weighted by themselves: faint debris counts little."""
    if not len(values):
        return 0.0
    ordered = np.sort(values)
    total = np.cumsum(ordered, dtype=np.float64)
    return 0.5 * float(ordered[np.searchsorted(total, total[-1] / 2)])


def _connected_to(contrast: FloatMap, low: float, high: float, min_area: int) -> BoolMap:
    """Return the connected pixels above `low` of which at least `min_area` are above `high`."""
    components, n = ndimage.label(contrast > low, EIGHT)
    kept = areas_of(components[contrast > high], n) >= min_area
    kept[0] = False
    return values_of(components, kept, np.empty(contrast.shape, bool))


def _has_edge(contrast: FloatMap, window: Window, inside: BoolMap, low: float) -> bool:
    """Return whether contrast falls within a few pixels at the outline, unlike that of light."""
    around, inner = larger_window(window)
    values, mask = contrast[around], np.zeros(contrast[around].shape, bool)
    mask[inner] = inside
    within = mask & ~ndimage.binary_erosion(mask, EIGHT, iterations=3, border_value=1)
    beyond = ndimage.binary_dilation(mask, EIGHT, iterations=3) & ~mask & (values <= low)
    if not (within.any() and beyond.any()):
        return False
    step = float(values[within].mean() - values[beyond].mean())
    return step > _MIN_STEP * float(np.median(values[mask]))


def _gaps(contrast: FloatMap, window: Window, min_depth: float) -> BoolMap:
    """Return the pixels of a window between two places of higher contrast."""
    around, inner = larger_window(window)
    rows, columns = np.ogrid[-_GAP : _GAP + 1, -_GAP : _GAP + 1]
    disk = rows**2 + columns**2 <= _GAP**2
    closed = ndimage.grey_closing(contrast[around], footprint=disk)[inner]
    gaps: BoolMap = closed - contrast[window] > np.maximum(_MIN_GAP * closed, min_depth)
    return gaps


def _trim(parts: LabelMap, contrast: FloatMap, low: float, min_area: int) -> None:
    """Keep of each part the largest connected area above half its own contrast, in place."""
    for part, window in enumerate(ndimage.find_objects(parts), start=1):
        mask = parts[window] == part
        above = mask & (contrast[window] > max(low, float(np.median(contrast[window][mask])) / 2))
        parts[window][mask & ~without_holes(largest_piece(above), min_area)] = 0
