"""Surfaces of fibres and defects, and how a scanning electron microscope images them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.signal import lfilter

from hypervlad.datasets.drawing import BoolMap, FloatMap, log_uniform

SAMPLING = 2  # points of the surface per pixel, in each direction: smooth edges
#: Height of the substrate, far below every fibre, in units of the mat's thickness.
SUBSTRATE = -1.0


@dataclass(frozen=True)
class Strands:
    chains: NDArray[np.float32]  # (row, column) in pixels, shape (n, n_points, 2)
    radius: FloatMap  # (n, n_points), pixels; 0 or less where the fibre is missing
    height: FloatMap  # (n, n_points): 0 at the bottom of the mat, 1 at its top
    brightness: FloatMap  # factor of each fibre
    defect: BoolMap  # (n, n_points): where the fibre is a bead


class Surface:
    """The uppermost surface of objects that are painted in any order; maps of shape (H, W)."""

    def __init__(self, shape: tuple[int, int], substrate: FloatMap, pixel: float) -> None:
        # The mat lies between 0 and 1. The height of one pixel makes the middle of a fibre higher
        # than its sides.
        self.height = np.full(shape, SUBSTRATE, np.float32)
        self.pixel = pixel
        self.yield_ = substrate.astype(np.float32)  # of secondary electrons, without shadows
        self.defect = np.zeros(shape, dtype=bool)  # whether the visible surface is one
        # Of the visible fibre: radians in [0, pi], y up; NaN where there is none.
        self.along = np.full(shape, np.nan, np.float32)

    def paint_strands(self, strands: Strands) -> None:
        """Paint fibres as round rods, brighter at their edges, where more electrons escape."""
        tangents = np.gradient(strands.chains, axis=1)
        tangents /= np.maximum(np.linalg.norm(tangents, axis=2), 1e-6)[..., None]
        reach = strands.radius[..., None] + 1
        beyond = (strands.chains < -reach) | (
            strands.chains > np.asarray(self.height.shape) + reach
        )
        visible = (strands.radius > 0) & ~beyond.any(axis=2)
        for fibre in np.flatnonzero(visible.any(axis=1)):
            at = visible[fibre]
            self._paint_rod(
                strands.chains[fibre, at],
                tangents[fibre, at],
                strands.radius[fibre, at],
                strands.height[fibre, at],
                float(strands.brightness[fibre]),
                strands.defect[fibre, at],
            )

    def _paint_rod(
        self,
        line: FloatMap,
        tangents: FloatMap,
        radius: FloatMap,
        height: FloatMap,
        brightness: float,
        defect: BoolMap,
    ) -> None:
        # Closer than a pixel, so that no pixel under the rod is missed.
        n_across = 2 * max(2, int(np.ceil(1.4 * float(radius.max())))) + 1
        across = np.linspace(-1, 1, n_across, dtype=np.float32)
        offset = across * radius[:, None]
        row = np.rint(line[:, :1] + tangents[:, 1:] * offset).astype(np.int32)
        column = np.rint(line[:, 1:] - tangents[:, :1] * offset).astype(np.int32)
        up = np.sqrt(1 - across**2)
        top = height[:, None] + radius[:, None] * up * np.float32(self.pixel)
        n_rows, n_columns = self.height.shape
        inside = (row >= 0) & (row < n_rows) & (column >= 0) & (column < n_columns)
        # Points outside the image look up index 0, and are dropped.
        flat = np.where(inside, row * n_columns + column, 0)
        above = inside & (top > self.height.ravel()[flat])
        flat = flat[above]
        light = np.broadcast_to(np.float32(brightness) * edge_yield(up), top.shape)
        # Points of a rod that share a pixel hardly differ: any of them serves.
        self.height.ravel()[flat] = top[above]
        self.yield_.ravel()[flat] = light[above]
        self.defect.ravel()[flat] = np.broadcast_to(defect[:, None], top.shape)[above]
        # Rows count downwards, directions upwards.
        along = np.arctan2(-tangents[:, :1], tangents[:, 1:]) % np.float32(np.pi)
        self.along.ravel()[flat] = np.broadcast_to(along, top.shape)[above]

    def paint_defect(self, inside: BoolMap, height: FloatMap, yield_: FloatMap) -> None:
        visible = inside & (height > self.height)
        self.height[visible] = height[visible]
        self.yield_[visible] = yield_[visible]
        self.defect[visible] = True
        self.along[visible] = np.nan


def edge_yield(up: FloatMap) -> FloatMap:
    """Return the electron yield of a surface, the inverse cosine of its slope, bounded.

    Goldstein et al., Scanning Electron Microscopy and X-Ray Microanalysis, 4th ed., chapter 5.
    """
    return np.asarray(0.55 + 0.45 / np.maximum(up, 0.35), dtype=np.float32)


def scan_surface(surface: Surface, rng: Generator, unit: float) -> FloatMap:
    """Scan a mat; `unit` is the number of points per 348th of the image's shorter side."""
    signal = block_means(_focused(surface, rng, unit))
    signal = _charged(signal, rng, unit / SAMPLING)
    return _detected(signal, rng)


