"""Methods that outline particles: ours, and random forests of pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from skimage.feature import multiscale_basic_features
from sklearn.ensemble import RandomForestClassifier

from hypervlad import HypercolumnSegmenter
from hypervlad.features import get_backbone
from hypervlad.features.hypercolumns import feature_maps, hypercolumns_at
from hypervlad.features.network import build_network
from hypervlad.particles import find_particles, split_particles
from hypervlad.particles.decoder import brightness_of, network_input, standardised

SEGMENTER = "HypercolumnSegmenter"
N_TREES, N_PIXELS, CHUNK = 30, 2000, 1 << 16  # pixels of an image to learn from; predicted at once
Reader = Callable[[np.ndarray], np.ndarray]  # from flat pixels of an image to features (n, C)


class Untrained:
    """`find_particles`, which learns nothing."""

    def fit(self, images: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> None: ...

    def predict(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [find_particles(image).label_image() for image in images]


class PixelForest:
    """A random forest that tells particles from background; they are separated at narrow necks.

    Of three classes, with the edges of particles as one, fewer particles were separated.

    Parameters
    ----------
    reader : callable
        From a standardised image to a function that reads the features of pixels.
    seed : int
    """

    def __init__(self, reader: Callable[[np.ndarray], Reader], seed: int) -> None:
        self._reader, self._seed = reader, seed
        self._forest = RandomForestClassifier(N_TREES, min_samples_leaf=3, random_state=seed)

    def fit(self, images: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> None:
        rng, X, y = np.random.default_rng(self._seed), [], []
        for image, own in zip(images, labels, strict=True):
            pixels = rng.choice(image.size, min(N_PIXELS, image.size), replace=False)
            X.append(self._read(image)(pixels))
            y.append(own.ravel()[pixels] > 0)
        self._forest.fit(np.concatenate(X), np.concatenate(y))

    def predict(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        return list(map(self._outlined, images))

    def _outlined(self, image: np.ndarray) -> np.ndarray:
        read, pixels = self._read(image), np.arange(image.size)
        parts = np.split(pixels, range(CHUNK, image.size, CHUNK))
        found = np.concatenate([self._forest.predict(read(part)) for part in parts])
        return split_particles(None, found.reshape(image.shape))

    def _read(self, image: np.ndarray) -> Reader:
        return self._reader(standardised(image, brightness_of(image)[1]))


def read_hypercolumns(backbone: str, weights: str, image: np.ndarray) -> Reader:
    """Read the hypercolumns that the segmenter has, as napari-convpaint does."""
    known = get_backbone(backbone)
    network = build_network(backbone, weights, known.taps[:-1])
    batch = network_input(torch.from_numpy(image)[None], known.preprocessing)
    maps = [layer[0] for layer in feature_maps(network, batch)]
    return lambda pixels: torch.cat(hypercolumns_at(maps, pixels, image.shape), dim=1).numpy()


def read_multiscale(image: np.ndarray) -> Reader:
    """Read intensity, edges and texture at scales of 0.5 to 16 px, as ilastik and Weka do."""
    features = multiscale_basic_features(image)
    return features.reshape(-1, features.shape[-1]).__getitem__


#: Titles, and functions of backbone, weights and seed that return a method with ``fit(images,
#: labels)`` and ``predict(images)``.
METHODS: dict[str, Callable[[str, str, int], Any]] = {
    "find_particles": lambda *_: Untrained(),
    SEGMENTER: lambda backbone, weights, seed: HypercolumnSegmenter(
        backbone, weights=weights, random_state=seed
    ),
    "forest on hypercolumns": lambda backbone, weights, seed: PixelForest(
        partial(read_hypercolumns, backbone, weights), seed
    ),
    "forest on multiscale features": lambda _, __, seed: PixelForest(read_multiscale, seed),
}
