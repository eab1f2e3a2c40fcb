"""Synthetic transmission electron micrographs of carbon nanotubes and nanofibres."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter

from hypervlad.data.synthetic.drawing import check_count, check_size, draw_seed, log_uniform
from hypervlad.data.synthetic.tem_scenes import Specimen, make_specimen

FloatMap = NDArray[np.float32]

SMALLEST_SIZE = 32

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

# Separate the random numbers of labels and of images.
_LABELS, _IMAGES = 0, 1


def make_tem_images(
    n: int,
    *,
    n_classes: int = 4,
    size: int | tuple[int, int] = 224,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[list[NDArray[np.float32]], NDArray[np.str_]]:
    """Make synthetic bright-field TEM images of carbon nanotubes: alone, in clusters, in polymer.

    Magnification, brightness, contrast and defocus are random and do not depend on the class.

    Parameters
    ----------
    n : int
        Number of images, at least 1.
    n_classes : {4, 8}, default=4
        4: the classes of [1]_. "fiber": one isolated tube or fibre; "cluster": several tubes that
        touch or entangle; "matrix": polymer particles, with tubes only inside; "matrix-surface":
        polymer particles with protruding tubes. 8: each of these split in two
        (`TEM_FINE_CLASSES`): hollow "fiber-tube" and "fiber-bamboo" with cross walls; nearly
        parallel "cluster-bundle" and "cluster-tangle"; faceted "matrix-shard" and rounded
        "matrix-agglomerate"; "matrix-surface-few" with one to three tubes and "matrix-surface-many"
        with seven or more.
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
    height, width = check_size(size, SMALLEST_SIZE)
    seed = draw_seed(random_state)
    labels = balanced_labels(n, names, seed)
    images = [
        _make_image(label, np.random.default_rng([_IMAGES, seed, i]), height, width)
        for i, label in enumerate(labels)
    ]
    return images, labels


def _make_image(label: str, rng: Generator, height: int, width: int) -> NDArray[np.float32]:
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
    intensity = _propagate(specimen, rng, unit)
    keep = (slice(margin, -margin), slice(margin, -margin))
    intensity = intensity[keep] * _illumination(rng, intensity[keep].shape)
    open_area = None if specimen.opaque is None else specimen.opaque[keep] < 0.3
    return _camera(_set_brightness(intensity, open_area, rng), rng)


def _propagate(specimen: Specimen, rng: Generator, unit: float) -> FloatMap:
    """Return the intensity in the image plane: the exit wave after defocus, envelope, aperture.

    Propagating the whole wave gives Fresnel fringes and the grain of the film one defocus (Williams
    and Carter, Transmission Electron Microscopy, 2nd ed., chapter 28).
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
