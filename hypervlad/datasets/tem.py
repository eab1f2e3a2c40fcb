"""Synthetic transmission electron micrographs, of carbon nanotubes and of crystal lattices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter, gaussian_filter1d, map_coordinates

from hypervlad.datasets.drawing import (
    FloatMap,
    check_count,
    check_size,
    draw_seed,
    log_uniform,
    smooth_noise,
)
from hypervlad.datasets.tem_scenes import Specimen, make_specimen
from hypervlad.datasets.tem_specimens import splat

_SMALLEST_SIZE = 32  # of TEM images

#: The eight fine classes, and the class of the four that each belongs to.
TEM_FINE_CLASSES: dict[str, str] = {
    "cluster-bundle": "cluster",
    "cluster-tangle": "cluster",
    "fiber-bamboo": "fiber",
    "fiber-tube": "fiber",
    "matrix-agglomerate": "matrix",
    "matrix-shard": "matrix",
    "matrix-surface-few": "matrix-surface",
    "matrix-surface-many": "matrix-surface",
}
#: The four classes of Luo, Holm and Wang (2021).
TEM_CLASSES: tuple[str, ...] = tuple(sorted(set(TEM_FINE_CLASSES.values())))

# Separate the random numbers of labels (or of samples) and of images.
_LABELS = _SAMPLES = 0
_IMAGES = 1


def make_tem_images(
    n: int,
    *,
    n_classes: int = 4,
    size: int | tuple[int, int] = 224,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[list[NDArray[np.float32]], NDArray[np.str_]]:
    """Make synthetic bright-field TEM images of carbon nanotubes: alone, in clusters, in polymer.

    Parameters
    ----------
    n : int
        Number of images, at least 1.
    n_classes : {4, 8}, default=4
        4: the classes of [1]_. "fiber", one isolated tube or fibre; "cluster", several tubes that
        touch or entangle; "matrix", polymer particles, with tubes only inside; "matrix-surface",
        polymer particles with protruding tubes. 8: each of these split in two
        (`TEM_FINE_CLASSES`), such as "matrix-surface-few" with one to three tubes and
        "matrix-surface-many" with seven or more.
    size : int or (int, int), default=224
        Height and width in pixels, each at least 32. All sizes have the same field of view.
    random_state : int, RandomState or None, default=None
        Seed. With the same integer, image ``i`` and its label are the same whatever ``n`` is.

    Returns
    -------
    images : list of n arrays of shape (H, W), float32 in [0, 1]
    labels : array of shape (n,), str
        Shuffled; class counts differ by at most one.

    Raises
    ------
    ValueError
        If ``n``, ``n_classes`` or ``size`` is out of range.

    References
    ----------
    .. [1] Q. Luo, E. A. Holm and C. Wang, "A transfer learning approach for improved classification
       of carbon nanomaterials from TEM images", Nanoscale Advances 3, 206, 2021.

    Examples
    --------
    >>> from hypervlad.data import make_tem_images
    >>> images, labels = make_tem_images(8, size=64, random_state=0)
    >>> images[0].shape, sorted(set(labels.tolist()))
    ((64, 64), ['cluster', 'fiber', 'matrix', 'matrix-surface'])
    """
    n = check_count(n)
    names = _class_names(n_classes)
    height, width = check_size(size, _SMALLEST_SIZE)
    seed = draw_seed(random_state)
    labels = balanced_labels(n, names, seed)
    images = [
        _make_tem_image(label, np.random.default_rng([_IMAGES, seed, i]), height, width)
        for i, label in enumerate(labels)
    ]
    return images, labels


def _make_tem_image(label: str, rng: Generator, height: int, width: int) -> FloatMap:
    if label in TEM_CLASSES:
        members = [fine for fine, coarse in TEM_FINE_CLASSES.items() if coarse == label]
        label = members[int(rng.integers(len(members)))]
    # Cropping a margin removes what the periodic Fourier transform wraps around.
    margin = max(8, min(height, width) // 16)
    full = tuple(fft.next_fast_len(extent + 2 * margin) for extent in (height, width))
    unit = min(height, width) / 224
    specimen = make_specimen(label, rng, (full[0], full[1]), unit)
    return np.ascontiguousarray(record_image(specimen, rng, margin, unit)[:height, :width])


def balanced_labels(n: int, names: Sequence[str], seed: int) -> NDArray[np.str_]:
    """Concatenate random permutations of the classes."""
    n_rounds = -(-n // len(names))
    rng = np.random.default_rng([_LABELS, seed])
    order = np.concatenate([rng.permutation(len(names)) for _ in range(n_rounds)])[:n]
    labels: NDArray[np.str_] = np.asarray(names)[order]
    return labels


def _class_names(n_classes: int) -> tuple[str, ...]:
    if n_classes == 4:
        return TEM_CLASSES
    if n_classes == 8:
        return tuple(TEM_FINE_CLASSES)
    raise ValueError(f"n_classes={n_classes!r}: there are synthetic images of 4 or of 8 classes.")


def record_image(specimen: Specimen, rng: Generator, margin: int, unit: float) -> FloatMap:
    intensity = propagate(specimen, rng, unit)
    keep = (slice(margin, -margin), slice(margin, -margin))
    intensity = intensity[keep] * _illumination(rng, intensity[keep].shape)
    open_area = None if specimen.opaque is None else specimen.opaque[keep] < 0.3
    return _camera(_set_brightness(intensity, open_area, rng), rng)


def propagate(specimen: Specimen, rng: Generator, unit: float) -> FloatMap:
    """Return the intensity in the image plane: the exit wave after defocus, envelope, aperture.

    Williams and Carter, Transmission Electron Microscopy, 2nd ed., chapter 28.
    """
    amplitude = np.exp(-0.5 * specimen.absorption)
    if specimen.opaque is not None:
        amplitude = amplitude * (1 - specimen.opaque)
    wave = np.empty(amplitude.shape, np.complex64)
    wave.real = amplitude * np.cos(specimen.phase)
    wave.imag = amplitude * np.sin(specimen.phase)
    spectrum = fft.fft2(wave, overwrite_x=True)
    spectrum *= _transfer(spectrum.shape, rng, unit)
    image: NDArray[np.complex64] = fft.ifft2(spectrum, overwrite_x=True)
    return image.real**2 + image.imag**2


def _transfer(shape: tuple[int, int], rng: Generator, unit: float) -> NDArray[np.complex64]:
    ky = fft.fftfreq(shape[0]).astype(np.float32)[:, None]
    kx = fft.fftfreq(shape[1]).astype(np.float32)[None, :]
    k2 = ky**2 + kx**2
    # sqrt(wavelength * defocus), the width of the first Fresnel fringe, in pixels.
    fringe = log_uniform(rng, 0.7, 3.0) * max(unit, 0.3) ** 0.5
    sign = -1.0 if rng.random() < 0.15 else 1.0
    axis, strength = rng.uniform(0, np.pi), rng.uniform(0, 0.12)
    astigmatism = np.cos(2 * axis) * (kx**2 - ky**2) + 2 * np.sin(2 * axis) * kx * ky
    chi = np.float32(np.pi * sign * fringe**2) * (k2 + np.float32(strength) * astigmatism)
    coherence = np.exp(-np.float32((rng.uniform(0.25, 0.5) * fringe**2) ** 2) * k2)
    aperture = np.exp(-((k2 / np.float32(rng.uniform(0.22, 0.5) ** 2)) ** 2))
    transfer = np.empty(shape, np.complex64)
    transfer.real = np.cos(chi)
    transfer.imag = -np.sin(chi)
    transfer *= coherence * aperture
    return transfer


def _illumination(rng: Generator, shape: tuple[int, int]) -> FloatMap:
    rows = np.linspace(-0.5, 0.5, shape[0], dtype=np.float32)[:, None]
    cols = np.linspace(-0.5, 0.5, shape[1], dtype=np.float32)[None, :]
    tilt = rng.normal(0, 0.12, 2)
    centre = rng.normal(0, 0.25, 2)
    width = rng.uniform(0.9, 2.5)
    beam = np.exp(-((rows - centre[0]) ** 2 + (cols - centre[1]) ** 2) / np.float32(2 * width**2))
    found: FloatMap = ((1 + tilt[0] * rows + tilt[1] * cols) * beam).astype(np.float32)
    return found


def _set_brightness(
    intensity: FloatMap, area: NDArray[np.bool_] | None, rng: Generator
) -> FloatMap:
    """Set a random mean and standard deviation, measured beside a grid bar."""
    level, contrast = rng.uniform(0.36, 0.64), log_uniform(rng, 0.1, 0.2)
    measured = intensity if area is None or area.mean() < 0.2 else intensity[area]
    mean, std = float(measured.mean()), float(measured.std())
    # An almost empty field is not stretched to full contrast.
    gain: float = contrast / max(std, 0.04 * mean, 1e-6)
    return (level + gain * (intensity - mean)).astype(np.float32)


def _camera(image: FloatMap, rng: Generator) -> FloatMap:
    dose = log_uniform(rng, 300, 3000)
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    image = image + noise * np.sqrt(np.maximum(image, 0.03) / np.float32(dose))
    image = gaussian_filter(image, rng.uniform(0.3, 0.75), mode="nearest", truncate=3.0)
    clipped: FloatMap = np.clip(image, 0, 1, dtype=np.float32)
    return clipped


# --- crystal lattices ----------------------------------------------------------------------------

_MARGIN = 24  # pixels: drift must not carry the edge of the crystal into the frame
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

    A sample is a random crystal with defects; its images show different places.

    Parameters
    ----------
    n : int
        Number of images, at least 1.
    images_per_sample : int, default=4
        Images of each sample, at least 1; the last sample may have fewer.
    size : int or (int, int), default=224
        Height and width in pixels, each at least 64. Lattice vectors are 7 to 24 pixels long.
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
    shape = check_size(size)
    seed = draw_seed(random_state)
    samples = np.arange(n, dtype=np.intp) // per_sample
    crystals = [
        draw_crystal(np.random.default_rng([_SAMPLES, seed, sample]))
        for sample in range(int(samples[-1]) + 1)
    ]
    images = [
        _make_lattice_image(np.random.default_rng([_IMAGES, seed, i]), crystals[sample], shape)
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
    """Return (row, column) in pixels, some beyond the frame, and brightness of atomic columns."""
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


def _make_lattice_image(rng: Generator, crystal: Crystal, shape: tuple[int, int]) -> FloatMap:
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
