"""Copies of an image as people make them, with random strengths."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from benchmarks.common.data import as_jpeg

Pair = tuple[np.ndarray, np.ndarray]
Change = Callable[[np.ndarray, np.random.Generator], Pair]


def _jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return as_jpeg(pixels, quality).astype(np.float32) / 255


def _resized(image: np.ndarray, scale: float) -> np.ndarray:
    height, width = (round(extent * scale) for extent in image.shape)
    pixels = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(pixels.resize((width, height), Image.Resampling.BICUBIC))


def _trimmed(image: np.ndarray, rng: np.random.Generator) -> Pair:
    top, bottom, left, right = rng.integers(1, 9, 4)
    return image, _jpeg(image[top:-bottom, left:-right], 85)


def _cropped(image: np.ndarray, rng: np.random.Generator) -> Pair:
    share = rng.uniform(0.65, 0.85)
    height, width = (int(extent * share) for extent in image.shape)
    top, left = (int(rng.integers(0, extent * (1 - share))) for extent in image.shape)
    return image, image[top : top + height, left : left + width]


def _shifted(low: float, high: float) -> Change:
    """Cut two windows of the same size, far apart in one direction and nearer in the other."""

    def cut(image: np.ndarray, rng: np.random.Generator) -> Pair:
        share = rng.uniform(low, high) * rng.permutation([1.0, 0.3])
        down, right = (share * image.shape).astype(int)
        height, width = image.shape[0] - down, image.shape[1] - right
        first, second = image[:height], image[down:]
        if rng.random() < 0.5:
            first, second = second, first
        return first[:, :width], second[:, right:]

    return cut


def _other_contrast(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    level, gain, gamma = rng.uniform(0, 0.3), rng.uniform(0.3, 0.7), rng.uniform(0.6, 1.6)
    return np.clip(level + gain * image**gamma, 0, 1)


def _turned(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.rot90(image, int(rng.integers(1, 4)))


def _mirrored(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return image[::-1] if rng.random() < 0.5 else image[:, ::-1]


def _stretched(share: float) -> Change:
    """Stretch one direction only."""

    def stretch(image: np.ndarray, rng: np.random.Generator) -> Pair:
        height, width = image.shape
        size = (round(width * (1 + share)), height)
        if rng.random() < 0.5:
            size = (width, round(height * (1 + share)))
        pixels = Image.fromarray(np.ascontiguousarray(image))
        return image, np.asarray(pixels.resize(size, Image.Resampling.BICUBIC))

    return stretch


def _framed(share: float, level: float) -> Change:
    """Put a frame around the image, as wide on all sides."""

    def frame(image: np.ndarray, rng: np.random.Generator) -> Pair:
        width = max(1, round(share * min(image.shape)))
        return image, np.pad(image, width, constant_values=level)

    return frame


def _framed_and_stretched(image: np.ndarray, rng: np.random.Generator) -> Pair:
    first, second = _stretched(0.05)(image, rng)
    return first, _jpeg(_framed(0.05, float(rng.integers(2)))(second, rng)[1], 85)


def _several(image: np.ndarray, rng: np.random.Generator) -> Pair:
    first, second = _shifted(0.03, 0.12)(image, rng)
    second = _turned(_mirrored(second, rng), rng)
    return first, _jpeg(_other_contrast(second, rng), 70)


#: By name: functions that return an original and its copy.
CHANGES: dict[str, Change] = {
    "cropped by 1 to 8 px, JPEG 85": _trimmed,
    "cropped to 65 to 85 %": _cropped,
    "shifted by 2 to 10 %": _shifted(0.02, 0.1),
    "shifted by 20 to 40 %": _shifted(0.2, 0.4),
    "brightness, contrast, gamma": lambda image, rng: (image, _other_contrast(image, rng)),
    "JPEG 40": lambda image, rng: (image, _jpeg(image, 40)),
    "mirrored, JPEG 85": lambda image, rng: (image, _jpeg(_mirrored(image, rng), 85)),
    "turned, JPEG 85": lambda image, rng: (image, _jpeg(_turned(image, rng), 85)),
    "resized by up to 10 %": lambda image, rng: (image, _resized(image, rng.uniform(0.9, 1.1))),
    "half size": lambda image, rng: (image, _resized(image, 0.5)),
    "shift, mirror, turn, contrast, JPEG 70": _several,
    "stretched by 3 %": _stretched(0.03),
    "stretched by 6 %": _stretched(0.06),
    "black frame of 2 %": _framed(0.02, 0),
    "black frame of 5 %": _framed(0.05, 0),
    "black frame of 10 %": _framed(0.1, 0),
    "white frame of 2 %": _framed(0.02, 1),
    "white frame of 5 %": _framed(0.05, 1),
    "white frame of 10 %": _framed(0.1, 1),
    "stretched by 5 %, frame, JPEG 85": _framed_and_stretched,
}
