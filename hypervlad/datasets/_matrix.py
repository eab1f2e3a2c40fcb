"""Polymer matrix particles, as a composite sheds them when it is sanded, cut or worn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hypervlad.datasets._noise import smooth_noise

FloatMap = NDArray[np.float32]


def shard(
    rng: np.random.Generator, shape: tuple[int, int], centre: tuple[float, float], radius: float
) -> FloatMap:
    """Thickness of one broken, faceted particle: 0 outside, about 1 at its thickest.

    The particle is the space under several inclined planes, so that its thickness has ridges and
    wedge-shaped edges; its outline is roughened by displacing the coordinates with noise.
    """
    rows, cols = _warped_grid(
        rng, shape, centre, amount=radius * rng.uniform(0.03, 0.12), cell=radius * 0.5
    )
    n_faces = int(rng.integers(5, 10))
    angles = np.sort(rng.uniform(0, 2 * np.pi, n_faces)) + rng.uniform(0, 2 * np.pi)
    height = np.full(shape, rng.uniform(0.35, 0.9), np.float32)
    for angle in np.concatenate([angles, np.arange(3) * 2.094 + angles[0]]):
        reach, slope = radius * rng.uniform(0.7, 1.15), np.exp(rng.uniform(0.2, 2.3))
        inward = reach - rows * np.float32(np.sin(angle)) - cols * np.float32(np.cos(angle))
        np.minimum(height, inward * np.float32(slope / radius), out=height)
    np.maximum(height, 0, out=height)
    return _textured(rng, height, radius)


def blobs(
    rng: np.random.Generator, shape: tuple[int, int], centre: tuple[float, float], radius: float
) -> FloatMap:
    """Thickness of an agglomerate of rounded particles: 0 outside, about 1 where it is thick.

    Each new particle sits on the rim of one before it, which gives the loose chains and heaps of
    dust.
    """
    n_blobs = int(rng.integers(9, 20))
    centres = [np.asarray(centre, float)]
    radii = [radius * rng.uniform(0.2, 0.35)]
    for _ in range(n_blobs - 1):
        parent = int(rng.integers(len(centres)))
        size, angle = radius * rng.uniform(0.12, 0.3), rng.uniform(0, 2 * np.pi)
        reach = 0.8 * (radii[parent] + size)
        point = centres[parent] + reach * np.array([np.sin(angle), np.cos(angle)])
        if np.hypot(*(point - centre)) < 1.1 * radius:
            centres.append(point)
            radii.append(size)
    rows, cols = _warped_grid(rng, shape, (0.0, 0.0), amount=radius * 0.05, cell=radius * 0.25)
    squared = np.zeros(shape, np.float32)
    for point, size in zip(centres, radii, strict=True):
        stretch = rng.uniform(0.8, 1.25)
        away = ((rows - point[0]) * stretch) ** 2 + ((cols - point[1]) / stretch) ** 2
        squared += np.maximum(0, 1 - away / size**2) * (size / radius) ** 2
    return _textured(rng, np.sqrt(squared) * np.float32(1.6), radius)


def _warped_grid(
    rng: np.random.Generator,
    shape: tuple[int, int],
    centre: tuple[float, float],
    amount: float,
    cell: float,
) -> tuple[FloatMap, FloatMap]:
    """Pixel coordinates relative to ``centre``, displaced by smooth noise of ``amount`` pixels."""
    cell = max(cell, 3.0)
    rows = np.arange(shape[0], dtype=np.float32)[:, None] - np.float32(centre[0])
    cols = np.arange(shape[1], dtype=np.float32)[None, :] - np.float32(centre[1])
    warp = np.float32(amount)
    return (
        rows + warp * smooth_noise(rng, shape, cell, octaves=3),
        cols + warp * smooth_noise(rng, shape, cell, octaves=3),
    )


def _textured(rng: np.random.Generator, height: FloatMap, radius: float) -> FloatMap:
    """Uneven density, and now and then pores."""
    texture = smooth_noise(rng, height.shape, max(4.0, radius * rng.uniform(0.1, 0.4)), octaves=3)
    height = height * np.maximum(0.2, 1 + np.float32(rng.uniform(0.04, 0.16)) * texture)
    if rng.random() < 0.35:
        pores = smooth_noise(rng, height.shape, max(4.0, radius * rng.uniform(0.12, 0.3)))
        height *= 1 - np.float32(rng.uniform(0.2, 0.55)) / (1 + np.exp(-6 * (pores - 1.4)))
    return height
