"""Models of windows, each against a slow way to the same scores."""

from __future__ import annotations

import numpy as np
import pytest

from hypervlad import BoostedSoftmaxClassifier
from hypervlad.defects.window_models import LabelledWindows, NormalWindows
from hypervlad.windows import NORMAL


def test_normal_codewords_are_whitened_and_robust() -> None:
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((5, 5)) * [1, 3, 0.2, 1, 5]
    normal = rng.standard_normal((2000, 5)) @ mixing
    alone = NormalWindows.fit(normal, n_codewords=1, seed=0)
    # One codeword: Mahalanobis distance, with a ridge of a hundredth of the mean variance.
    covariance = np.cov(normal.T)
    covariance += 0.01 * np.trace(covariance) / 5 * np.eye(5)
    offsets = normal - normal.mean(0)
    expected = np.sqrt(np.einsum("ni,ij,nj->n", offsets, np.linalg.inv(covariance), offsets))
    assert np.corrcoef(alone.scores(normal), expected)[0, 1] > 0.99
    odd = normal[:15] + 40
    with_odd = NormalWindows.fit(np.vstack([normal, odd]), n_codewords=1, seed=0)
    assert with_odd.scores(odd).min() > 3 * with_odd.scores(normal).max()


def test_scores_are_distances_to_the_nearest_codeword() -> None:
    rng = np.random.default_rng(1)
    model = NormalWindows.fit(rng.standard_normal((300, 4)), n_codewords=7, seed=0)
    windows = rng.standard_normal((9, 4))
    for window, score in zip(windows, model.scores(windows), strict=True):
        white = (window - model.mean) @ model.whitening
        nearest = min(np.linalg.norm(white - codeword) for codeword in model.codewords)
        assert score == pytest.approx(nearest, rel=1e-4)
    assert len(NormalWindows.fit(rng.standard_normal((12, 4)), 128, seed=0).codewords) == 2
    flat = NormalWindows.fit(np.ones((50, 4)), 3, seed=0)
    assert np.isfinite(flat.scores(np.ones((2, 4)))).all()


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
