"""Small images of a striped surface, some with a dark spot, and a fast scorer."""

import copy

import numpy as np
import pytest
from support.surfaces import PATCH, blotted, surface

from hypervlad import BoostedSoftmaxClassifier, PatchDefectScorer, default_patch_encoder


@pytest.fixture(scope="session")
def good():
    return [surface(seed) for seed in range(12)]


@pytest.fixture(scope="session")
def bad():
    rng = np.random.default_rng(0)
    return [blotted(100 + i, tuple(rng.integers(8, 40, 2).tolist())) for i in range(8)]


def small_scorer():
    encoder = default_patch_encoder(
        backbone="tiny", weights="random", taps=["1", "4"], n_codewords=4
    )
    learner = BoostedSoftmaxClassifier(n_estimators=5, Cs=10.0)
    return PatchDefectScorer(
        encoder, patch=PATCH, n_planted=8, n_codewords=16, boosting=learner, random_state=0
    )


@pytest.fixture
def scorer():
    return small_scorer()


@pytest.fixture(scope="session")
def trained_once(tiny_backbone, good):
    return small_scorer().fit(good)


@pytest.fixture
def fitted(trained_once):
    """A scorer of the defect-free images, of which a test may set the threshold."""
    return copy.copy(trained_once)
