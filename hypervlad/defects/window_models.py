"""Models of windows: what normal ones look like, or what distinguishes defective ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from sklearn.cluster import KMeans

from hypervlad.base import Array
from hypervlad.boosting import BoostedSoftmaxClassifier
from hypervlad.windows import NORMAL

# The share of windows, the least likely ones, that is left out: some images may have defects.
_TRIM_FRACTION = 0.01
_TRIM_ROUNDS = 2
_RIDGE = 0.01  # of the mean variance, added to all directions
_MIN_PER_CODEWORD, _MAX_PER_CODEWORD = 4, 100

_MAX_VALUE = 1e7  # in a file; squares of sums of products stay finite in single precision

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class NormalWindows:
    """A codebook of defect-free windows, in a space where they vary equally in all directions.

    Attributes
    ----------
    mean : ndarray of float32, shape (D,)
    whitening : ndarray of float32, shape (D, D)
    codewords : ndarray of float32, shape (K, D)
        In the whitened space.
    """

    mean: NDArray[np.float32]
    whitening: NDArray[np.float32]
    codewords: NDArray[np.float32]

    @classmethod
    def fit(cls, windows: NDArray[Any], n_codewords: int, seed: int) -> NormalWindows:
        """Learn from windows (n, D).

        The covariance is estimated robustly: twice, the 1 % of windows with the largest
        Mahalanobis distance are left out.
        """
        rows: FloatArray = np.asarray(windows, dtype=np.float64)
        kept = rows
        for _ in range(_TRIM_ROUNDS):
            mean, whitening = _whitening(kept)
            distances = np.square((rows - mean) @ whitening).sum(axis=1)
            kept = rows[distances <= np.quantile(distances, 1 - _TRIM_FRACTION)]
        mean, whitening = _whitening(kept)
        n_codewords = max(1, min(n_codewords, len(kept) // _MIN_PER_CODEWORD))
        every = -(-len(kept) // (_MAX_PER_CODEWORD * n_codewords))  # more would only take longer
        white = (kept[::every] - mean) @ whitening
        n_codewords = min(n_codewords, len(np.unique(white, axis=0)))
        kmeans = KMeans(n_codewords, n_init=1, max_iter=30, random_state=seed).fit(white)
        arrays = (mean, whitening, kmeans.cluster_centers_)
        return cls(*(array.astype(np.float32) for array in arrays))

    @property
    def n_features(self) -> int:
        """Length of a window's vector."""
        return len(self.mean)

    def scores(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the distances (n,) of windows (n, D) from the nearest codeword."""
        white = (windows - self.mean) @ self.whitening
        halves = 0.5 * np.square(self.codewords).sum(1) - white @ self.codewords.T
        squares = np.square(white).sum(1) + 2 * halves.min(axis=1)
        return np.asarray(np.sqrt(np.maximum(squares, 0)))

    def to_state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return header and arrays."""
        return {}, dict(vars(self))

    @classmethod
    def from_state(
        cls, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
    ) -> NormalWindows:
        """Undo `to_state`.

        Raises
        ------
        ValueError
            If the arrays do not fit together.
        """
        model = cls(**{name: _ARRAYS[name].checked(array, name) for name, array in arrays.items()})
        n_channels = len(model.mean)
        fits = n_channels > 0 and model.whitening.shape == (n_channels, n_channels)
        if not fits or not len(model.codewords) or model.codewords.shape[1] != n_channels:
            shapes = {name: array.shape for name, array in arrays.items()}
            raise ValueError(f"the arrays of the model of normal windows do not fit: {shapes}")
        return model


_ARRAYS = {
    "mean": Array("float32", 1, -_MAX_VALUE, _MAX_VALUE),
    "whitening": Array("float32", 2, -_MAX_VALUE, _MAX_VALUE),
    "codewords": Array("float32", 2, -_MAX_VALUE, _MAX_VALUE),
}


@dataclass(frozen=True, eq=False)
class LabelledWindows:
    """A boosted softmax on window vectors; one of its classes is "normal".

    Attributes
    ----------
    learner : BoostedSoftmaxClassifier
        Fitted.
    """

    learner: BoostedSoftmaxClassifier

    @property
    def n_features(self) -> int:
        """Length of a window's vector."""
        return self.learner.n_features_in_

    def scores(self, windows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the log-odds (n,) that a window is not normal."""
        margins = self._margins(windows)
        is_normal = self.learner.classes_ == NORMAL
        if margins.shape[1] == 1:  # of the second class against the first
            return np.asarray(-margins[:, 0] if is_normal[1] else margins[:, 0], dtype=np.float64)
        others = logsumexp(margins[:, ~is_normal], axis=1)
        return np.asarray(others - margins[:, is_normal][:, 0], dtype=np.float64)

    def _margins(self, windows: NDArray[np.float32]) -> NDArray[np.floating]:
        """Return margins (n, 1) or (n, n_classes), without trees in single precision.

        An image of 1024 x 696 pixels has 14,000 windows, all of them finite: checks and a copy in
        double precision would take a tenth of the time of a map.
        """
        learner = self.learner
        if learner.booster_ is None and learner.linear_coef_ is not None:
            return windows @ learner.linear_coef_.astype(np.float32) + learner.linear_intercept_
        margins = learner.decision_function(windows)
        return margins[:, None] if margins.ndim == 1 else margins

    def to_state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return header and arrays."""
        return self.learner.to_state()

    @classmethod
    def from_state(
        cls, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
    ) -> LabelledWindows:
        """Undo `to_state`.

        Raises
        ------
        ValueError
            If the learner has no class "normal".
        """
        learner = BoostedSoftmaxClassifier.from_state(header, arrays)
        if NORMAL not in learner.classes_.tolist():
            raise ValueError(f"the learner has no class {NORMAL!r}")
        return cls(learner)


def _whitening(windows: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the mean, and the matrix that makes windows vary equally in all directions."""
    mean = windows.mean(axis=0)
    centred = windows - mean
    variances, directions = np.linalg.eigh(centred.T @ centred / max(1, len(windows) - 1))
    usual = variances.mean() or 1.0
    return mean, directions / np.sqrt(np.maximum(variances, 0) + _RIDGE * usual)
