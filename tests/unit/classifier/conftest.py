"""A classifier that is fitted in a fraction of a second."""

import pytest
from support.tiny import make_tiny_encoder

from hypervlad import BoostedSoftmaxClassifier, MicrographClassifier


@pytest.fixture
def model():
    learner = BoostedSoftmaxClassifier(n_estimators=0, Cs=1.0)
    return MicrographClassifier(make_tiny_encoder(), boosting=learner, random_state=0)


@pytest.fixture(scope="session")
def fitted_once(tiny_backbone, texture_images):
    learner = BoostedSoftmaxClassifier(n_estimators=0, Cs=1.0)
    model = MicrographClassifier(make_tiny_encoder(), boosting=learner, random_state=0)
    return model.fit(*texture_images)
