"""Held-out scores and the thresholds chosen on them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.labelled_windows import some_images

from hypervlad.features.windows import ANOMALOUS, NORMAL
from hypervlad.features.windows.dataset import TrainingWindows
from hypervlad.models.defects.thresholds import (
    HeldOutScores,
    WindowScores,
    held_out_scores,
    threshold_at_rate,
    threshold_of_best_f1,
)


@given(st.integers(1, 60), st.floats(0.01, 0.5), st.integers(0, 2**31))
def test_the_threshold_is_a_conformal_quantile(n: int, rate: float, seed: int) -> None:
    scores = np.random.default_rng(seed).normal(20, 3, n)
    threshold = threshold_at_rate(scores, np.arange(len(scores)), rate)
    if n >= 1 / rate - 1:  # enough images for the rate
        n_above = (scores >= threshold).sum()
        # Of n + 1 exchangeable images, the new one is among the highest with this probability.
        assert (n_above + 1) / (n + 1) <= rate + 1e-9 or n_above == 0
        assert (n_above + 2) / (n + 1) > rate


def false_alarms(n_groups: int, n_images: int, rate: float = 0.05, n_runs: int = 400) -> float:
    """Simulate images whose groups differ more than the images of one: new groups' false alarms."""
    rng, found = np.random.default_rng(0), []
    groups = np.repeat(np.arange(n_groups), n_images)
    for _ in range(n_runs):
        scores = rng.normal(size=n_groups)[groups] + rng.normal(scale=0.3, size=len(groups))
        new = rng.normal(size=200) + rng.normal(scale=0.3, size=200)
        found.append(np.mean(new >= threshold_at_rate(scores, groups, rate)))
    return float(np.mean(found))


@pytest.mark.parametrize("n_images", [1, 5])
def test_false_alarms_are_those_of_new_groups(n_images: int) -> None:
    assert 0.03 <= false_alarms(40, n_images) <= 0.06
    assert 0.17 <= false_alarms(8, n_images, rate=0.25) <= 0.27


@pytest.mark.slow  # a simulation
@pytest.mark.filterwarnings("ignore:the threshold is extrapolated")
def test_from_few_images_the_threshold_is_extrapolated() -> None:
    rng, ten = np.random.default_rng(0), np.arange(10)
    false = [
        np.mean(rng.gumbel(20, 3, 200) >= threshold_at_rate(rng.gumbel(20, 3, 10), ten, 0.05))
        for _ in range(2000)
    ]
    assert 0.02 <= np.mean(false) <= 0.1
    good = rng.gumbel(20, 3, 15)
    alone = threshold_at_rate(good, np.arange(15), 0.05)
    among = threshold_at_rate(np.array([*good, 45.0, 48.0]), np.arange(17), 0.05)
    assert among == pytest.approx(alone, abs=4)
    assert threshold_at_rate(np.array([7.0]), ten[:1], 0.05) > 7.0  # of one image: just above it
    assert threshold_at_rate(np.array([7.0, 7.0]), ten[:2], 0.05) == pytest.approx(7.0)


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=25))
def test_the_threshold_of_the_best_f1(rows: list[tuple[int, bool]]) -> None:
    scores = np.array([float(score) for score, _ in rows])
    defective = np.array([is_defective for _, is_defective in rows])
    if not defective.any():
        return
    labels = np.where(defective, ANOMALOUS, NORMAL)
    halves = [np.arange(len(scores)) % 2 == i for i in range(2)]
    found = threshold_of_best_f1([WindowScores.of(scores[half], labels[half]) for half in halves])

    def f1(threshold: float) -> float:
        called = scores >= threshold
        return float(2 * (called & defective).sum() / (called.sum() + defective.sum()))

    assert f1(found) == pytest.approx(max(f1(t) for t in np.arange(-0.5, 7)))


@pytest.mark.parametrize("are_copies", [False, True])
def test_held_out_scores_come_from_models_without_the_group_or_copies(are_copies: bool) -> None:
    images = some_images(8)
    pairs = np.arange(8) // 2
    if are_copies:
        images = [replace(image, key=f"{image.position // 2:064x}") for image in images]
    sampled = TrainingWindows.sample(iter(images), 8, seed=0)
    trained_on: list[set[int]] = []

    class Model:
        def __init__(self, rows: TrainingWindows) -> None:
            self.pairs = set(pairs[np.unique(rows.image_index)].tolist())
            trained_on.append(self.pairs)

    def scores_of(model: Model, positions: list[int]) -> Iterator[tuple[int, WindowScores]]:
        assert not set(pairs[positions].tolist()) & model.pairs
        for at in positions:
            yield at, WindowScores.of(np.zeros(2), np.array([NORMAL, ANOMALOUS]))

    groups = np.arange(8) if are_copies else pairs
    whole = Model(sampled)
    held_out = list(held_out_scores(whole, sampled, scores_of, Model, groups, seed=0))
    assert len(held_out) == 8
    assert len(trained_on) == 1 + 4


