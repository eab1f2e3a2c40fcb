"""A classifier that is fitted in a fraction of a second."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from support.tiny import make_tiny_encoder

from hypervlad import BoostedSoftmaxClassifier, MicrographClassifier


@pytest.fixture
def model() -> MicrographClassifier:
    learner = BoostedSoftmaxClassifier(n_estimators=0, Cs=1.0)
    return MicrographClassifier(make_tiny_encoder(), boosting=learner, random_state=0)


@pytest.fixture(scope="session")
def fitted_once(tiny_backbone: None, texture_images: Any) -> MicrographClassifier:
    learner = BoostedSoftmaxClassifier(n_estimators=0, Cs=1.0)
    model = MicrographClassifier(make_tiny_encoder(), boosting=learner, random_state=0)
    return model.fit(*texture_images)


@pytest.fixture
def fitted_model(fitted_once: MicrographClassifier) -> MicrographClassifier:
    """A model of all texture images, which a test may change."""
    return copy.deepcopy(fitted_once)
