"""The pieces of the defect scorer, each against a slow way to the same."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hypervlad import BoostedSoftmaxClassifier, HypercolumnVLAD, default_patch_encoder
from hypervlad.defects.labelled import LabelledWindows
from hypervlad.defects.lattice import Lattice
from hypervlad.defects.learning import Examples, ImageWindows, held_out
from hypervlad.defects.normal import NormalWindows
from hypervlad.defects.seeing import WindowVectors
from hypervlad.defects.thresholds import (
    Judged,
    threshold_at_patch_rate,
    threshold_at_rate,
    threshold_of_best_f1,
)
from hypervlad.defects.truth import MIXED, Truth
from hypervlad.images import ImageReadError
from hypervlad.patches import ANOMALOUS, NORMAL


@given(st.integers(10, 40), st.integers(10, 40), st.integers(1, 10), st.integers(1, 12))
@settings(deadline=None)
def test_windows_cover_the_image_and_lie_inside(
    height: int, width: int, side: int, stride: int
) -> None:
    windows = Lattice.of((height, width), side, stride)
    for starts, extent in ((windows.rows, height), (windows.columns, width)):
        assert starts[0] == 0
        assert starts[-1] == extent - side
        assert (np.diff(starts) <= stride).all()
    assert len(windows.positions) == len(windows.rows) * len(windows.columns)


@pytest.mark.parametrize("side", [5, 6])
def test_a_map_has_each_window_s_score_at_its_centre(side: int) -> None:
    windows = Lattice.of((21, 30), side=side, stride=4)
    scores = np.random.default_rng(0).random((len(windows.rows), len(windows.columns)))
    painted = windows.as_map(scores, (21, 30), (21, 30))
    assert painted.shape == (21, 30)
    assert painted.dtype == np.float32
    centres = painted[np.ix_(windows.rows + 2, windows.columns + 2)]
    np.testing.assert_allclose(centres, scores, rtol=1e-6)
    np.testing.assert_allclose(painted[0, 0], scores[0, 0], rtol=1e-6)  # constant beyond
    assert painted.min() >= scores.min() - 1e-6
    assert painted.max() <= scores.max() + 1e-6


def test_a_map_of_a_resized_image_has_the_image_s_own_pixels() -> None:
    windows = Lattice.of((20, 20), side=4, stride=4)
    ramp = np.tile(windows.columns.astype(float), (len(windows.rows), 1))
    own = windows.as_map(ramp, (40, 40), (20, 20))
    same = windows.as_map(ramp, (20, 20), (20, 20))
    np.testing.assert_allclose(own.reshape(20, 2, 20, 2).mean((1, 3)), same, atol=0.26)


def test_normal_words_are_whitened_and_robust() -> None:
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((5, 5)) * [1, 3, 0.2, 1, 5]
    sound = rng.standard_normal((2000, 5)) @ mixing
    alone = NormalWindows.fit(sound, n_words=1, seed=0)
    # One word: Mahalanobis distance, with a ridge of a hundredth of the mean variance.
    covariance = np.cov(sound.T)
    covariance += 0.01 * np.trace(covariance) / 5 * np.eye(5)
    offsets = sound - sound.mean(0)
    expected = np.sqrt(np.einsum("ni,ij,nj->n", offsets, np.linalg.inv(covariance), offsets))
    assert np.corrcoef(alone.scores(sound), expected)[0, 1] > 0.99
    odd = sound[:15] + 40
    with_odd = NormalWindows.fit(np.vstack([sound, odd]), n_words=1, seed=0)
    assert with_odd.scores(odd).min() > 3 * with_odd.scores(sound).max()


def test_scores_are_distances_to_the_nearest_word() -> None:
    rng = np.random.default_rng(1)
    model = NormalWindows.fit(rng.standard_normal((300, 4)), n_words=7, seed=0)
    windows = rng.standard_normal((9, 4))
    for window, score in zip(windows, model.scores(windows), strict=True):
        white = (window - model.mean) @ model.whitening
        nearest = min(np.linalg.norm(white - word) for word in model.words)
        assert score == pytest.approx(nearest, rel=1e-4)
    assert len(NormalWindows.fit(rng.standard_normal((12, 4)), 128, seed=0).words) == 2
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


# --- what the network saw -------------------------------------------------------------------------


def fitted(image: NDArray[np.float32], **parameters: object) -> HypercolumnVLAD:
    encoder = default_patch_encoder(
        backbone="tiny", weights="random", taps=["1", "4"], n_codewords=4, layer_components=3
    )
    return encoder.set_params(**parameters, random_state=0).fit([image])


@pytest.fixture
def image() -> NDArray[np.float32]:
    return np.random.default_rng(0).random((140, 183), dtype=np.float32)


@pytest.mark.parametrize("codebook", ["joint", "per_layer", "both"])
def test_tiles_have_the_scores_of_the_whole(image: NDArray[np.float32], codebook: str) -> None:
    encoder = fitted(image, codebook=codebook)
    prepared = encoder.loader().load_batch(image).tensors[0]
    windows = Lattice.of(image.shape, side=15, stride=7)
    whole, tiled = WindowVectors(encoder, 4096), WindowVectors(encoder, 64)
    seen = whole.view.seen(prepared, "image")
    put_together = tiled.view.seen(prepared, "image")
    for one, other in zip(seen.maps, put_together.maps, strict=True):
        assert not torch.isnan(other).any()
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    vectors = np.concatenate(list(whole.vectors(seen, windows)))
    again = np.concatenate(list(tiled.vectors(put_together, windows)))
    np.testing.assert_allclose(vectors, again, atol=2e-3)
    assert vectors.shape[1] == encoder.n_features_out_


def test_a_window_is_encoded_as_an_image_of_its_positions(image: NDArray[np.float32]) -> None:
    encoder = fitted(image)
    own = WindowVectors(encoder, 4096)
    seen = own.view.seen(encoder.loader().load_batch(image).tensors[0], "image")
    windows = Lattice(np.array([16, 40]), np.array([8, 64]), side=24)
    vectors = np.concatenate(list(own.vectors(seen, windows))).reshape(2, 2, -1)
    codewords = encoder.codebook_.joint
    means = [projection.mean for projection in encoder.codebook_.projections]
    stds = [projection.std for projection in encoder.codebook_.projections]
    grid = seen.maps[0].shape[:2]  # the finest tap: every pixel
    raw = [_enlarged(layer.double().numpy(), grid) for layer in seen.maps]
    projected = np.concatenate(
        [
            (layer - mean) @ projection.components.T
            for layer, mean, projection in zip(
                raw, means, encoder.codebook_.projections, strict=True
            )
        ],
        axis=2,
    )
    border = seen.border
    for (i, top), (j, left) in itertools.product(
        enumerate(windows.rows), enumerate(windows.columns)
    ):
        cut = np.s_[border + top : border + top + 24, border + left : border + left + 24]
        columns = projected[cut].reshape(-1, projected.shape[2])
        nearest = ((columns[:, None] - codewords) ** 2).sum(2).argmin(1)
        sums = np.zeros(codewords.shape)
        np.add.at(sums, nearest, columns - codewords[nearest])
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        sums /= np.where(lengths > 0, lengths, 1)
        pooled = np.concatenate(
            [(r[cut].mean((0, 1)) - m) / s for r, m, s in zip(raw, means, stds, strict=True)]
        )
        expected = np.concatenate(
            [sums.ravel() / np.linalg.norm(sums), pooled / np.sqrt(len(pooled))]
        )
        np.testing.assert_allclose(vectors[i, j], expected, atol=5e-3)


def _enlarged(layer: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    channels_first = torch.from_numpy(layer).permute(2, 0, 1)[None]
    large = torch.nn.functional.interpolate(channels_first, size, mode="bilinear")
    return large[0].permute(1, 2, 0).numpy()


# --- what is learnt from, and the threshold -------------------------------------------------------


def test_windows_are_labelled_by_their_masks() -> None:
    mask = np.zeros((20, 20), dtype=bool)
    mask[:4, :5] = True
    truth = Truth.of([np.zeros((20, 20))] * 2, None, [mask, None], min_fraction=0.1)
    windows = Lattice.of((20, 20), side=10, stride=10)
    labels = truth.of_windows(0, (20, 20), (20, 20), windows)
    assert labels.tolist() == [ANOMALOUS, NORMAL, NORMAL, NORMAL]
    strict = Truth.of([np.zeros((20, 20))], None, [mask], min_fraction=0.3)
    assert strict.of_windows(0, (20, 20), (20, 20), windows)[0] == MIXED
    assert set(truth.of_windows(1, (20, 20), (20, 20), windows)) == {NORMAL}
    half = Lattice.of((10, 10), side=5, stride=5)  # the image was brought to half its size
    assert truth.of_windows(0, (20, 20), (10, 10), half).tolist() == labels.tolist()


@pytest.mark.parametrize(
    ("y", "masks", "message"),
    [
        (["normal"], [None], "not both"),
        (["anomalous"], None, "expected 'normal' and at least one other"),
        (["normal"], None, "expected 'normal' and at least one other"),
        (None, "masks/", "got one path"),
        (None, [None, None], "2 masks for 1 images"),
    ],
)
def test_what_is_known_must_fit(y: object, masks: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Truth.of([np.zeros((20, 20))], y, masks, 0.1)


def test_y_labels_patches_only() -> None:
    truth = Truth.of([np.zeros((20, 30)), "b.png"], ["normal", "scratch"], None, 0.1)
    one = Lattice.of((20, 20), side=20, stride=20)
    assert truth.of_windows(1, (20, 20), (20, 20), one).tolist() == ["scratch"]
    with pytest.raises(ImageReadError, match=r"20 x 30 pixels, where y labels patches of 10 x 10"):
        truth.of_windows(0, (20, 30), (20, 30), Lattice.of((20, 30), 10, 10))


def some_images(n: int, n_windows: int = 30) -> list[ImageWindows]:
    rng = np.random.default_rng(0)
    images = []
    for position in range(n):
        X = rng.random((5, n_windows // 5, 3)).astype(np.float32)
        labels = np.where(rng.random(n_windows) < 0.3, ANOMALOUS, NORMAL)
        labels[rng.random(n_windows) < 0.1] = MIXED
        images.append(ImageWindows(position, f"{position * 7919 % 97:064x}", iter(X), labels))
    return images


def test_examples_are_all_windows_whatever_the_order_of_images() -> None:
    one = Examples.of(iter(some_images(6)), 6, seed=0)
    other = Examples.of(iter(some_images(6)[::-1]), 6, seed=0)
    np.testing.assert_array_equal(one.X, other.X)
    np.testing.assert_array_equal(one.images, other.images)
    assert one.is_all
    assert (one.weights == 1).all()
    images = [np.concatenate(list(image.blocks)) for image in some_images(6)]
    labels = [image.labels for image in some_images(6)]
    for position in range(6):
        own = one.of_images(np.array([position]))
        for label in (ANOMALOUS, NORMAL):
            np.testing.assert_array_equal(
                own.X[own.labels == label], images[position][labels[position] == label]
            )


def test_many_windows_are_thinned_and_weighted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hypervlad.defects.learning._FEWEST_AN_IMAGE", 4)
    monkeypatch.setattr("hypervlad.defects.learning._MOST_WINDOWS", 4)
    examples = Examples.of(iter(some_images(6)), 6, seed=0)
    assert not examples.is_all
    for image in some_images(6):
        own = examples.of_images(np.array([image.position]))
        all_rows = np.concatenate(list(image.blocks)).tolist()
        for label in (ANOMALOUS, NORMAL):
            chosen = own.labels == label
            assert chosen.sum() == min(4, (image.labels == label).sum())
            assert own.weights[chosen].sum() == pytest.approx((image.labels == label).sum())
            for row in own.X[chosen].tolist():
                assert image.labels[all_rows.index(row)] == label


def as_images(highest: list[float]) -> list[Judged]:
    """Images with one sound window each, beside a defective and a mixed one that score higher."""
    labels = np.array([NORMAL, ANOMALOUS, MIXED])
    return [Judged.of(np.array([value, 50.0, 90.0]), labels) for value in highest]


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


def test_a_few_bad_images_hardly_move_the_threshold() -> None:
    good = np.random.default_rng(0).gumbel(20, 3, 40).tolist()
    alone = threshold_at_rate(as_images(good), 0.05)
    with_bad = threshold_at_rate(as_images([*good, 45.0, 48.0]), 0.05)
    assert with_bad == pytest.approx(alone, abs=2)
    assert threshold_at_rate(as_images([7.0]), 0.05) > 7.0  # of one image: just above it
    assert threshold_at_rate(as_images([7.0, 7.0]), 0.5) == pytest.approx(7.0)
    all_bad = Judged.of(np.array([99.0]), np.array([ANOMALOUS]))
    assert threshold_at_rate([*as_images([7.0]), all_bad], 0.5) == pytest.approx(7.0)


@given(
    st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=20), min_size=1, max_size=6),
    st.floats(0.001, 0.999),
)
def test_a_share_of_all_sound_windows_reaches_the_threshold(
    windows: list[list[int]], rate: float
) -> None:
    images = [
        Judged.of(np.array([*own, 99.0]), np.array([*[NORMAL] * len(own), ANOMALOUS]))
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
    found = threshold_of_best_f1([Judged.of(scores[half], labels[half]) for half in halves])

    def f1(threshold: float) -> float:
        called = scores >= threshold
        return float(2 * (called & defective).sum() / (called.sum() + defective.sum()))

    assert f1(found) == pytest.approx(max(f1(t) for t in np.arange(-0.5, 7)))


def test_held_out_scores_come_from_models_of_other_groups() -> None:
    images = some_images(8)
    examples = Examples.of(iter(images), 8, seed=0)
    groups = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    learnt_from: list[set[int]] = []

    class Model:
        def __init__(self, rows: Examples) -> None:
            self.groups = set(groups[np.unique(rows.images)].tolist())
            learnt_from.append(self.groups)

        def scores(self, windows: NDArray[np.floating]) -> NDArray[np.float64]:
            own = {
                int(groups[examples.images[np.flatnonzero((row == examples.X).all(1))[0]]])
                for row in windows
            }
            assert not own & self.groups
            return np.zeros(len(windows))

    whole = Model(examples)
    learnt_from.clear()
    unseen = list(held_out(whole, examples, lambda: iter(()), Model, groups, seed=0))
    assert len(unseen) == 8
    assert len(learnt_from) == 4


class Knowing:
    """A model whose scores say whether it was learnt from all images."""

    def __init__(self, examples: Examples, n_images: int) -> None:
        self.knows_all = len(np.unique(examples.images)) == n_images

    def scores(self, windows: NDArray[np.floating]) -> NDArray[np.float64]:
        return np.full(len(windows), float(self.knows_all))


@pytest.mark.parametrize("has_all", [True, False])
def test_of_one_group_the_threshold_is_fitted_and_that_is_said(has_all: bool) -> None:
    examples = Examples.of(iter(some_images(3)), 3, seed=0)
    examples = replace(examples, is_all=has_all)
    with pytest.warns(UserWarning, match="3 of 3 images cannot be held out"):
        unseen = list(
            held_out(
                Knowing(examples, 3),
                examples,
                lambda: iter(some_images(3)),
                lambda rows: Knowing(rows, 3),
                np.zeros(3),
                seed=0,
            )
        )
    assert [image.scores.tolist() for image in unseen] == [[1.0] * len(i.scores) for i in unseen]


def test_what_no_fold_can_spare_is_left_out_unless_a_kind_would_be_missing() -> None:
    """Defects in one group only: without it, no threshold by F1."""
    images = some_images(6)
    for image in images[1:]:
        image.labels[image.labels == ANOMALOUS] = NORMAL
    examples = Examples.of(iter(images), 6, seed=0)
    given = (lambda: iter(()), lambda rows: Knowing(rows, 6), np.arange(6), 0)
    with pytest.warns(UserWarning, match="1 of 6 images cannot be held out"):
        unseen = list(held_out(Knowing(examples, 6), examples, *given))
    assert sorted(image.scores[0] for image in unseen) == [0.0] * 5 + [1.0]
    for image in images[:1]:
        image.labels[image.labels == ANOMALOUS] = NORMAL
    rest = replace(examples, labels=np.full(len(examples.labels), NORMAL))
    unseen = list(held_out(Knowing(rest, 6), rest, *given))
    assert [image.scores[0] for image in unseen] == [0.0] * 6


def test_copies_of_an_image_are_held_out_together() -> None:
    images = some_images(8)
    copied = [replace(image, digest=f"{i // 2:064x}") for i, image in enumerate(images)]
    examples = Examples.of(iter(copied), 8, seed=0)
    learnt: list[set[int]] = []

    def fit(rows: Examples) -> Knowing:
        learnt.append({at // 2 for at in rows.images.tolist()})
        return Knowing(rows, 8)

    list(held_out(Knowing(examples, 8), examples, lambda: iter(()), fit, np.arange(8), 0))
    assert all(len(pairs) < 4 for pairs in learnt)  # else a fold had learnt from every image
