"""Defects that are added to any image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter, maximum_filter, median_filter

from hypervlad.datasets.drawing import (
    SMALLEST_SIZE,
    BoolMap,
    FloatMap,
    draw_seed,
    log_uniform,
    rows_and_columns,
    smooth_noise,
)
from hypervlad.images.pixels import as_pixels

#: The kinds of defects: see `add_defect`.
IMAGE_DEFECTS: tuple[str, ...] = ("scratch", "stain", "band", "blur", "gradient", "pits", "film")
_MIN_CONTRAST = 0.04  # ten grey levels of 8 bits: a smoother image gets no fainter defects
_VISIBLE = 0.1  # change that is visible, as a share of the standard deviation of the pixels
_MIN_CHANGE = 0.002  # half a grey level of 8 bits: less is never visible
_EDGE = 0.3  # where a soft defect ends, as a share of its strength
_TRIES = 50


def add_defect(
    image: ArrayLike, kind: str, *, random_state: int | np.random.RandomState | None = None
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Add one defect to an image, at a random place, of random size, shape and strength.

    Lengths are proportional to the image's shorter side, changes of brightness to the standard
    deviation of its pixels.

    Parameters
    ----------
    image : array-like of shape (H, W) or (H, W, 3), float in [0, 1]
        Each side at least 64 pixels. It is not modified. Channels of a colour image change alike.
    kind : {"scratch", "stain", "band", "blur", "gradient", "pits", "film"}
        In this order: a thin line, a blob with a soft edge, a stripe of another brightness, a blob
        out of focus, brightness that changes towards one side, one to three small dark pits, an
        opaque film that hides what is below.
    random_state : int, RandomState or None, default=None
        Seed.

    Returns
    -------
    changed : array of the shape of `image`, float32 in [0, 1]
    mask : array of shape (H, W), bool
        True where the defect is visible, with at least 30 % of its strength; never empty.

    Raises
    ------
    ValueError
        If `kind` is unknown, the image is too small or not in [0, 1], or the defect would be
        visible nowhere, such as pits in a black image.

    Examples
    --------
    >>> from hypervlad.data import add_defect, make_tem_images
    >>> (image,), _ = make_tem_images(1, size=128, random_state=0)
    >>> scratched, mask = add_defect(image, "scratch", random_state=0)
    >>> scratched.shape, bool((scratched[mask] != image[mask]).all())
    ((128, 128), True)
    """
    if kind not in IMAGE_DEFECTS:
        raise ValueError(f"kind={kind!r}: expected one of {', '.join(IMAGE_DEFECTS)}.")
    before = _check_image(image)
    rng = np.random.default_rng(draw_seed(random_state))
    deviation = float(before.std())
    contrast = max(deviation, _MIN_CONTRAST)
    visible = max(_VISIBLE * deviation, _MIN_CHANGE)
    # At some places a defect is invisible: a bright one on white, a blurred area without detail.
    for _ in range(0 if kind == "blur" and not deviation else _TRIES):
        changed, strength = _MAKERS[kind](rng, before, contrast)
        changed = np.clip(changed, 0, 1).astype(np.float32)
        inside = strength >= _EDGE
        change = np.abs(changed - before).reshape(*before.shape[:2], -1).max(axis=2)
        mask = inside & (maximum_filter(change, 5) >= visible)  # within two pixels
        if mask.any() and mask.sum() >= 0.5 * inside.sum():
            return changed, mask
    raise ValueError(
        f"kind={kind!r}: it is visible nowhere in this image, whose values run from "
        f"{before.min():g} to {before.max():g}; use another kind, or stretch the image's contrast."
    )


