"""Synthetic STEM images of crystal lattices at atomic resolution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, gaussian_filter1d, map_coordinates

from hypervlad.data.synthetic.drawing import (
    check_count,
    check_size,
    draw_seed,
    log_uniform,
    smooth_noise,
)
from hypervlad.data.synthetic.tem_specimens import splat

FloatMap = NDArray[np.float32]

SMALLEST_SIZE = 64
_MARGIN = 24  # pixels: drift must not carry the edge of the crystal into the frame
# Separate the random numbers of samples and of images.
_SAMPLES, _IMAGES = 0, 1
# Angle between the lattice vectors in degrees: square, hexagonal, or oblique.
_ANGLES = (90.0, 120.0, None)


@dataclass(frozen=True)
class Crystal:
    vectors: NDArray[np.floating]  # one lattice vector per row, (row, column) in pixels
    basis: NDArray[np.floating]  # atomic columns of a unit cell, in lattice vectors
    brightness: NDArray[np.floating]  # integrated intensity of each of these columns
    width: float  # standard deviation of a column's image without further blur, in pixels
    vacancies: float  # share of columns that are darker than others of their kind
    dopants: float  # share of brighter ones


def make_lattice_images(
    n: int,
    *,
    images_per_sample: int = 4,
    size: int | tuple[int, int] = 224,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[list[NDArray[np.float32]], NDArray[np.intp]]:
    """Make synthetic dark-field STEM images of crystal lattices, several of each sample.

    Each sample is a crystal with a random lattice, orientation, basis and density of defects. Its
    images show different places.

    Parameters
    ----------
    n : int
        Number of images, at least 1.
    images_per_sample : int, default=4
        Images of each sample, at least 1; the last sample may have fewer.
    size : int or (int, int), default=224
        Height and width in pixels, each at least 64. All sizes have the same magnification:
        lattice vectors are 7 to 24 pixels long.
    random_state : int, RandomState or None, default=None
        As in `make_tem_images`.

    Returns
    -------
    images : list of n arrays of shape (H, W), float32 in [0, 1]
    samples : array of shape (n,), int
        Number of each image's sample, from 0.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Examples
    --------
    >>> from hypervlad.data import make_lattice_images
    >>> images, samples = make_lattice_images(5, images_per_sample=2, size=96, random_state=0)
    >>> images[0].shape, samples.tolist()
    ((96, 96), [0, 0, 1, 1, 2])
    """
    n = check_count(n)
    per_sample = check_count(images_per_sample, "images_per_sample")
    shape = check_size(size, SMALLEST_SIZE)
    seed = draw_seed(random_state)
    samples = np.arange(n, dtype=np.intp) // per_sample
    crystals = [
        draw_crystal(np.random.default_rng([_SAMPLES, seed, sample]))
        for sample in range(int(samples[-1]) + 1)
    ]
    images = [
        _make_image(np.random.default_rng([_IMAGES, seed, i]), crystals[sample], shape)
        for i, sample in enumerate(samples)
    ]
    return images, samples


def draw_crystal(rng: Generator) -> Crystal:
    angle = _ANGLES[int(rng.integers(len(_ANGLES)))]
    between = np.deg2rad(rng.uniform(65, 115) if angle is None else angle)
    first = float(log_uniform(rng, 8.0, 20.0))
    second = first * (rng.uniform(0.85, 1.2) if angle is None else 1.0)
    heading = rng.uniform(0, 2 * np.pi)
    directions = np.array([heading, heading + between])
    vectors = np.array([[first], [second]]) * np.stack(
        [np.sin(directions), np.cos(directions)], axis=1
    )
    centres = np.array([[0.0, 0.0], [1 / 3, 2 / 3] if angle == 120.0 else [0.5, 0.5], [0.5, 0.0]])
    n_columns = int(rng.integers(1, 4))
    return Crystal(
        vectors=vectors,
        basis=centres[:n_columns],
        brightness=np.array([1.0, *rng.uniform(0.25, 0.8, n_columns - 1)]),
        width=first * rng.uniform(0.1, 0.16),
        vacancies=float(rng.choice([0.0, rng.uniform(0.005, 0.05)])),
        dopants=float(rng.choice([0.0, rng.uniform(0.005, 0.05)])),
    )


def draw_columns(
    rng: Generator, crystal: Crystal, shape: tuple[int, int]
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Place the atomic columns of a random part of a crystal, with its defects.

    Returns (row, column) in pixels, some beyond the frame, and brightness.
    """
    reach = np.hypot(*shape) / 2
    # Distance of the lattice's lines: no cell within the reach has a larger index.
    spacing = abs(np.linalg.det(crystal.vectors)) / np.linalg.norm(crystal.vectors, axis=1).max()
    extent = int(np.ceil(reach / spacing)) + 1
    cells = np.stack(np.meshgrid(*[np.arange(-extent, extent + 1)] * 2), axis=-1).reshape(-1, 1, 2)
    offset = rng.uniform(0, 1, 2)
    fractional = cells + crystal.basis + offset
    positions = fractional.reshape(-1, 2) @ crystal.vectors + np.asarray(shape) / 2
    brightness = np.tile(crystal.brightness, len(cells))
    draw = rng.random(len(positions))
    brightness = brightness * np.where(draw < crystal.vacancies, rng.uniform(0.0, 0.5), 1)
    brightness = brightness * np.where(draw > 1 - crystal.dopants, rng.uniform(1.4, 2.2), 1)
    # The number of atoms in a column and static displacements differ slightly.
    brightness = brightness * rng.normal(1, 0.03, len(positions))
    positions = positions + rng.normal(0, 0.01 * spacing, positions.shape)
    return positions, brightness


