"""Features that need no training: pooled taps, sampled hypercolumns, texture."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from skimage.feature import graycomatrix, graycoprops, local_binary_pattern

from hypervlad.backbones import build_network, get_backbone
from hypervlad.encoder import ImageLoader
from hypervlad.encoder.encoding import random_pixels
from hypervlad.encoder.loading import Batch
from hypervlad.hypercolumns import feature_maps, hypercolumns_at
from hypervlad.images import read_micrographs

IMAGE_SIZE = 224
BATCH_SIZE = 8
LBP_RINGS = ((8, 1), (16, 2), (24, 3))
GLCM_LEVELS = 32
GLCM_DISTANCES = (1, 2, 4, 8)
GLCM_ANGLES = (0.0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)
GLCM_PROPERTIES = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation", "ASM")


class Taps:
    """Maps of a network for whole images, in the shapes that the baselines need."""

    def __init__(self, backbone: str, weights: str) -> None:
        self.network = build_network(backbone, weights)
        self._preprocessing = get_backbone(backbone).preprocessing
        size, n_channels = self._preprocessing.minimum_size, len(self._preprocessing.mean)
        nothing = torch.zeros(1, n_channels, size, size)
        self.widths = [m.shape[-1] for m in feature_maps(self.network, nothing)]

    def pooled(self, paths: list[str]) -> np.ndarray:
        """Return each channel's mean over the image, taps side by side: (n, sum of C_l)."""
        means = [
            torch.cat([layer.mean(dim=(1, 2)) for layer in maps], dim=1).cpu().numpy()
            for _, maps in self._maps(paths)
        ]
        return np.concatenate(means)

    def sampled(self, paths: list[str], n_each: int) -> np.ndarray:
        """Return the hypercolumns of random pixels, shape (n, n_each, sum of C_l), float16."""
        samples = np.empty((len(paths), n_each, sum(self.widths)), dtype=np.float16)
        size = (IMAGE_SIZE, IMAGE_SIZE)
        for batch, maps in self._maps(paths):
            for i, position in enumerate(batch.positions):
                points = random_pixels(0, batch.keys[i], IMAGE_SIZE**2, n_each)
                blocks = hypercolumns_at([layer[i] for layer in maps], points, size)
                samples[position] = torch.cat(blocks, dim=1).cpu().numpy()
        return samples

    def _maps(self, paths: list[str]) -> Iterator[tuple[Batch, list[torch.Tensor]]]:
        """Yield batches with their maps; all images are squares, so that their order is kept."""
        loader = ImageLoader(
            image_size=IMAGE_SIZE,
            aspect="square",
            preprocessing=self._preprocessing,
            batch_size=BATCH_SIZE,
        )
        for batch in loader.batches(enumerate(loader.load(path, path) for path in paths)):
            yield batch, feature_maps(self.network, batch.tensors)


def texture(paths: list[str]) -> np.ndarray:
    """Return classical texture at the images' own resolution, shape (n, 102).

    Uniform local binary patterns on three rings (Ojala et al. 2002), and Haralick's properties of
    co-occurrence (1973), mean and range over four directions, at four distances.
    """
    rows = []
    for _, micrograph in read_micrographs(paths):
        pixels = micrograph.pixels
        grey = pixels if pixels.ndim == 2 else pixels.mean(axis=2)
        levels = np.round(255 * np.clip(grey, 0, 1)).astype(np.uint8)
        rows.append(np.concatenate([_binary_patterns(levels), _co_occurrence(levels)]))
    return np.array(rows)


def _binary_patterns(levels: np.ndarray) -> np.ndarray:
    histograms = []
    for n_points, radius in LBP_RINGS:
        patterns = local_binary_pattern(levels, n_points, radius, method="uniform")
        counts = np.bincount(patterns.astype(int).ravel(), minlength=n_points + 2)
        histograms.append(counts / patterns.size)
    return np.concatenate(histograms)


def _co_occurrence(levels: np.ndarray) -> np.ndarray:
    few = levels // (256 // GLCM_LEVELS)
    # Pairs must fit into the smallest image.
    distances = [min(d, min(levels.shape) - 1) for d in GLCM_DISTANCES]
    matrix = graycomatrix(few, distances, GLCM_ANGLES, GLCM_LEVELS, symmetric=True, normed=True)
    values = [graycoprops(matrix, name) for name in GLCM_PROPERTIES]
    return np.concatenate([np.concatenate([v.mean(axis=1), np.ptp(v, axis=1)]) for v in values])