class Knowing:
    """A model whose scores say whether it was trained on all images."""

    def __init__(self, windows: TrainingWindows, n_images: int) -> None:
        self.knows_all = len(np.unique(windows.image_index)) == n_images

    def of_images(self, positions: list[int]) -> Iterator[tuple[int, WindowScores]]:
        for at in positions:
            yield at, WindowScores.of(np.array([self.knows_all], float), np.array([NORMAL]))


def test_of_one_group_the_threshold_is_fitted_with_a_warning() -> None:
    sampled = TrainingWindows.sample(iter(some_images(3)), 3, seed=0)
    with pytest.warns(UserWarning, match="3 of 3 images cannot be held out"):
        held_out = list(
            held_out_scores(
                Knowing(sampled, 3),
                sampled,
                Knowing.of_images,
                lambda rows: Knowing(rows, 3),
                np.zeros(3),
                seed=0,
            )
        )
    assert [(at, image.scores.tolist()) for at, image in sorted(held_out)] == [
        (at, [1.0]) for at in range(3)
    ]


def test_images_in_no_test_fold_are_left_out_unless_a_class_would_be_missing() -> None:
    """Defects in one group only: without it, no threshold by F1."""
    images = some_images(6)
    for image in images[1:]:
        image.labels[image.labels == ANOMALOUS] = NORMAL
    sampled = TrainingWindows.sample(iter(images), 6, seed=0)
    given = (Knowing.of_images, lambda rows: Knowing(rows, 6), np.arange(6), 0)
    with pytest.warns(UserWarning, match="1 of 6 images cannot be held out"):
        held_out = list(held_out_scores(Knowing(sampled, 6), sampled, *given))
    assert sorted(image.scores[0] for _, image in held_out) == [0.0] * 5 + [1.0]
    rest = replace(sampled, labels=np.full(len(sampled.labels), NORMAL))
    held_out = list(held_out_scores(Knowing(rest, 6), rest, *given))
    assert [image.scores[0] for _, image in held_out] == [0.0] * 6


def test_too_few_images_for_a_rate_are_a_warning() -> None:
    scores = np.arange(19.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        threshold_at_rate(scores, np.arange(len(scores)), 0.05)
    with pytest.warns(UserWarning, match=r"needs at least 19 defect-free images, got 18"):
        threshold_at_rate(scores[:18], np.arange(18), 0.05)
    with pytest.warns(UserWarning, match=r"needs at least 19 groups of defect-free images, got 2"):
        threshold_at_rate(scores, np.arange(19) % 2, 0.05)


def test_scores_of_places_are_capped_by_that_of_their_image() -> None:
    scores = np.arange(700.0, dtype=np.float32)
    labels = np.where(scores > 650, "anomalous", NORMAL)
    image = WindowScores.of(scores, labels)
    assert image.capped.max() == np.mean([698.0, 699.0])  # the highest 0.3 %
    np.testing.assert_array_equal(image.capped[:698], scores[:698])
    np.testing.assert_array_equal(image.normal, scores[:651])
    assert image.image_without_defects == np.mean([649.0, 650.0])


def test_held_out_images_above_a_threshold() -> None:
    rng = np.random.default_rng(0)
    images = {
        at: WindowScores(rng.normal(at, 1, 500), np.zeros(500, dtype=bool), at + 2.5)
        for at in (7, 3, 5)
    }
    defective = WindowScores(np.full(9, 99, np.float32), np.ones(9, dtype=bool), 99)
    held_out = HeldOutScores.of(images | {4: defective}, np.arange(9) // 2)
    assert held_out.images.tolist() == [3, 5, 7]
    assert held_out.groups.tolist() == [1, 2, 3]
    assert held_out.n_groups == 3
    for threshold in (3.3, 5.0, 7.9, 20.0):
        expected = [images[at].image >= threshold for at in (3, 5, 7)]
        assert held_out.n_images_above(threshold) == sum(expected)
    header, arrays = held_out.to_state()
    again = HeldOutScores.from_state(header, arrays)
    np.testing.assert_array_equal(again.scores, held_out.scores)
    with pytest.raises(ValueError, match="the held-out scores do not fit"):
        HeldOutScores.from_state(header, arrays | {"scores": arrays["scores"][:1]})
