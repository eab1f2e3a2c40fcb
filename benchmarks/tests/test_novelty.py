"""The novelty benchmark: scores with known answers, images of no class, and the tables."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import mahalanobis as one_distance

from benchmarks.common.folds import DataSet
from benchmarks.uncertainty import novelty, novelty_methods, outside
from benchmarks.uncertainty.novelty_methods import METHODS, Vectors
from benchmarks.uncertainty.tables import gains_table, methods_table, outside_table

N, N_FEATURES = 120, 40


@pytest.fixture
def vectors() -> Vectors:
    """Two classes of 60 groups; the class left out is elsewhere, and its margins are small."""
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b"], N // 2)
    centres = 6 * rng.normal(size=(3, N_FEATURES))

    def drawn(n: int, *kinds: int) -> np.ndarray:
        codes = np.repeat(kinds, n // len(kinds))
        return (centres[codes] + rng.normal(size=(n, N_FEATURES))).astype(np.float32)

    def margins(n: int, lead: float) -> np.ndarray:
        sides = rng.choice([-1, 1], n)[:, None] * np.array([[lead, -lead]])
        return sides + 0.1 * rng.normal(size=(n, 2))

    return Vectors(
        drawn(N, 0, 1),
        rng.normal(0, 0.1, size=(5, N_FEATURES)).astype(np.float32),
        labels,
        np.arange(N),
        (drawn(40, 0, 1), drawn(30, 2), rng.normal(0, 0.1, (20, N_FEATURES)).astype(np.float32)),
        margins(N, 3),
        (margins(40, 3), margins(30, 0.5), margins(20, 0.5)),
        slice(10, N_FEATURES),
    )


@pytest.mark.parametrize("name", METHODS)
def test_every_method_reports_what_is_far_away(vectors: Vectors, name: str) -> None:
    known, unseen, empty = METHODS[name](vectors)
    assert (known.shape, unseen.shape, empty.shape) == ((40,), (30,), (20,))
    assert (known > 1).mean() < 0.3
    if not name.startswith("relative"):  # of a class that widens all together, it is small
        assert (unseen > 1).mean() > 0.9
    # Not a property of the order of the training images.
    order = np.random.default_rng(1).permutation(N)
    turned = dataclasses.replace(
        vectors,
        train=vectors.train[order],
        labels=vectors.labels[order],
        groups=vectors.groups[order],
        margins=vectors.margins[order],
    )
    if name in ("hypervlad", "energy", "low confidence"):
        np.testing.assert_allclose(METHODS[name](turned)[1], unseen, rtol=1e-4)


def test_mahalanobis_distances_are_scipys() -> None:
    rng = np.random.default_rng(0)
    train, new = rng.normal(size=(50, 6)), rng.normal(size=(4, 6))
    labels = np.repeat([0, 1], 25)
    found = novelty_methods.mahalanobis(train, labels, new)
    means = np.stack([train[labels == k].mean(axis=0) for k in (0, 1)])
    within = train - means[labels]
    precision = novelty_methods.LedoitWolf(assume_centered=True).fit(within).precision_
    expected = [min(one_distance(x, m, precision) for m in means) for x in new]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_limit_is_that_of_the_images_held_out() -> None:
    held_out = np.arange(1.0, 100)
    known, _, _ = novelty_methods.in_units_of_limit(
        held_out, np.arange(99), (held_out, held_out, held_out)
    )
    assert (known > 1).sum() == 4  # 5 of 100, with the one to come


def test_images_of_no_class_are_of_many_kinds() -> None:
    data = DataSet(
        "x", np.array([f"{i}.png" for i in range(40)]), np.zeros(40), np.arange(40) // 2, ""
    )
    images, kinds = outside.outside_images({"x": data})
    assert len(images) == len(kinds)
    assert {"white noise", "constant", "lattices", "photographs", "x"} <= set(kinds.tolist())
    chosen = [
        int(str(image).removesuffix(".png")) for image in np.array(images, object)[kinds == "x"]
    ]
    assert len({i // 2 for i in chosen}) == len(chosen) == outside.N_EACH, "of many groups"
    for image in images:
        if not isinstance(image, str):
            assert image.ndim in (2, 3)
    noise = outside.white_noise(np.random.default_rng(0))
    assert abs(np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]) < 0.02
    smooth = outside.smooth_noise(np.random.default_rng(0))
    assert np.corrcoef(smooth[:, 1:].ravel(), smooth[:, :-1].ravel())[0, 1] > 0.7


def test_margins_of_two_classes_have_two_columns() -> None:
    class Learner:
        def decision_function(self, vectors: np.ndarray) -> np.ndarray:
            return vectors[:, 0]

    found = novelty.margins_of(Learner(), np.array([[2.0], [-1.0]]))  # type: ignore[arg-type]
    np.testing.assert_array_equal(found, [[-1, 1], [0.5, -0.5]])


def test_tables_are_means_over_classes_then_sets() -> None:
    def cell(name: str, left_out: str, method: str, auroc: float, kinds: dict) -> dict:
        return {
            "set": name,
            "left_out": left_out,
            "method": method,
            "auroc": auroc,
            "unseen_reported": 0.5,
            "known_reported": 0.1,
            "outside_reported": kinds,
        }

    cells = [
        cell("x", "a", "hypervlad", 0.9, {"noise": 1.0, "y": 0.5}),
        cell("x", "b", "hypervlad", 0.7, {"noise": 0.5, "y": 0.5}),
        cell("y", "c", "hypervlad", 0.6, {"noise": 0.0}),
        cell("y", "c", "nearest three", 0.6, {"noise": 0.25}),
        cell("x", "a", "nearest three", 0.6, {"noise": 0.25, "y": 0.0}),
    ]
    row = methods_table(cells).splitlines()[2]
    assert "| 0.800; 50%; 10.0% | 0.600; 50%; 10.0% | 0.700; 50%; 10.0% | 0.600 (c) |" in row
    table = outside_table(cells)
    assert "| noise | 75%; 25% | 0%; 25% |" in table
    assert "| y | 50%; 0% | – |" in table


def test_gains_are_paired_by_the_class_left_out() -> None:
    aurocs = {"x": {"a": (0.9, 0.8), "b": (0.5, 0.2)}, "y": {"a": (0.6, 0.7), "c": (0.7, 0.8)}}
    cells = [
        {"set": name, "left_out": label, "method": method, "auroc": auroc}
        for name, classes in aurocs.items()
        for label, pair in classes.items()
        for method, auroc in zip(("hypervlad", "other"), pair, strict=True)
    ]
    interval = stats.ttest_1samp([0.1, 0.3], 0).confidence_interval()
    heads, _, row = gains_table(cells).splitlines()
    assert heads == "| against | x (2 classes) | y (2 classes) | mean of the sets |"
    first, second, mean = row.split(" | ")[1:]
    assert first == f"+0.200 [{interval.low:+.3f}, {interval.high:+.3f}]"
    assert second == "-0.100 [-0.100, -0.100]"
    assert mean.startswith("+0.050 [")
