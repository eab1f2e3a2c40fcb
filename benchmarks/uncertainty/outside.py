"""Images of no class: noise, photographs, synthetic images and images of other data sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import skimage.data
from scipy.ndimage import gaussian_filter

from benchmarks.common.folds import DataSet
from hypervlad import make_nanofibre_images

SIZE = 256  # pixels per side of the images that are made here
N_EACH = 12
PHOTOGRAPHS = ("astronaut", "camera", "chelsea", "coffee", "coins", "page", "rocket", "text")


def outside_images(others: Mapping[str, DataSet], seed: int = 0) -> tuple[list[Any], np.ndarray]:
    """Return images that belong to no class of a data set, and the kind of each.

    Parameters
    ----------
    others : mapping of str to DataSet
        Other data sets by name: a few images of each, of as many groups as possible, are a kind.
    seed : int

    Returns
    -------
    images : list of n paths and arrays of shape (H, W) or (H, W, 3)
    kinds : ndarray of str, shape (n,)
    """
    rng = np.random.default_rng(seed)
    made: dict[str, list[Any]] = {
        "white noise": [white_noise(rng) for _ in range(N_EACH)],
        "constant": [np.full((SIZE, SIZE), grey, np.float32) for grey in (0, 0.2, 0.5, 0.8, 1)],
        "smooth noise": [smooth_noise(rng) for _ in range(N_EACH)],
        "blurred noise": [blurred_noise(rng) for _ in range(N_EACH)],
        "gradients": [gradient(rng) for _ in range(N_EACH)],
        "lattices": [lattice(rng) for _ in range(N_EACH)],
        "synthetic mats": list(make_nanofibre_images(N_EACH, size=SIZE, random_state=seed)[0]),
        "photographs": [getattr(skimage.data, name)() for name in PHOTOGRAPHS],
    }
    for name, data in others.items():
        order = rng.permutation(len(data.paths))
        _, first = np.unique(data.groups[order], return_index=True)
        made[name] = list(data.paths[rng.permutation(order[first])[:N_EACH]])
    images = [image for of_kind in made.values() for image in of_kind]
    return images, np.repeat(list(made), [len(of_kind) for of_kind in made.values()])


def white_noise(rng: np.random.Generator) -> np.ndarray:
    """Return independent pixels (256, 256), float32 in [0, 1], of random mean and contrast."""
    pixels = rng.normal(rng.uniform(0.3, 0.7), rng.uniform(0.05, 0.3), (SIZE, SIZE))
    return np.clip(pixels, 0, 1).astype(np.float32)


def smooth_noise(rng: np.random.Generator) -> np.ndarray:
    """Return noise (256, 256), float32 in [0, 1], with the spectrum of natural images.

    Amplitudes fall with the frequency to a power of 1 to 2: D. L. Ruderman, "The statistics of
    natural images", Network 5, 1994.
    """
    rows, columns = np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)[None, :]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.normal(size=(SIZE, SIZE))) / frequency ** rng.uniform(1, 2)
    return _scaled(np.fft.irfft2(spectrum, s=(SIZE, SIZE)))


def blurred_noise(rng: np.random.Generator) -> np.ndarray:
    """Return blurred white noise (256, 256), float32 in [0, 1]."""
    return _scaled(gaussian_filter(rng.normal(size=(SIZE, SIZE)), rng.uniform(0.5, 12)))


def gradient(rng: np.random.Generator) -> np.ndarray:
    """Return a linear gradient (256, 256), float32 in [0, 1], with a little noise."""
    rows, columns = np.mgrid[:SIZE, :SIZE] / SIZE
    slope = rng.uniform(-0.4, 0.4, size=2)
    pixels = 0.5 + slope[0] * (rows - 0.5) + slope[1] * (columns - 0.5)
    noisy = pixels + rng.normal(scale=rng.uniform(0, 0.02), size=pixels.shape)
    return np.clip(noisy, 0, 1).astype(np.float32)


def lattice(rng: np.random.Generator) -> np.ndarray:
    """Return a lattice of atoms (256, 256), float32 in [0, 1], with noise.

    The sum of two plane waves of random directions and of periods of 6 to 20 pixels.
    """
    rows, columns = np.mgrid[:SIZE, :SIZE]
    turn, between = rng.uniform(0, np.pi), rng.uniform(np.pi / 3, np.pi / 2)
    pixels = np.zeros((SIZE, SIZE))
    for angle in (turn, turn + between):
        period = rng.uniform(6, 20)
        along = columns * np.cos(angle) + rows * np.sin(angle)
        pixels += np.cos(2 * np.pi * along / period + rng.uniform(0, 2 * np.pi))
    return _scaled(pixels + rng.normal(scale=rng.uniform(0.1, 0.8), size=pixels.shape))


def _scaled(pixels: np.ndarray) -> np.ndarray:
    return ((pixels - pixels.min()) / np.ptp(pixels)).astype(np.float32)
