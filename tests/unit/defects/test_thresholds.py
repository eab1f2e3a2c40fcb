"""Held-out scores and the thresholds chosen on them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.labelled_windows import some_images

from hypervlad.defects.thresholds import (
    WindowModel,
    WindowScores,
    held_out_scores,
    threshold_at_patch_rate,
    threshold_at_rate,
    threshold_of_best_f1,
)
from hypervlad.windows import ANOMALOUS, NORMAL
from hypervlad.windows.dataset import UNKNOWN, TrainingWindows


def as_images(highest: list[float]) -> list[WindowScores]:
    """Images with one normal window each; a defective and an unlabelled one score higher."""
    labels = np.array([NORMAL, ANOMALOUS, UNKNOWN])
    return [WindowScores.of(np.array([value, 50.0, 90.0]), labels) for value in highest]


@pytest.mark.slow  # a simulation
@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2, 0.5])
def test_the_threshold_has_its_rate_among_highest_scores(rate: float) -> None:
    rng = np.random.default_rng(0)
    exact = rng.gumbel(20, 3, 20_000)
    threshold = threshold_at_rate(as_images(exact.tolist()), rate)
    assert np.mean(exact >= threshold) == pytest.approx(rate, rel=0.15)
    # The highest of many windows, each of them of a bell curve: not quite extreme enough.
    highest = rng.normal(20, 3, (4000, 300)).max(axis=1)
    threshold = threshold_at_rate(as_images(highest.tolist()), rate)
    assert 0.3 * rate <= np.mean(highest >= threshold) <= 1.1 * rate


def test_a_few_defective_images_hardly_move_the_threshold() -> None:
    good = np.random.default_rng(0).gumbel(20, 3, 40).tolist()
    alone = threshold_at_rate(as_images(good), 0.05)
    with_bad = threshold_at_rate(as_images([*good, 45.0, 48.0]), 0.05)
    assert with_bad == pytest.approx(alone, abs=2)
    assert threshold_at_rate(as_images([7.0]), 0.05) > 7.0  # of one image: just above it
    assert threshold_at_rate(as_images([7.0, 7.0]), 0.5) == pytest.approx(7.0)
    all_bad = WindowScores.of(np.array([99.0]), np.array([ANOMALOUS]))
    assert threshold_at_rate([*as_images([7.0]), all_bad], 0.5) == pytest.approx(7.0)


@given(
    st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=20), min_size=1, max_size=6),
    st.floats(0.001, 0.999),
)
def test_a_share_of_all_normal_windows_reaches_the_threshold(
    windows: list[list[int]], rate: float
) -> None:
    images = [
        WindowScores.of(np.array([*own, 99.0]), np.array([*[NORMAL] * len(own), ANOMALOUS]))
        for own in windows
    ]
    threshold = threshold_at_patch_rate(images, rate)
    scores = np.concatenate(windows)
    assert np.mean(scores >= threshold) <= rate
    lower = scores[scores < threshold].max()  # the next lower one would be called too often
    assert np.mean(scores >= lower) >= rate - 1 / len(scores)


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


def not_needed(model: WindowModel, position: int) -> WindowScores:
    raise AssertionError("all windows are among those sampled")


def test_held_out_scores_come_from_models_of_other_groups() -> None:
    images = some_images(8)
    sampled = TrainingWindows.sample(iter(images), 8, seed=0)
    groups = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    trained_on: list[set[int]] = []

    class Model:
        def __init__(self, rows: TrainingWindows) -> None:
            self.groups = set(groups[np.unique(rows.image_index)].tolist())
            trained_on.append(self.groups)

        def scores(self, windows: NDArray[np.floating]) -> NDArray[np.float64]:
            own = {
                int(groups[sampled.image_index[np.flatnonzero((row == sampled.X).all(1))[0]]])
                for row in windows
            }
            assert not own & self.groups
            return np.zeros(len(windows))

    whole = Model(sampled)
    trained_on.clear()
    held_out = list(held_out_scores(whole, sampled, not_needed, Model, groups, seed=0))
    assert len(held_out) == 8
    assert len(trained_on) == 4


class Knowing:
    """A model whose scores say whether it was trained on all images."""

    def __init__(self, windows: TrainingWindows, n_images: int) -> None:
        self.knows_all = len(np.unique(windows.image_index)) == n_images

    def scores(self, windows: NDArray[np.floating]) -> NDArray[np.float64]:
        return np.full(len(windows), float(self.knows_all))


@pytest.mark.parametrize("is_thinned", [False, True])
def test_of_one_group_the_threshold_is_fitted_with_a_warning(is_thinned: bool) -> None:
    sampled = TrainingWindows.sample(iter(some_images(3)), 3, seed=0)
    sampled = replace(sampled, thinned=frozenset(range(3) if is_thinned else ()))
    images = {image.position: image for image in some_images(3)}

    def all_scores(model: WindowModel, position: int) -> WindowScores:
        assert is_thinned
        image = images.pop(position)
        scores = [model.scores(block) for block in image.blocks]
        return WindowScores.of(np.concatenate(scores), image.labels)

    with pytest.warns(UserWarning, match="3 of 3 images cannot be held out"):
        held_out = list(
            held_out_scores(
                Knowing(sampled, 3),
                sampled,
                all_scores,
                lambda rows: Knowing(rows, 3),
                np.zeros(3),
                seed=0,
            )
        )
    assert len(images) == (0 if is_thinned else 3)
    assert sorted(image.scores.tolist() for image in held_out) == sorted(
        [1.0] * (each.labels != UNKNOWN).sum() for each in some_images(3)
    )


def test_images_in_no_test_fold_are_left_out_unless_a_class_would_be_missing() -> None:
    """Defects in one group only: without it, no threshold by F1."""
    images = some_images(6)
    for image in images[1:]:
        image.labels[image.labels == ANOMALOUS] = NORMAL
    sampled = TrainingWindows.sample(iter(images), 6, seed=0)
    given = (not_needed, lambda rows: Knowing(rows, 6), np.arange(6), 0)
    with pytest.warns(UserWarning, match="1 of 6 images cannot be held out"):
        held_out = list(held_out_scores(Knowing(sampled, 6), sampled, *given))
    assert sorted(image.scores[0] for image in held_out) == [0.0] * 5 + [1.0]
    for image in images[:1]:
        image.labels[image.labels == ANOMALOUS] = NORMAL
    rest = replace(sampled, labels=np.full(len(sampled.labels), NORMAL))
    held_out = list(held_out_scores(Knowing(rest, 6), rest, *given))
    assert [image.scores[0] for image in held_out] == [0.0] * 6


def test_copies_of_an_image_are_held_out_together() -> None:
    images = some_images(8)
    copied = [replace(image, key=f"{i // 2:064x}") for i, image in enumerate(images)]
    sampled = TrainingWindows.sample(iter(copied), 8, seed=0)
    trained: list[set[int]] = []

    def fit(rows: TrainingWindows) -> Knowing:
        trained.append({at // 2 for at in rows.image_index.tolist()})
        return Knowing(rows, 8)

    list(held_out_scores(Knowing(sampled, 8), sampled, not_needed, fit, np.arange(8), 0))
    assert all(len(pairs) < 4 for pairs in trained)  # else a fold was trained on every image
