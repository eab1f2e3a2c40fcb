"""``LabelledWindows``: what distinguishes defective windows from normal ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from hypervlad.boosting import BoostedSoftmaxClassifier
from hypervlad.windows import NORMAL


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
