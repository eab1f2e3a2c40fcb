"""Splits: what must hold for every labelling and grouping, and the corners by example."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hypervlad.evaluation import group_folds, holdout_split

# Few classes and groups, so that small and shared ones are common.
ROWS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 8)), min_size=1, max_size=40)
SEEDS = st.integers(0, 2**31 - 1)


def labels_and_groups(rows):
    y, groups = zip(*rows, strict=True)
    return np.array(y), np.array(groups)


def assert_sound(train, test, y, groups):
    assert sorted([*train, *test]) == list(range(len(y)))  # disjoint and complete
    assert not set(groups[train]) & set(groups[test])  # no group straddles
    assert set(y[train]) == set(y)  # each class can be learnt


def sole_groups(y, groups):
    """Groups that hold some class all alone, by plain loops."""
    groups_of = {c: {g for k, g in zip(y, groups, strict=True) if k == c} for c in y}
    return {next(iter(of)) for of in groups_of.values() if len(of) == 1}


@given(ROWS, st.floats(0.05, 0.95), SEEDS)
def test_holdout_is_valid(rows, test_size, seed):
    y, groups = labels_and_groups(rows)
    train, test = holdout_split(y, groups, test_size=test_size, random_state=seed)
    assert_sound(train, test, y, groups)
    again = holdout_split(y, groups, test_size=test_size, random_state=seed)
    np.testing.assert_array_equal(test, again[1])


@given(ROWS, st.integers(2, 6), SEEDS)
def test_folds_are_valid(rows, n_splits, seed):
    y, groups = labels_and_groups(rows)
    folds = group_folds(y, groups, n_splits=n_splits, random_state=seed)
    assert len(folds) <= n_splits
    for train, test in folds:
        assert len(test)
        assert_sound(train, test, y, groups)
    tested = np.concatenate([test for _, test in folds]) if folds else np.array([], int)
    assert len(set(tested)) == len(tested)
    assert not set(groups[tested]) & sole_groups(y, groups)
    again = group_folds(y, groups, n_splits=n_splits, random_state=seed)
    assert [test.tolist() for _, test in folds] == [test.tolist() for _, test in again]


@given(ROWS, SEEDS)
@settings(max_examples=50)
def test_folds_test_every_row_that_can_be_spared_without_groups(rows, seed):
    y, _ = labels_and_groups(rows)
    tested = {int(i) for _, test in group_folds(y, random_state=seed) for i in test}
    classes, counts = np.unique(y, return_counts=True)
    single = set(classes[counts == 1])
    assert tested == {i for i in range(len(y)) if y[i] not in single}


@given(st.lists(st.integers(1, 60), min_size=1, max_size=5), st.floats(0.1, 0.5), SEEDS)
def test_holdout_without_groups_is_stratified(class_sizes, test_size, seed):
    y = np.repeat(np.arange(len(class_sizes)), class_sizes)
    _, test = holdout_split(y, test_size=test_size, random_state=seed)
    for klass, size in enumerate(class_sizes):
        held_out = int((y[test] == klass).sum())
        if size == 1:
            assert held_out == 0
        else:
            # The nearest whole number, but at least one row.
            assert abs(held_out - max(1.0, test_size * size)) <= 0.5 + 1e-9


def test_holdout_with_groups_comes_near_the_requested_share():
    groups = np.random.default_rng(0).integers(0, 60, 600)
    y = groups % 3
    for seed in range(10):
        _, test = holdout_split(y, groups, test_size=0.25, random_state=seed)
        for klass in range(3):
            assert 0.2 < ((y[test] == klass).sum() / (y == klass).sum()) < 0.3


def test_fewer_folds_for_rare_classes_but_at_least_three():
    four = ["a"] * 20 + ["b"] * 4
    assert len(group_folds(four, n_splits=10, random_state=0)) == 4
    assert len(group_folds(["a"] * 20 + ["b"] * 2, n_splits=10, random_state=0)) == 3
    assert len(group_folds(["a"] * 20 + ["b"], n_splits=10, random_state=0)) == 10


def test_names_of_mixed_kinds_stay_apart():
    """As an array they would all become strings, and 1 and "1" one group."""
    assert [len(part) for part in holdout_split(["a", "a"], [1, "1"])] == [1, 1]
    assert [len(part) for part in holdout_split(["a", "a"], [1, 1])] == [2, 0]
