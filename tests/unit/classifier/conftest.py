"""A classifier that is fitted in a fraction of a second."""

from __future__ import annotations

import pytest

from hypervlad import BoostedSoftmaxClassifier, HypercolumnVLAD, MicrographClassifier


@pytest.fixture
def fast_learner() -> BoostedSoftmaxClassifier:
    return BoostedSoftmaxClassifier(n_estimators=0, Cs=1.0)


@pytest.fixture
def model(
    tiny_encoder: HypercolumnVLAD, fast_learner: BoostedSoftmaxClassifier
) -> MicrographClassifier:
    return MicrographClassifier(tiny_encoder, boosting=fast_learner, random_state=0)
