"""What sound places look like: a whitened codebook of their windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

_ODD = 0.01  # of the windows, the least likely, are left out: the good images may hold a bad one
_PASSES = 2
_RIDGE = 0.01  # of the mean variance, added to all directions
_FEWEST_A_WORD, _MOST_A_WORD = 4, 100

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class NormalWindows:
    """Words of sound windows, in the space where these vary alike in all directions.

    Attributes
    ----------
    mean : ndarray of float32, shape (D,)
    whitening : ndarray of float32, shape (D, D)
    words : ndarray of float32, shape (K, D)
        In the whitened space.
    """

    mean: NDArray[np.float32]
    whitening: NDArray[np.float32]
    words: NDArray[np.float32]

    @classmethod
    def fit(cls, windows: NDArray[Any], n_words: int, seed: int) -> NormalWindows:
        """Learn from windows (n, D).

        The hundredth part that lies farthest from the rest is left out, twice over: covariances
        are easily led astray.
        """
        rows: FloatArray = np.asarray(windows, dtype=np.float64)
        kept = rows
        for _ in range(_PASSES):
            mean, whitening = _whitening(kept)
            distances = np.square((rows - mean) @ whitening).sum(axis=1)
            kept = rows[distances <= np.quantile(distances, 1 - _ODD)]
        mean, whitening = _whitening(kept)
        n_words = max(1, min(n_words, len(kept) // _FEWEST_A_WORD))
        every = -(-len(kept) // (_MOST_A_WORD * n_words))  # more would only take longer
        white = (kept[::every] - mean) @ whitening
        n_words = min(n_words, len(np.unique(white, axis=0)))
        words = KMeans(n_words, n_init=1, max_iter=30, random_state=seed).fit(white)
        parts = (mean, whitening, words.cluster_centers_)
        return cls(*(part.astype(np.float32) for part in parts))

    def scores(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return how far windows (n, D) are from the nearest word: (n,)."""
        white = (windows - self.mean) @ self.whitening
        halves = 0.5 * np.square(self.words).sum(1) - white @ self.words.T
        squares = np.square(white).sum(1) + 2 * halves.min(axis=1)
        return np.asarray(np.sqrt(np.maximum(squares, 0)))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name."""
        return {"mean": self.mean, "whitening": self.whitening, "words": self.words}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> NormalWindows:
        """Undo `to_arrays`."""
        return cls(arrays["mean"], arrays["whitening"], arrays["words"])


def _whitening(windows: FloatArray) -> tuple[FloatArray, FloatArray]:
    mean = windows.mean(axis=0)
    centred = windows - mean
    variances, directions = np.linalg.eigh(centred.T @ centred / max(1, len(windows) - 1))
    usual = variances.mean() or 1.0
    return mean, directions / np.sqrt(np.maximum(variances, 0) + _RIDGE * usual)