def _focused(surface: Surface, rng: Generator, unit: float) -> FloatMap:
    level = np.maximum(surface.height, -0.35)
    # Fewer electrons reach the detector from a pit: it depends on the height of its surroundings.
    around = gaussian_filter(level, 7.0 * unit)
    shadow = np.exp(-np.float32(rng.uniform(1.5, 3.2)) * np.maximum(around - level, 0))
    fall = np.exp(-np.float32(rng.uniform(0.7, 1.9)) * np.maximum(1 - level, 0))
    on_mat = surface.height > SUBSTRATE
    signal = surface.yield_ * np.where(on_mat, shadow * fall, np.sqrt(shadow))
    focus, depth = rng.uniform(0.6, 1.0), rng.uniform(0.3, 1.2)
    blur = rng.uniform(0.5, 2.2) * unit
    away = np.clip(np.abs(level - np.float32(focus)) / np.float32(depth), 0, 1)
    soft = gaussian_filter(signal, blur)
    return np.asarray(signal + gaussian_filter(away, blur) * (soft - signal))


def _charged(signal: FloatMap, rng: Generator, unit: float) -> FloatMap:
    if rng.random() < 0.5:
        return signal
    bright = np.maximum(signal - np.quantile(signal, 0.97), 0)
    trail_length = rng.uniform(10, 60) * unit
    decay = np.exp(-1 / trail_length)
    trail = lfilter([1 - decay], [1, -decay], bright, axis=1).astype(np.float32)
    halo = gaussian_filter(bright, rng.uniform(4, 12) * unit)
    return np.asarray(
        signal + rng.uniform(0.2, 1.2) * halo - rng.uniform(0.3, 2.0) * trail, dtype=np.float32
    )


def _detected(signal: FloatMap, rng: Generator) -> FloatMap:
    low, high = np.quantile(signal, [0.02, 0.98])
    level, contrast = rng.uniform(0.02, 0.16), rng.uniform(0.4, 0.85)
    image = level + contrast * (signal - low) / max(float(high - low), 1e-6)
    image = np.clip(image, 0, None) ** rng.uniform(0.8, 1.25)
    dose = log_uniform(rng, 60, 1500)
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    image = image + noise * np.sqrt((image + 0.03) / dose)
    lines = rng.standard_normal((len(image), 1), dtype=np.float32)
    image = image + lines * np.float32(rng.uniform(0, 0.012))
    image = gaussian_filter(image, rng.uniform(0.2, 0.6))
    detected: FloatMap = np.clip(image, 0, 1).astype(np.float32)
    return detected


def scan_wires(
    surface: Surface, rng: Generator, *, width: float, blur: float, snr: float
) -> FloatMap:
    """Scan nanowires, whose width is in points of the surface, with few clipped pixels."""
    signal, substrate = _shaded(surface, width)
    image: NDArray[np.floating] = block_means(signal)
    if blur > 0:
        image = gaussian_filter(image, blur, mode="nearest")
    on_wire = block_means(np.isfinite(surface.along)) >= 0.5
    contrast = _contrast(image, on_wire, substrate)
    deviation = contrast / snr
    low, high = (float(bound) for bound in np.quantile(image, [0.001, 0.999]))
    low, high = low - 3 * deviation, max(high, substrate + contrast) + 3 * deviation
    image = image + np.float32(deviation) * rng.standard_normal(image.shape, dtype=np.float32)
    level, span = 0.04, 0.92
    image = np.clip(level + span * (image - low) / (high - low), 0, 1)
    return image.astype(np.float32)


def block_means(values: NDArray[np.generic]) -> NDArray[Any]:
    height, width = (extent // SAMPLING for extent in values.shape)
    means: NDArray[Any] = values.reshape(height, SAMPLING, width, SAMPLING).mean(axis=(1, 3))
    return means


def _contrast(image: FloatMap, on_wire: BoolMap, substrate: float) -> float:
    """Return how much brighter wires are; without wires, than a white one."""
    bright = float(image[on_wire].mean()) if on_wire.any() else 1.0
    dark = substrate if on_wire.all() else float(image[~on_wire].mean())
    return max(bright - dark, 0.0)


def _shaded(surface: Surface, width: float) -> tuple[FloatMap, float]:
    """Return the signal with shadows beside wires, and the signal of the bare substrate."""
    level = np.maximum(surface.height, -0.35)
    around = gaussian_filter(level, 0.8 * width, mode="nearest")
    shadow = np.exp(-np.float32(0.8) * np.maximum(around - level, 0))
    fall = np.exp(-np.float32(0.45) * np.maximum(1 - level, 0))
    on_wire = surface.height > SUBSTRATE
    signal = surface.yield_ * np.where(on_wire, shadow * fall, shadow)
    bare = surface.yield_[~on_wire]
    return np.asarray(signal), float(bare.mean()) if bare.size else 0.16
