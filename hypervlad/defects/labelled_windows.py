"""``LabelledWindows``: what distinguishes defective windows from normal ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from hypervlad.boosting import BoostedSoftmaxClassifier
from hypervlad.windows import NORMAL, WindowGrid
from hypervlad.windows.maps import PaddedMaps
from hypervlad.windows.vectors import WindowVectors


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
        """Return the log-odds (n,) that a window is not normal, from vectors (n, n_features)."""
        learner, coef = self.learner, self._coef
        if coef is None:
            margins = learner.decision_function(windows)
            return self._of_margins(margins[:, None] if margins.ndim == 1 else margins)
        # Without checks and a copy in double precision.
        return self._of_margins(windows @ coef + learner.linear_intercept_)

    def scores_in(
        self, vectors: WindowVectors, maps: PaddedMaps, grid: WindowGrid
    ) -> NDArray[np.float64]:
        """Return the log-odds (R S,) of the windows of an image."""
        if (coef := self._coef) is None:
            return np.concatenate([self.scores(block) for block in vectors.vectors(maps, grid)])
        products = np.concatenate(list(vectors.products(maps, grid, coef)))
        return self._of_margins(products + self.learner.linear_intercept_)

    @property
    def _coef(self) -> NDArray[np.float32] | None:
        """Weights (n_features, n_margins) in single precision; None if there are trees."""
        coef = self.learner.linear_coef_
        return None if coef is None or self.learner.booster_ else coef.astype(np.float32)

    def _of_margins(self, margins: NDArray[np.floating]) -> NDArray[np.float64]:
        is_normal = self.learner.classes_ == NORMAL
        if margins.shape[1] == 1:  # of the second class against the first
            return np.asarray(-margins[:, 0] if is_normal[1] else margins[:, 0], dtype=np.float64)
        others = logsumexp(margins[:, ~is_normal], axis=1)
        return np.asarray(others - margins[:, is_normal][:, 0], dtype=np.float64)

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