def _make_image(rng: Generator, crystal: Crystal, shape: tuple[int, int]) -> NDArray[np.float32]:
    padded = (shape[0] + 2 * _MARGIN, shape[1] + 2 * _MARGIN)
    positions, brightness = draw_columns(rng, crystal, padded)
    rows, across = positions.T.astype(np.float32)
    columns = splat(padded, rows, across, brightness.astype(np.float32))
    focus = crystal.width * rng.uniform(1.0, 1.5)
    signal = gaussian_filter(columns, focus) * np.float32(2 * np.pi * crystal.width**2)
    thickness = 1 + 0.25 * rng.random() * smooth_noise(rng, padded, 0.6 * max(padded))
    background = rng.uniform(0.05, 0.5)
    scanned = _scanned(rng, (signal + np.float32(background)) * np.maximum(thickness, 0.3), shape)
    return _detected(rng, scanned)


def _scanned(rng: Generator, signal: FloatMap, shape: tuple[int, int]) -> FloatMap:
    """Scan line by line while the specimen drifts and the beam vibrates."""
    height, width = shape
    lines = np.arange(height)
    drift = rng.normal(0, 4, (2, 1)) * (lines / height)
    wander = gaussian_filter1d(rng.standard_normal((2, height)), 20, axis=1) * rng.uniform(0, 6)
    jitter = rng.standard_normal((2, height)) * np.array([[0.1], [1.0]]) * rng.uniform(0, 0.6)
    shift = np.clip(drift + wander + jitter, 2 - _MARGIN, _MARGIN - 2)
    rows = np.broadcast_to((lines + shift[0] + _MARGIN)[:, None], shape)
    columns = np.arange(width)[None, :] + shift[1][:, None] + _MARGIN
    return np.asarray(map_coordinates(signal, [rows, columns], order=3), dtype=np.float32)


def _detected(rng: Generator, signal: FloatMap) -> FloatMap:
    dose = log_uniform(rng, 20, 600)
    signal = np.maximum(signal, 0)
    counts = rng.poisson(signal * dose).astype(np.float32) / np.float32(dose)
    counts += np.float32(rng.uniform(0, 0.05)) * rng.standard_normal(counts.shape, np.float32)
    image = gaussian_filter(counts, rng.uniform(0.3, 1.0))
    low, high = np.quantile(image, [0.002, 0.998])
    black, white = rng.uniform(0.0, 0.2), rng.uniform(0.6, 1.0)
    image = black + (white - black) * (image - low) / max(float(high - low), 1e-6)
    detected: FloatMap = np.clip(image, 0, 1).astype(np.float32)
    return detected
