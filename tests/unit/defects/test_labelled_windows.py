"""The model of labelled windows, against a slow way to the same scores."""

from __future__ import annotations

import numpy as np
import pytest

from hypervlad import BoostedSoftmaxClassifier
from hypervlad.defects.labelled_windows import LabelledWindows
from hypervlad.windows import NORMAL


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