def _check_image(image: ArrayLike) -> FloatMap:
    pixels = as_pixels(image, "image")
    if pixels.dtype.kind != "f" or pixels.min() < 0 or pixels.max() > 1:
        raise ValueError(
            f"image: values of type {pixels.dtype} from {pixels.min()} to {pixels.max()}; expected "
            "floats in [0, 1], as read_image returns them (divide an 8-bit image by 255)."
        )
    if min(pixels.shape[:2]) < SMALLEST_SIZE:
        raise ValueError(
            f"image: {pixels.shape[0]} x {pixels.shape[1]} pixels; expected at least "
            f"{SMALLEST_SIZE} on each side, else defects are smaller than a pixel."
        )
    return pixels.astype(np.float32)


# Each maker returns the changed image and the strength of the defect, 0 to 1, at every pixel.
Change = tuple[NDArray[np.floating], NDArray[np.floating]]
Maker = Callable[[Generator, FloatMap, float], Change]


def _add_scratch(rng: Generator, image: FloatMap, contrast: float) -> Change:
    shape, unit = image.shape[:2], _unit(image)
    length = log_uniform(rng, 40, 300) * unit
    width = max(rng.uniform(1, 3) * unit, 1.0)
    along, beside = _axes(rng, shape)
    beside = beside - rng.uniform(-0.2, 0.2) * along**2 / length
    # It fades at its ends, and is not equally deep everywhere.
    ends = np.clip((length / 2 - np.abs(along)) / (0.15 * length), 0, 1)
    depth = np.clip(1 + 0.2 * smooth_noise(rng, shape, max(12 * unit, 3), octaves=2), 0.4, 1)
    line = np.clip((width + 1) / 2 - np.abs(beside), 0, 1) * ends * depth
    amplitude = _sign(rng) * log_uniform(rng, 0.7, 2.5) * contrast
    return image + amplitude * _per_channel(line, image), line


def _add_stain(rng: Generator, image: FloatMap, contrast: float) -> Change:
    shape, unit = image.shape[:2], _unit(image)
    blob = _random_blob(rng, shape, log_uniform(rng, 15, 60) * unit)
    stain = _softened(blob, rng.uniform(1, 4) * unit)
    stain = stain * np.clip(1 + 0.15 * smooth_noise(rng, shape, 20 * unit, octaves=3), 0.5, 1.5)
    amplitude = _sign(rng) * rng.uniform(0.12, 0.3)
    # Black is not affected by any factor; a stain is visible on it all the same.
    light = np.maximum(image, contrast)
    return image + amplitude * _per_channel(stain, image) * light, stain


def _add_band(rng: Generator, image: FloatMap, contrast: float) -> Change:
    axis = int(rng.integers(2))
    extent = image.shape[axis]
    width = max(log_uniform(rng, 0.015, 0.12) * min(image.shape[:2]), 2.0)
    at = np.arange(extent) - rng.uniform(width / 2, extent - width / 2)
    softness = rng.uniform(1, max(0.4 * width, 1.5))
    profile = np.clip((width / 2 - np.abs(at)) / softness + 0.5, 0, 1)
    # Charge builds up and decays from line to line.
    profile = profile * np.clip(1 + 0.12 * rng.standard_normal(extent), 0.5, 1.5)
    band = np.broadcast_to(profile[:, None] if axis == 0 else profile, image.shape[:2])
    amplitude = _sign(rng) * log_uniform(rng, 0.4, 1.3) * contrast
    return image + amplitude * _per_channel(band, image), band


def _add_blur(rng: Generator, image: FloatMap, contrast: float) -> Change:
    unit = _unit(image)
    area = _softened(_random_blob(rng, image.shape[:2], log_uniform(rng, 25, 80) * unit), 3 * unit)
    sigma = log_uniform(rng, 1.5, 5.0) * max(unit, 0.7)
    blurred = gaussian_filter(image, sigma, axes=(0, 1))
    # The noise of the detector stays sharp, but not all of the finest detail is noise.
    blurred += 0.5 * (image - median_filter(image, 3, axes=(0, 1)))
    return image + _per_channel(area, image) * (blurred - image), area


