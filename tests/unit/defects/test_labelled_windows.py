"""The model of labelled windows, against a slow way to the same scores."""

from __future__ import annotations

import numpy as np
import pytest

from hypervlad import BoostedSoftmaxClassifier, HypercolumnVLAD
from hypervlad.defects.labelled_windows import LabelledWindows
from hypervlad.windows import NORMAL, WindowGrid
from hypervlad.windows.vectors import WindowVectors


@pytest.mark.parametrize("names", [("normal", "scratch"), ("dent", "normal", "scratch")])
@pytest.mark.parametrize("n_estimators", [0, 5])
def test_labelled_windows_score_the_log_odds_of_not_being_normal(
    names: tuple[str, ...], n_estimators: int
) -> None:
    rng = np.random.default_rng(0)
    labels = np.array(names * 40)
    windows = rng.standard_normal((len(labels), 3)).astype(np.float32)
    windows[:, 0] += np.unique(labels, return_inverse=True)[1]
    learner = BoostedSoftmaxClassifier(
        n_estimators=n_estimators, n_iter_no_change=None, random_state=0
    ).fit(windows, labels)
    assert (learner.booster_ is None) == (n_estimators == 0)
    proba = learner.predict_proba(windows)[:, learner.classes_ == NORMAL][:, 0]
    expected = np.log1p(-proba) - np.log(proba)
    np.testing.assert_allclose(LabelledWindows(learner).scores(windows), expected, atol=1e-4)


@pytest.mark.parametrize("n_estimators", [0, 5])
def test_windows_of_an_image_score_as_their_vectors_do(n_estimators: int) -> None:
    image = np.random.default_rng(0).random((70, 90), dtype=np.float32)
    encoder = HypercolumnVLAD(
        backbone="tiny",
        weights="random",
        taps=["1", "4"],
        image_size=None,
        n_codewords=4,
        blocks=("joint", "pooled"),
        random_state=0,
    ).fit([image])
    own = WindowVectors(encoder, 4096)
    maps = own.network.padded_maps(encoder.loader().load_batch(image).tensors[0], "image")
    grid = WindowGrid.cover(image.shape, side=15, stride=6)
    vectors = np.concatenate(list(own.vectors(maps, grid)))
    labels = np.where(np.arange(len(vectors)) % 3, NORMAL, "scratch")
    learner = BoostedSoftmaxClassifier(
        Cs=1.0, n_estimators=n_estimators, n_iter_no_change=None, random_state=0
    ).fit(vectors, labels, blocks=list(encoder.feature_blocks.values()))
    assert (learner.booster_ is None) == (n_estimators == 0)
    model = LabelledWindows(learner)
    np.testing.assert_allclose(model.scores_in(own, maps, grid), model.scores(vectors), atol=1e-5)
