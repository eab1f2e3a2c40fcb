"""From a specimen to a bright-field image: exit wave, contrast transfer, illumination, camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter

FloatMap = NDArray[np.float32]


@dataclass(frozen=True)
class Specimen:
    """What the electrons go through, on the padded frame.

    Attributes
    ----------
    absorption : array of shape (H, W)
        Optical depth for the intensity: a beam of 1 leaves ``exp(-absorption)`` inside the
        objective aperture.
    phase : array of shape (H, W)
        Phase shift of the electron wave in radians.
    opaque : array of shape (H, W) or None
        0 to 1: what is blocked altogether (a grid bar).
    """

    absorption: FloatMap
    phase: FloatMap
    opaque: FloatMap | None = None


def record_image(
    specimen: Specimen, rng: np.random.Generator, margin: int, unit: float
) -> FloatMap:
    """Image a specimen, cut off the margin, and record it with a camera.

    Brightness and contrast of the result are drawn without regard to the specimen, as the
    operator's own settings or an automatic contrast would: neither tells what is on the picture.

    Returns
    -------
    array of shape (H - 2 margin, W - 2 margin), float32 in [0, 1]
    """
    intensity = _propagate(specimen, rng, unit)
    keep = (slice(margin, -margin), slice(margin, -margin))
    intensity = intensity[keep] * _illumination(rng, intensity[keep].shape)
    open_area = None if specimen.opaque is None else specimen.opaque[keep] < 0.3
    return _camera(_set_brightness(intensity, open_area, rng), rng)


def _propagate(specimen: Specimen, rng: np.random.Generator, unit: float) -> FloatMap:
    """Intensity in the image plane: the exit wave after defocus, envelope and aperture.

    The whole wave is propagated, not its weak-phase approximation, so that Fresnel fringes at edges
    and the grain of the carbon film come from the same defocus (Williams and Carter, Transmission
    Electron Microscopy, 2nd ed., chapter 28).
    """
    amplitude = np.exp(-0.5 * specimen.absorption)
    if specimen.opaque is not None:
        amplitude = amplitude * (1 - specimen.opaque)
    wave = np.empty(amplitude.shape, np.complex64)
    wave.real = amplitude * np.cos(specimen.phase)
    wave.imag = amplitude * np.sin(specimen.phase)
    spectrum = fft.fft2(wave, overwrite_x=True)
    spectrum *= _transfer(spectrum.shape, rng, unit)
    image = fft.ifft2(spectrum, overwrite_x=True)
    return image.real**2 + image.imag**2


def _transfer(
    shape: tuple[int, int], rng: np.random.Generator, unit: float
) -> NDArray[np.complex64]:
    """Wave transfer function on the FFT grid (spatial frequencies in cycles a pixel)."""
    ky = fft.fftfreq(shape[0]).astype(np.float32)[:, None]
    kx = fft.fftfreq(shape[1]).astype(np.float32)[None, :]
    k2 = ky**2 + kx**2
    # sqrt(wavelength * defocus), the width of the first Fresnel fringe, in pixels.
    fringe = np.exp(rng.uniform(np.log(0.7), np.log(3.0))) * max(unit, 0.3) ** 0.5
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


def _illumination(rng: np.random.Generator, shape: tuple[int, int]) -> FloatMap:
    """Beam intensity: a tilt over the field, and the fall-off of a beam that is not centred."""
    rows = np.linspace(-0.5, 0.5, shape[0], dtype=np.float32)[:, None]
    cols = np.linspace(-0.5, 0.5, shape[1], dtype=np.float32)[None, :]
    tilt = rng.normal(0, 0.12, 2)
    centre = rng.normal(0, 0.25, 2)
    width = rng.uniform(0.9, 2.5)
    beam = np.exp(-((rows - centre[0]) ** 2 + (cols - centre[1]) ** 2) / np.float32(2 * width**2))
    return ((1 + tilt[0] * rows + tilt[1] * cols) * beam).astype(np.float32)


def _set_brightness(
    intensity: FloatMap, area: NDArray[np.bool_] | None, rng: np.random.Generator
) -> FloatMap:
    """Give the part of the image that no grid bar covers a drawn mean and standard deviation."""
    level, contrast = rng.uniform(0.36, 0.64), np.exp(rng.uniform(np.log(0.1), np.log(0.2)))
    seen = intensity if area is None or area.mean() < 0.2 else intensity[area]
    mean, std = float(seen.mean()), float(seen.std())
    # Nobody stretches an all but empty field to full contrast.
    gain = contrast / max(std, 0.04 * mean, 1e-6)
    return (level + gain * (intensity - mean)).astype(np.float32)


def _camera(image: FloatMap, rng: np.random.Generator) -> FloatMap:
    """Shot noise, read-out noise, and the blur of the detector."""
    dose = np.exp(rng.uniform(np.log(300), np.log(3000)))
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    image = image + noise * np.sqrt(np.maximum(image, 0.03) / np.float32(dose))
    image = gaussian_filter(image, rng.uniform(0.3, 0.75), mode="nearest", truncate=3.0)
    return np.clip(image, 0, 1, dtype=np.float32)
