"""The comparison of the model that filled a queue with a new one."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervlad import MicrographClassifier
from hypervlad.apps.review.retraining import Material, compare


@given(st.lists(st.sampled_from("ab"), min_size=1, max_size=9), st.data())
def test_the_difference_of_two_models_has_the_p_value_of_the_sign_test(
    truth: list[str], data: st.DataObject
) -> None:
    n = len(truth)
    before, after = (
        data.draw(st.lists(st.sampled_from("ab"), min_size=n, max_size=n)) for _ in range(2)
    )
    classes = np.array(["a", "b"])
    held_out = SimpleNamespace(proba=classes == np.array(after)[:, None], rows=np.arange(n))
    training = SimpleNamespace(positions=np.arange(n))
    model = SimpleNamespace(held_out_=held_out, classes_=classes, training_=training)
    by_person = np.ones(n, bool)
    material = Material([""] * n, np.array(truth), None, by_person, list(before), 0)
    found = compare(cast(MicrographClassifier, model), ["a", "b"], material)
    gains = [
        (new == true) - (old == true) for true, old, new in zip(truth, before, after, strict=True)
    ]
    changes = [gain for gain in gains if gain]
    signs = itertools.product((-1, 1), repeat=len(changes))
    as_large = [abs(sum(each)) >= abs(sum(changes)) for each in signs]
    assert found.p_value == pytest.approx(np.mean(as_large))
    assert found.after - found.before == pytest.approx(np.mean(gains))
    for balanced, labels in ((found.balanced_before, before), (found.balanced_after, after)):
        recalls = []
        for label in set(truth):
            own = [i for i in range(n) if truth[i] == label]
            recalls.append(sum(labels[i] == label for i in own) / len(own))
        assert balanced == pytest.approx(sum(recalls) / len(recalls))


def test_without_any_held_out_image_there_is_no_accuracy() -> None:
    model = SimpleNamespace(held_out_=None)
    material = Material([""], np.array(["a"]), None, np.ones(1, bool), ["a"], 0)
    found = compare(cast(MicrographClassifier, model), ["a"], material)
    figures = (found.before, found.after, found.balanced_before, found.balanced_after)
    assert (found.n_labelled, found.n_compared, found.p_value) == (1, 0, 1.0)
    assert np.isnan(figures).all()
