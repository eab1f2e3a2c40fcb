"""A learner that remembers what it was fitted on."""

from typing import Any, ClassVar

from hypervlad import BoostedSoftmaxClassifier


class Recording(BoostedSoftmaxClassifier):
    """Give one as ``boosting``; a test clears ``fits`` before."""

    fits: ClassVar[list[dict[str, Any]]] = []

    def fit(self, X, y, **options):
        self.fits.append({"X": X, "y": y, **options})
        return super().fit(X, y, **options)
