"""Features of the simple methods: pooled taps, hypercolumns and their encodings, texture."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from skimage.feature import (
    fisher_vector,
    graycomatrix,
    graycoprops,
    learn_gmm,
    local_binary_pattern,
)
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning

from hypervlad.features import get_backbone
from hypervlad.features.encoding import random_pixels
from hypervlad.features.hypercolumns import feature_maps, hypercolumns_at
from hypervlad.features.loading import Batch, ImageLoader
from hypervlad.features.network import build_network
from hypervlad.images import read_micrographs

IMAGE_SIZE = 224
BATCH_SIZE = 8
LBP_RINGS = ((8, 1), (16, 2), (24, 3))
GLCM_LEVELS = 32
GLCM_DISTANCES = (1, 2, 4, 8)
GLCM_ANGLES = (0.0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)
GLCM_PROPERTIES = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation", "ASM")
N_POOL = 50_000  # local features from which codewords and modes are learnt
N_PCA_POOL = 20_000  # hypercolumns from which the projection is learnt


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


class LayerPCA:
    """Divide each layer by its total standard deviation, then reduce all layers by PCA.

    Parameters
    ----------
    widths : sequence of int
        Channels of each layer.
    n_components : int
    seed : int
    """

    def __init__(self, widths: Sequence[int], n_components: int = 64, seed: int = 0) -> None:
        self.widths, self.n_components, self.seed = widths, n_components, seed

    def fit_transform(self, samples: np.ndarray) -> np.ndarray:
        """Learn from samples (n, m, sum of C_l) and return them projected, (n, m, d)."""
        pool = sample_features(samples, N_PCA_POOL, self.seed).astype(np.float32)
        layers = np.split(pool.var(axis=0), np.cumsum(self.widths)[:-1])
        scales = [1 / np.sqrt(max(layer.sum(), 1e-12)) for layer in layers]
        self.scale_ = np.repeat(scales, self.widths).astype(np.float32)
        n_components = min(self.n_components, *pool.shape)
        self.pca_ = PCA(n_components, svd_solver="covariance_eigh").fit(pool * self.scale_)
        return self.transform(samples)

    def transform(self, samples: np.ndarray) -> np.ndarray:
        """Project samples (n, m, sum of C_l)."""
        matrix = (self.pca_.components_ * self.scale_).T.astype(np.float32)
        offset = (self.pca_.mean_ @ self.pca_.components_.T).astype(np.float32)
        return np.stack([image.astype(np.float32) @ matrix - offset for image in samples])


class WordHistograms:
    """Square-rooted histograms of K-means codewords: a bag of visual words.

    Csurka et al. 2004, "Visual categorization with bags of keypoints", ECCV workshop; square root:
    Arandjelović and Zisserman 2012, CVPR.
    """

    def __init__(self, seed: int = 0, n_codewords: int = 256) -> None:
        self.seed, self.n_codewords = seed, n_codewords

    def fit(self, local: np.ndarray) -> WordHistograms:
        """Learn the codewords from local features (n, m, d)."""
        pool = sample_features(local, N_POOL, self.seed)
        n_codewords = min(self.n_codewords, len(pool))
        self.kmeans_ = MiniBatchKMeans(
            n_codewords, batch_size=4096, n_init=3, random_state=self.seed
        ).fit(pool)
        return self

    def transform(self, local: np.ndarray) -> np.ndarray:
        """Return histograms, shape (n, n_codewords)."""
        n_codewords = len(self.kmeans_.cluster_centers_)
        words = self.kmeans_.predict(local.reshape(-1, local.shape[2])).reshape(local.shape[:2])
        counts = [np.bincount(row, minlength=n_codewords) for row in words]
        return np.sqrt(np.array(counts) / local.shape[1])


class FisherVectors:
    """Improved Fisher vectors (Perronnin, Sánchez and Mensink 2010, ECCV)."""

    def __init__(self, seed: int = 0, n_modes: int = 16) -> None:
        self.seed, self.n_modes = seed, n_modes

    def fit(self, local: np.ndarray) -> FisherVectors:
        """Learn the mixture from local features (n, m, d)."""
        arguments = {"covariance_type": "diag", "random_state": self.seed, "max_iter": 50}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            pool = sample_features(local, N_POOL, self.seed).astype(np.float64)
            self.gmm_ = learn_gmm(pool, n_modes=self.n_modes, gm_args=arguments)
        return self

    def transform(self, local: np.ndarray) -> np.ndarray:
        """Return Fisher vectors, shape (n, 2 n_modes d + n_modes)."""
        return np.array(
            [fisher_vector(x.astype(np.float64), self.gmm_, improved=True) for x in local]
        )


def sample_features(samples: np.ndarray, n_wanted: int, seed: int) -> np.ndarray:
    """Sample local features (n, m, d) at random, equally many from each image."""
    n_each = min(samples.shape[1], -(-n_wanted // len(samples)))
    chosen = np.random.default_rng(seed).choice(samples.shape[1], n_each, replace=False)
    return samples[:, chosen].reshape(-1, samples.shape[2])
