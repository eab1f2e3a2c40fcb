"""From a specimen to an image: a bright-field TEM, and a scanning electron microscope."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter
from scipy.signal import lfilter

from hypervlad.synthetic.surface import SUBSTRATE, Surface

FloatMap = NDArray[np.float32]


@dataclass(frozen=True)
class Specimen:
    """A specimen in transmission, on the padded frame.

    Attributes
    ----------
    absorption : array of shape (H, W)
        Optical depth for the intensity: a beam of 1 leaves ``exp(-absorption)`` inside the
        objective aperture.
    phase : array of shape (H, W)
        Phase shift of the electron wave in radians.
    opaque : array of shape (H, W) or None
        0 to 1: the blocked share (of a grid bar).
    """

    absorption: FloatMap
    phase: FloatMap
    opaque: FloatMap | None = None


def record_image(
    specimen: Specimen, rng: np.random.Generator, margin: int, unit: float
) -> FloatMap:
    """Image a specimen, crop the margin, and record the image with a camera.

    Brightness and contrast of the result are drawn independently of the specimen, as if set by the
    operator or an automatic contrast: neither reveals the specimen.

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
    """Return the intensity in the image plane: the exit wave after defocus, envelope, aperture.

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
    image: NDArray[np.complex64] = fft.ifft2(spectrum, overwrite_x=True)
    return image.real**2 + image.imag**2


def _transfer(
    shape: tuple[int, int], rng: np.random.Generator, unit: float
) -> NDArray[np.complex64]:
    """Return the wave transfer function on the FFT grid (frequencies in cycles per pixel)."""
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
    """Return the beam intensity: a gradient over the field, and the profile of an off-axis beam."""
    rows = np.linspace(-0.5, 0.5, shape[0], dtype=np.float32)[:, None]
    cols = np.linspace(-0.5, 0.5, shape[1], dtype=np.float32)[None, :]
    tilt = rng.normal(0, 0.12, 2)
    centre = rng.normal(0, 0.25, 2)
    width = rng.uniform(0.9, 2.5)
    beam = np.exp(-((rows - centre[0]) ** 2 + (cols - centre[1]) ** 2) / np.float32(2 * width**2))
    found: FloatMap = ((1 + tilt[0] * rows + tilt[1] * cols) * beam).astype(np.float32)
    return found


def _set_brightness(
    intensity: FloatMap, area: NDArray[np.bool_] | None, rng: np.random.Generator
) -> FloatMap:
    """Set a random mean and standard deviation, measured beside the grid bar if there is one."""
    level, contrast = rng.uniform(0.36, 0.64), np.exp(rng.uniform(np.log(0.1), np.log(0.2)))
    measured = intensity if area is None or area.mean() < 0.2 else intensity[area]
    mean, std = float(measured.mean()), float(measured.std())
    # An almost empty field is not stretched to full contrast.
    gain: float = contrast / max(std, 0.04 * mean, 1e-6)
    return (level + gain * (intensity - mean)).astype(np.float32)


def _camera(image: FloatMap, rng: np.random.Generator) -> FloatMap:
    """Add shot noise, read-out noise, and the blur of the detector."""
    dose = np.exp(rng.uniform(np.log(300), np.log(3000)))
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    image = image + noise * np.sqrt(np.maximum(image, 0.03) / np.float32(dose))
    image = gaussian_filter(image, rng.uniform(0.3, 0.75), mode="nearest", truncate=3.0)
    clipped: FloatMap = np.clip(image, 0, 1, dtype=np.float32)
    return clipped


def scan_surface(
    surface: Surface, rng: np.random.Generator, sampling: int, unit: float
) -> FloatMap:
    """Scan a mat: shadows, focus, charging, gain and noise.

    Parameters
    ----------
    surface : Surface
    rng : numpy.random.Generator
    sampling : int
        Points of the surface per pixel, in each direction.
    unit : float
        Points of the surface per 348th of the image's shorter side.

    Returns
    -------
    array of shape (H / sampling, W / sampling), float32 in [0, 1]
    """
    signal = block_means(_focused(surface, rng, unit), sampling)
    signal = _charged(signal, rng, unit / sampling)
    return _detected(signal, rng)


def _focused(surface: Surface, rng: np.random.Generator, unit: float) -> FloatMap:
    """Shade the depth of the mat, and blur what lies out of focus."""
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


def _charged(signal: FloatMap, rng: np.random.Generator, unit: float) -> FloatMap:
    """Add the charging of bright spots to half of the images: a halo, and a dark trail."""
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


def _detected(signal: FloatMap, rng: np.random.Generator) -> FloatMap:
    """Apply the operator's gain and offset, shot noise, and small differences between lines."""
    low, high = np.quantile(signal, [0.02, 0.98])
    level, contrast = rng.uniform(0.02, 0.16), rng.uniform(0.4, 0.85)
    image = level + contrast * (signal - low) / max(float(high - low), 1e-6)
    image = np.clip(image, 0, None) ** rng.uniform(0.8, 1.25)
    dose = np.exp(rng.uniform(np.log(60), np.log(1500)))
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    image = image + noise * np.sqrt((image + 0.03) / dose)
    lines = rng.standard_normal((len(image), 1), dtype=np.float32)
    image = image + lines * np.float32(rng.uniform(0, 0.012))
    image = gaussian_filter(image, rng.uniform(0.2, 0.6))
    detected: FloatMap = np.clip(image, 0, 1).astype(np.float32)
    return detected


def scan_wires(
    surface: Surface,
    rng: np.random.Generator,
    *,
    sampling: int,
    width: float,
    blur: float,
    snr: float,
) -> FloatMap:
    """Scan nanowires with known sharpness and noise.

    Gain and offset are set so that few pixels, noise included, are clipped at black or white.

    Parameters
    ----------
    surface : Surface
    rng : numpy.random.Generator
    sampling : int
        Points of the surface per pixel, in each direction.
    width : float
        Mean diameter of the wires in points of the surface.
    blur : float
        Standard deviation of the beam's profile in pixels.
    snr : float
        Contrast over the standard deviation of the noise; may be infinite. The contrast is that of
        the blurred image: the mean brightness of wire pixels minus that of the others.

    Returns
    -------
    array of shape (H / sampling, W / sampling), float32 in [0, 1]
    """
    signal, substrate = _shaded(surface, width)
    image: NDArray[np.floating] = block_means(signal, sampling)
    if blur > 0:
        image = gaussian_filter(image, blur, mode="nearest")
    on_wire = block_means(np.isfinite(surface.along), sampling) >= 0.5
    contrast = _contrast(image, on_wire, substrate)
    deviation = contrast / snr
    low, high = (float(bound) for bound in np.quantile(image, [0.001, 0.999]))
    low, high = low - 3 * deviation, max(high, substrate + contrast) + 3 * deviation
    image = image + np.float32(deviation) * rng.standard_normal(image.shape, dtype=np.float32)
    level, span = 0.04, 0.92
    image = np.clip(level + span * (image - low) / (high - low), 0, 1)
    return image.astype(np.float32)


def block_means(values: NDArray[np.generic], side: int) -> NDArray[Any]:
    """Return the means of blocks of side x side points."""
    height, width = (extent // side for extent in values.shape)
    means: NDArray[Any] = values.reshape(height, side, width, side).mean(axis=(1, 3))
    return means


def _contrast(image: FloatMap, on_wire: NDArray[np.bool_], substrate: float) -> float:
    """Return how much brighter wires are; without wires, the contrast of a white one."""
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
