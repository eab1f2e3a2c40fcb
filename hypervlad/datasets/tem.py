"""Synthetic transmission electron micrographs of carbon nanotubes and polymer particles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from scipy import fft
from scipy.ndimage import gaussian_filter

from hypervlad.datasets.drawing import (
    FloatMap,
    check_count,
    check_size,
    draw_seed,
    eight_bits,
    log_uniform,
    rows_and_columns,
    smooth_noise,
    whole_folder,
    worm_like_chains,
)

_SMALLEST_SIZE = 32
#: The four classes of Luo, Holm and Wang (2021).
TEM_CLASSES: tuple[str, ...] = ("cluster", "fiber", "matrix", "matrix-surface")
# Separate the random numbers of labels and of images.
_LABELS, _IMAGES = 0, 1


def make_tem_images(
    n: int,
    *,
    size: int | tuple[int, int] = 224,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[list[NDArray[np.float32]], NDArray[np.str_]]:
    """Make synthetic bright-field TEM images of carbon nanotubes: alone, in clusters, in polymer.

    Parameters
    ----------
    n : int
        Number of images, at least 1.
    size : int or (int, int), default=224
        Height and width in pixels, each at least 32. All sizes have the same field of view.
    random_state : int, RandomState or None, default=None
        Seed. With the same integer, image ``i`` and its label are the same whatever ``n`` is.

    Returns
    -------
    images : list of n arrays of shape (H, W), float32 in [0, 1]
    labels : array of shape (n,), str
        The classes of [1]_. "fiber", one isolated tube or fibre; "cluster", several tubes that
        touch or entangle; "matrix", polymer particles, with tubes only inside; "matrix-surface",
        polymer particles with protruding tubes. Shuffled; class counts differ by at most one.

    Raises
    ------
    ValueError
        If ``n`` or ``size`` is out of range.

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
    n, shape = check_count(n), check_size(size, _SMALLEST_SIZE)
    seed = draw_seed(random_state)
    rng = np.random.default_rng([_LABELS, seed])
    rounds = [rng.permutation(len(TEM_CLASSES)) for _ in range(-(-n // len(TEM_CLASSES)))]
    labels: NDArray[np.str_] = np.asarray(TEM_CLASSES)[np.concatenate(rounds)[:n]]
    images = [
        _make_image(str(label), np.random.default_rng([_IMAGES, seed, i]), shape)
        for i, label in enumerate(labels)
    ]
    return images, labels


def write_tem_folder(folder: Path, n_images: int, *, random_state: int) -> None:
    """Write images of `make_tem_images`, with 8 bits, into a folder for each class, complete."""
    images, labels = make_tem_images(n_images, random_state=random_state)
    with whole_folder(folder) as draft:
        for number, label in enumerate(labels):
            file = draft / label / f"{number:04d}.png"
            file.parent.mkdir(exist_ok=True)
            Image.fromarray(eight_bits(images[number])).save(file)


def _make_image(label: str, rng: Generator, shape: tuple[int, int]) -> FloatMap:
    # Cropping a margin removes what the periodic Fourier transform wraps around.
    margin = max(8, min(shape) // 16)
    full = (fft.next_fast_len(shape[0] + 2 * margin), fft.next_fast_len(shape[1] + 2 * margin))
    scene = _Scene(rng, full, min(shape) / 224)
    scene.draw(label)
    intensity = scene.intensity()[margin : margin + shape[0], margin : margin + shape[1]]
    return _recorded(rng, intensity)


@dataclass
class _Scene:
    """A specimen: projected thickness of tubes in their radii, and of polymer, at most about 1."""

    rng: Generator
    shape: tuple[int, int]  # with the margin
    unit: float  # pixels per 224th of the image's shorter side

    def __post_init__(self) -> None:
        self.tubes = np.zeros(self.shape, np.float32)
        self.polymer = np.zeros(self.shape, np.float32)
        self.side = 224 * self.unit
        self.centre = np.asarray(self.shape) / 2 + self.rng.normal(0, 0.11 * self.side, 2)

    def draw(self, label: str) -> None:
        rng = self.rng
        if label == "fiber":
            self._lay_tubes(1, 0.0, rng.uniform(0, 0.4), (2.2, 14), bend=log_uniform(rng, 0.35, 8))
        elif label == "cluster":
            n, is_bundle = int(log_uniform(rng, 3, 30)), rng.random() < 0.4
            bend = rng.uniform(1.2, 6) if is_bundle else log_uniform(rng, 0.1, 0.8)
            turn = rng.uniform(0.04, 0.2) if is_bundle else np.pi
            spread = 0.02 * n**0.7 if is_bundle else rng.uniform(0.09, 0.22)
            self._lay_tubes(n, spread, turn, (2.0, 7.0), bend=bend)
        else:
            radius = float(log_uniform(rng, 45, 100)) * self.unit
            self._lay_polymer(radius)
            # Tubes inside are faint, and end within the particle.
            self._lay_tubes(int(rng.integers(0, 6)), 0.12, np.pi, (2, 6), length=(0.2, 0.8))
            self.tubes *= np.clip(self.polymer * 6 - 0.8, 0, 1) * rng.uniform(0.2, 0.5)
            if label == "matrix-surface":
                n = int(log_uniform(rng, 1, 20))
                self._lay_tubes(n, 0.0, rng.uniform(0.8, 2.5), (3, 7), from_rim=True)
        if rng.random() < 0.15:  # dirt
            at = rng.uniform(0, 1, 2) * self.shape
            self._lay_polymer(float(log_uniform(rng, 6, 16)) * self.unit, at)

    def _lay_polymer(self, radius: float, centre: NDArray[np.floating] | None = None) -> None:
        rng, shape = self.rng, self.shape
        rows, columns = rows_and_columns(shape, self.centre if centre is None else centre)
        stretch = np.float32(np.exp(rng.normal(0, 0.15)))
        # Rounded or broken, with a flat or a domed top.
        cell, rough = max(rng.uniform(0.3, 0.8) * radius, 3.0), rng.uniform(0.1, 0.25)
        uneven = rough * smooth_noise(rng, shape, cell, octaves=3)
        rise = 1 + uneven - np.hypot(rows * stretch, columns / stretch) / np.float32(radius)
        height = np.clip(rise * log_uniform(rng, 1, 6), 0, rng.uniform(0.4, 0.9))
        texture = smooth_noise(rng, shape, max(0.25 * radius, 4), octaves=3)
        self.polymer += height * np.maximum(0.2, 1 + rng.uniform(0.04, 0.16) * texture)

    def _lay_tubes(
        self,
        n: int,
        spread: float,
        turn: float,
        radii: tuple[float, float],
        *,
        bend: float = 1.0,
        length: tuple[float, float] = (0.4, 1.8),
        from_rim: bool = False,
    ) -> None:
        """Add n tubes; lengths are in units of the shorter side, radii in 224ths of it."""
        if not n:
            return
        rng = self.rng
        headings = rng.uniform(0, 2 * np.pi) + rng.uniform(-turn, turn, n)
        anchors = self.centre + rng.normal(0, max(spread, 1e-6) * self.side, (n, 2))
        if from_rim:
            towards = np.stack([np.sin(headings), np.cos(headings)], axis=1)
            steps = np.linspace(0, self.side, 100)
            path = (self.centre + steps[:, None, None] * towards).astype(int)
            row, column = np.clip(path, 0, np.asarray(self.shape) - 1).T
            # From the outermost polymer in the direction of each tube, row and column (n, 100).
            out = np.where(self.polymer[row, column] > 0.06, steps, 0).max(axis=1)
            anchors = self.centre + 0.9 * out[:, None] * towards
            headings = headings + rng.normal(0, 0.5, n)
        radius = float(log_uniform(rng, *radii)) * self.unit * (1 if n < 6 else 0.75)
        chains = worm_like_chains(
            rng,
            anchors=anchors,
            headings=headings,
            length=self.side * rng.uniform(*length, n),
            persistence=self.side * bend,
            step=0.7 * max(self.unit, 0.5),
            stiffness=1.2 * radius,
            anchor_at=0.0 if from_rim else rng.uniform(0.2, 0.8, n),
        )
        radius_of_each = radius * np.exp(rng.normal(0, 0.15, n))
        self.tubes += _thickness(self.shape, chains, radius_of_each, rng.uniform(0.3, 0.75))

    def intensity(self) -> FloatMap:
        """Return the intensity in the image plane: the exit wave after defocus and aperture.

        Williams and Carter, Transmission Electron Microscopy, 2nd ed., chapter 28.
        """
        rng, shape = self.rng, self.shape
        matrix_loss = log_uniform(rng, 0.7, 2.6)
        tube_loss = rng.uniform(0.16, 0.5)
        if self.polymer.max() > 0.3:
            # Beside a particle that dominates the contrast, a thin tube would be invisible.
            tube_loss = max(tube_loss, 0.22 * matrix_loss)
        film = 1 + 0.15 * smooth_noise(rng, shape, 0.3 * min(shape), octaves=3)
        grain = rng.standard_normal(shape, dtype=np.float32)
        absorption = tube_loss * self.tubes + matrix_loss * self.polymer
        absorption += log_uniform(rng, 0.03, 0.25) * film
        # All carbon is amorphous: its grain grows with the square root of the thickness.
        amorphous = np.sqrt(1 + 1.5 * self.polymer + 0.3 * self.tubes)
        phase = (
            rng.uniform(0.2, 0.55) * self.tubes + log_uniform(rng, 0.04, 0.14) * amorphous * grain
        )
        # Thick parts scatter inelastically: their phase saturates.
        phase += 1.2 * (1 - np.exp(-1.5 * self.polymer))
        wave = np.exp(-0.5 * absorption + 1j * phase).astype(np.complex64)
        ky = fft.fftfreq(shape[0]).astype(np.float32)[:, None]
        kx = fft.fftfreq(shape[1]).astype(np.float32)[None, :]
        k2 = ky**2 + kx**2
        # sqrt(wavelength * defocus), the width of the first Fresnel fringe, in pixels.
        fringe = float(log_uniform(rng, 0.7, 3.0)) * max(self.unit, 0.3) ** 0.5
        chi = np.pi * fringe**2 * k2
        coherence = np.exp(-((0.35 * fringe**2) ** 2) * k2 - (k2 / 0.1) ** 2)
        wave = fft.ifft2(fft.fft2(wave) * coherence * np.exp(-1j * chi))
        return np.asarray(np.abs(wave) ** 2, np.float32)


def _thickness(
    shape: tuple[int, int], chains: FloatMap, radius: NDArray[np.floating], inner: float
) -> FloatMap:
    """Project hollow cylinders along centre lines (n_tubes, n_points, 2) onto the image plane.

    The result is the path length through the walls in units of the mean outer radius; `inner` is
    the inner radius over the outer.
    """
    tangents = np.gradient(chains, axis=1)
    spacing = np.linalg.norm(tangents, axis=2, keepdims=True)
    tangents /= np.maximum(spacing, 1e-6)
    n_across = max(15, int(np.ceil(6 * float(radius.max()))))  # three samples per pixel
    across = np.linspace(-1, 1, 2 * n_across + 1, dtype=np.float32)[1::2]
    chord = np.sqrt(1 - across**2) - np.sqrt(np.maximum(0, inner**2 - across**2))
    offset = across * radius[:, None, None]
    rows = chains[..., :1] + tangents[..., 1:] * offset
    columns = chains[..., 1:] - tangents[..., :1] * offset
    relative = radius[:, None, None] ** 2 / radius.mean()
    weight = np.broadcast_to(4 / n_across * chord * relative * spacing, rows.shape)
    edges = [np.arange(extent + 1) for extent in shape]
    counted = np.histogram2d(rows.ravel(), columns.ravel(), edges, weights=weight.ravel())
    # Samples along a tube are a pixel apart: without blur, they would ripple.
    return np.asarray(gaussian_filter(counted[0], 0.6), np.float32)


def _recorded(rng: Generator, intensity: FloatMap) -> FloatMap:
    """Return what the camera records: uneven light, random brightness and contrast, noise."""
    rows = np.linspace(-0.5, 0.5, intensity.shape[0], dtype=np.float32)[:, None]
    columns = np.linspace(-0.5, 0.5, intensity.shape[1], dtype=np.float32)[None, :]
    tilt, centre = rng.normal(0, 0.12, 2), rng.normal(0, 0.25, 2)
    away = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2
    light = (1 + tilt[0] * rows + tilt[1] * columns) * np.exp(
        -away / (2 * rng.uniform(0.9, 2.5) ** 2)
    )
    image = intensity * light
    mean, level, contrast = image.mean(), rng.uniform(0.36, 0.64), log_uniform(rng, 0.1, 0.2)
    # An almost empty field is not stretched to full contrast.
    image = level + contrast / max(float(image.std()), 0.04 * float(mean)) * (image - mean)
    noise = rng.standard_normal(image.shape) * np.sqrt(np.maximum(image, 0.03))
    image = image + noise / np.sqrt(log_uniform(rng, 300, 3000))
    image = gaussian_filter(image, rng.uniform(0.3, 0.75), mode="nearest", truncate=3.0)
    return np.ascontiguousarray(np.clip(image, 0, 1), dtype=np.float32)