def _add_gradient(rng: Generator, image: FloatMap, contrast: float) -> Change:
    shape = image.shape[:2]
    rows = np.linspace(-1, 1, shape[0])[:, None]
    columns = np.linspace(-1, 1, shape[1])[None]
    angle = rng.uniform(0, 2 * np.pi)
    rise = rows * np.sin(angle) + columns * np.cos(angle) + rng.uniform(-0.3, 0.2)
    rise = np.clip(rise + 0.2 * smooth_noise(rng, shape, min(shape) / 3, octaves=2), 0, None)
    rise = rise / max(float(rise.max()), 1e-6)
    amplitude = _sign(rng) * log_uniform(rng, 0.8, 2.0) * contrast
    return image + amplitude * _per_channel(rise, image), rise


def _add_pits(rng: Generator, image: FloatMap, contrast: float) -> Change:
    shape, unit = image.shape[:2], _unit(image)
    strength, remaining = np.zeros(shape), np.ones(shape)
    for _ in range(rng.integers(1, 4)):
        pit = _softened(_random_blob(rng, shape, 1 + rng.uniform(3, 8) * unit), 0.7)
        strength = np.maximum(strength, pit)
        remaining = remaining * (1 - float(log_uniform(rng, 0.3, 0.8)) * pit)
    return image * _per_channel(remaining, image), strength


def _add_film(rng: Generator, image: FloatMap, contrast: float) -> Change:
    shape, unit = image.shape[:2], _unit(image)
    film = _softened(_random_blob(rng, shape, log_uniform(rng, 20, 70) * unit), 1.0)
    level = np.quantile(image, float(rng.choice([0.02, 0.9])), axis=(0, 1))
    uneven = 0.1 * contrast * smooth_noise(rng, shape, max(12 * unit, 3), octaves=3)
    inside = level + _per_channel(uneven, image)
    return image + _per_channel(film, image) * (inside - image), film


_MAKERS: dict[str, Maker] = {
    "scratch": _add_scratch,
    "stain": _add_stain,
    "band": _add_band,
    "blur": _add_blur,
    "gradient": _add_gradient,
    "pits": _add_pits,
    "film": _add_film,
}


def _unit(image: FloatMap) -> float:
    side: int = min(image.shape[:2])
    return side / 348


def _sign(rng: Generator) -> float:
    return float(rng.choice([-1.0, 1.0]))


def _axes(
    rng: Generator, shape: tuple[int, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return coordinates along and across a random line."""
    centre, angle = rng.uniform(0.15, 0.85, 2) * shape, rng.uniform(0, np.pi)
    rows = np.arange(shape[0])[:, None] - centre[0]
    columns = np.arange(shape[1])[None] - centre[1]
    along = rows * np.sin(angle) + columns * np.cos(angle)
    return along, rows * np.cos(angle) - columns * np.sin(angle)


def _softened(region: BoolMap, sigma: float) -> FloatMap:
    soft: FloatMap = gaussian_filter(region.astype(np.float32), sigma, mode="nearest")
    return soft


def _per_channel(change: NDArray[np.floating], image: FloatMap) -> NDArray[np.floating]:
    return change[..., None] if image.ndim == 3 else change


def _random_blob(rng: Generator, shape: tuple[int, int], radius: float) -> BoolMap:
    """Return a rounded, irregular region centred inside the image."""
    centre = rng.uniform(0.06, 0.94, 2) * np.asarray(shape)
    stretch, angle = np.exp(rng.uniform(0, 0.5)), rng.uniform(0, np.pi)
    rows, columns = rows_and_columns(shape, centre)
    along = (rows * np.sin(angle) + columns * np.cos(angle)) / stretch
    beside = (rows * np.cos(angle) - columns * np.sin(angle)) * stretch
    uneven = 0.22 * smooth_noise(rng, shape, max(radius * 0.9, 3.0), octaves=2)
    return np.asarray(np.hypot(along, beside) / radius + uneven < 1)
