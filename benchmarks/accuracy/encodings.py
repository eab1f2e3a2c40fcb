"""Bag of visual words and Fisher vectors on sampled hypercolumns."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from skimage.feature import fisher_vector, learn_gmm
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning

N_POOL = 50_000  # local features from which codewords and modes are learnt
N_PCA_POOL = 20_000  # hypercolumns from which the projection is learnt


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
