"""Held-out predictions of a classifier: coverage, rejections, copies, files."""

from __future__ import annotations

import copy
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression

from hypervlad import BoostedSoftmaxClassifier, MicrographClassifier, ModelFileError, load
from hypervlad.evaluation import prediction_sets
from hypervlad.models.classifier.fitting import (
    calibration_split,
    groups_with_copies,
    predict_calibration,
)


def noisy(
    textures: tuple[list[np.ndarray], np.ndarray], n: int, seed: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """Textures buried in noise, so that models are wrong at times."""
    images, labels = textures
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, len(images), n)
    noise = [rng.normal(0, 0.62, images[i].shape) for i in chosen]
    found = [np.clip(images[i] + own, 0, 1) for i, own in zip(chosen, noise, strict=True)]
    return found, labels[chosen]


@pytest.mark.slow  # fits a model with calibration
@pytest.mark.parametrize("size", [None, 0.4])
def test_sets_of_a_classifier_cover(
    model: MicrographClassifier, texture_images: Any, size: float | None
) -> None:
    images, labels = noisy(texture_images, 90, 0)
    new, truth = noisy(texture_images, 150, 1)
    model.set_params(calibration_size=size).fit(images, labels)
    codes = np.searchsorted(model.classes_, truth)
    for coverage in (0.6, 0.9):
        sets = model.predict_set(new, coverage)
        assert sets.shape == (150, len(model.classes_))
        assert sets.dtype == bool
        assert sets[np.arange(150), model.predict_proba(new).argmax(axis=1)].all()
        held = sets[np.arange(150), codes].mean()
        assert held >= coverage - 0.12, "90 images promise no more than that of one fit"
    assert model.held_out_ is not None
    vectors = model.encoder_.transform(new)
    by_learner = np.stack([each.predict_proba(vectors) for each in model.held_out_.learners])
    bare = prediction_sets(by_learner, model.held_out_.calibration, 0.6)
    assert bare[np.arange(150), codes].mean() == pytest.approx(0.6, abs=0.21)
    with pytest.warns(UserWarning, match="every prediction set has all classes"):
        everything = model.predict_set(new, 0.99)
    assert everything.all()
    assert model.predict_set(new, 0.6).sum() < everything.sum()


def test_calibration_images_are_not_trained_on(
    model: MicrographClassifier, texture_images: Any
) -> None:
    images, labels = texture_images
    groups = np.arange(len(images)) // 2
    model.set_params(calibration_size=0.25).fit(images, labels, groups=groups)
    assert model.held_out_ is not None
    calibration = model.held_out_.calibration
    assert model.n_images_ + len(calibration) == len(images) == len(model.training_)
    assert len(calibration) == 2 * 3, "a quarter of 12 groups"
    assert set(np.bincount(calibration.groups)[np.unique(calibration.groups)]) == {2}
    assert model.held_out_.learners == [model.boosting_]


def test_folds_are_predicted_by_models_fitted_without_their_groups(
    model: MicrographClassifier, texture_images: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = texture_images
    groups = np.arange(len(images)) // 2
    learnt: list[set[int]] = []
    original = BoostedSoftmaxClassifier.fit

    def spy(
        self: Any, X: Any, y: Any, sample_weight: Any = None, groups: Any = None, blocks: Any = None
    ) -> Any:
        learnt.append(set(np.asarray(groups).tolist()))
        return original(self, X, y, sample_weight, groups=groups, blocks=blocks)

    monkeypatch.setattr(BoostedSoftmaxClassifier, "fit", spy)
    model.fit(images, labels, groups=groups)
    assert model.held_out_ is not None
    calibration = model.held_out_.calibration
    assert len(calibration) == len(images)
    assert learnt[0] == set(groups.tolist())
    for number, of_fold in enumerate(learnt[1:]):
        tested = set(calibration.groups[calibration.models == number].tolist())
        assert tested
        assert not tested & of_fold
        assert tested | of_fold == learnt[0]


@pytest.mark.filterwarnings("ignore:Classes with only one or two:UserWarning")
@pytest.mark.parametrize("size", [None, 0.25])
def test_a_class_that_cannot_be_held_out_is_in_every_set_and_no_answer_is_sure(
    model: MicrographClassifier, texture_images: Any, tmp_path: Path, size: float | None
) -> None:
    images, labels = texture_images
    labels = labels.astype("U8")
    new, truth = images[1:6], labels[1:6]
    model.set_params(calibration_size=size).fit(images, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        judged = model.judge(new, 0.75)
        assert (judged.labels == truth)[judged.kind == "sure"].any()
        assert not model.predict_set(new, 0.5).all(axis=0).any()
    labels[0] = "lone"
    model.fit(images, labels).save(tmp_path / "m.hvlad")
    for each in (model, load(tmp_path / "m.hvlad")):
        assert each.classes_[each.held_out_.lone].tolist() == ["lone"]
        with pytest.warns(UserWarning, match="every prediction set has lone, of which no image"):
            sets = each.predict_set(new, 0.5)
        assert sets[:, each.classes_ == "lone"].all()
        assert not sets.all()
        with pytest.warns(UserWarning, match="no answer is sure.*no image of lone can be held"):
            judged = each.judge(new, 0.75)
        assert set(judged.kind) == {"ambiguous"}
        assert "with this model no answer is sure" in judged.reasons[0]
        assert each.held_out_.sure_answers(0.75).n_sure == 0


def test_a_file_keeps_what_was_held_out(
    model: MicrographClassifier, texture_images: Any, tmp_path: Path
) -> None:
    images, labels = texture_images
    model.fit(images, labels).save(tmp_path / "m.hvlad")
    again = load(tmp_path / "m.hvlad")
    np.testing.assert_array_equal(again.predict_set(images), model.predict_set(images))
    one, other = model.judge(images, 0.3), again.judge(images, 0.3)
    np.testing.assert_array_equal(one.novelty, other.novelty)
    np.testing.assert_array_equal(one.nearest, other.nearest)
    assert one.reasons == other.reasons
    model.set_params(calibration_size=0.3).fit(images, labels).save(tmp_path / "split.hvlad")
    assert load(tmp_path / "split.hvlad").calibration_size == 0.3
    split = load(tmp_path / "split.hvlad")
    assert split.held_out_.learners == [split.boosting_], "stored once"
    model.set_params(calibration_size=np.float32(0)).fit(images, labels)
    model.save(tmp_path / "none.hvlad")
    with pytest.raises(ValueError, match="calibration size of 0"):
        load(tmp_path / "none.hvlad").predict_set(images)


def test_answers_given_are_right_as_often_as_requested(
    model: MicrographClassifier, texture_images: Any
) -> None:
    images, labels = noisy(texture_images, 200, 0)  # of 90, chance can leave none sure
    new, truth = noisy(texture_images, 150, 1)
    model.fit(images, labels)
    plain = model.predict(new)
    assert (plain != truth).mean() > 0.05, "else there would be nothing to refuse"
    judged = model.judge(new, max_error=0.2)
    sure = judged.kind == "sure"
    assert 0.1 < sure.mean() < 1
    assert (judged.labels == plain).all()
    assert (plain != truth)[sure].mean() < (plain != truth).mean()
    assert (plain != truth)[sure].mean() <= 0.2


def test_shares_are_checked(fitted_model: MicrographClassifier) -> None:
    with pytest.raises(ValueError, match="coverage is a share"):
        fitted_model.predict_set([], 90)
    with pytest.raises(ValueError, match="max_error is a share"):
        fitted_model.judge([], 5)


def test_one_group_per_class_holds_nothing_out(
    model: MicrographClassifier, texture_images: Any
) -> None:
    images, labels = texture_images
    with pytest.warns(UserWarning, match="only one or two"):
        model.fit(images, labels, groups=labels)
    assert model.held_out_ is None
    for ask in (model.predict_set, model.judge):
        with pytest.raises(ValueError, match="takes a class with images of two groups"):
            ask(images)


@pytest.mark.parametrize("size", [1, -0.1, "half", True, float("nan")])
def test_the_size_is_checked(model: MicrographClassifier, texture_images: Any, size: Any) -> None:
    with pytest.raises(ValueError, match="calibration_size must be the share of groups"):
        model.set_params(calibration_size=size).fit(*texture_images)


def test_missing_calibration_raises_before_images_are_encoded(
    fitted_model: MicrographClassifier, tmp_path: Path
) -> None:
    for method in ("predict_set", "judge"):
        with pytest.raises(NotFittedError):
            getattr(MicrographClassifier(), method)([])
    with pytest.raises(NotFittedError):
        MicrographClassifier().label_issues()
    model = fitted_model.set_params(calibration_size=0)
    model.held_out_ = None
    for ask in (model.predict_set, model.judge):
        with pytest.raises(ValueError, match="calibration size of 0"):
            ask([tmp_path / "there_is_no_such_file.png"])


@pytest.mark.parametrize("size", [None, 0.4])
@pytest.mark.filterwarnings("ignore::hypervlad.models.NeverPredictedWarning")
def test_copies_of_an_image_promise_no_more_than_one(
    model: MicrographClassifier, texture_images: Any, size: float | None
) -> None:
    """Labels are random: a copy in training must not count as knowledge of its original."""
    images, _ = noisy(texture_images, 30, 0)
    labels = np.random.default_rng(0).permutation(np.repeat(["a", "b", "c"], 10))
    once = model.set_params(calibration_size=size).fit(images, labels)
    n_groups = len(set(once.held_out_.calibration.groups.tolist()))
    three = model.fit(images * 3, np.tile(labels, 3))
    assert three.held_out_ is None or three.held_out_.calibration.n_groups <= n_groups
    if three.held_out_ is not None:
        assert three.held_out_.calibration.correct.mean() < 0.7


def test_calibration_groups_are_sampled_at_random() -> None:
    labels = np.repeat(["a", "b"], 20)
    groups = np.repeat(np.arange(20), 2)
    drawn = np.zeros(20)
    for seed in range(300):
        learnt, apart = calibration_split(labels, groups, 0.3, seed)
        assert sorted([*learnt, *apart]) == list(range(40))
        assert not set(groups[learnt]) & set(groups[apart])
        drawn[np.unique(groups[apart])] += 1
    np.testing.assert_allclose(drawn / 300, 0.3, atol=0.1)
    alone = np.arange(4)
    learnt, apart = calibration_split(np.array(["a", "a", "a", "b"]), alone, 0.9, 0)
    assert set(learnt) >= {3}, "the only group of a class is learnt from"
    assert len(apart) == 2


@pytest.mark.parametrize("seed", range(5))
def test_a_split_depends_on_digests_alone(seed: int) -> None:
    labels, groups = np.array(["b", "a"] * 10), np.arange(20) // 2
    # Rows 3 and 14 are copies in two groups; rows 0, 4, and 11 cannot be read.
    digests = np.array([f"{number:02d}" for number in np.random.default_rng(9).permutation(20)])
    digests[14] = digests[3]
    digests[[0, 4, 11]] = ""
    _, expected = calibration_split(labels, groups, 0.4, seed, digests)
    assert not set(expected) & {0, 4, 11}
    assert len(set(expected) & {2, 3, 14, 15}) in (0, 4)
    order = np.random.default_rng(seed).permutation(20)
    learnt, apart = calibration_split(
        np.array(["x", "y"])[(labels == "a").astype(int)][order],
        100 - groups[order],
        0.4,
        seed,
        digests[order],
    )
    assert sorted(order[apart]) == expected.tolist()
    assert sorted([*learnt, *apart]) == list(range(20))


def test_nothing_is_held_out_of_unreadable_images() -> None:
    learnt, apart = calibration_split(np.array(["a", "b"]), np.arange(2), 0.5, 0, ["", ""])
    assert (learnt.tolist(), apart.tolist()) == ([0, 1], [])


def test_copies_join_their_groups() -> None:
    points = np.random.default_rng(0).normal(size=(6, 300)).astype(np.float32)
    points[4] = points[0] * (1 + 1e-6)
    joined = groups_with_copies(points, np.array([0, 0, 1, 2, 2, 3]), np.zeros(6, bool))
    assert [len(set(joined[rows])) for rows in ([0, 1, 3, 4], [2], [5])] == [1, 1, 1]
    assert len(set(joined)) == 3
    is_blank = np.arange(6) % 4 == 0  # particles of one pixel in two micrographs, say
    assert len(set(groups_with_copies(points, np.array([0, 0, 1, 2, 2, 3]), is_blank))) == 4


def arrays(**changes: Any) -> Any:
    """Return a change of a model's state: of arrays, by their names with "__" for a full stop."""

    def change(_header: Any, found: Any) -> None:
        for name, damage in changes.items():
            key = name.replace("__", "_.")
            found[key] = damage(found[key])

    return change


def header(**changes: Any) -> Any:
    """Return a change of a model's state: of the header of its training images."""

    def change(found: Any, _arrays: Any) -> None:
        found["fitted"]["training_"]["state"].update(changes)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (arrays(held_out__models=lambda whole: whole + 7), "predictions are damaged"),
        (arrays(held_out__codes=lambda whole: whole + 9), "predictions are damaged"),
        (arrays(held_out__groups=lambda whole: whole[1:]), "predictions are damaged"),
        (arrays(held_out__rows=lambda whole: whole + 99), "predictions are damaged"),
        (arrays(held_out__proba=lambda whole: whole * np.nan), "proba"),
        (arrays(training__groups=lambda whole: whole[1:]), "training images is damaged"),
        (arrays(training__points=lambda whole: whole + np.inf), "points"),
        (arrays(training__usual=lambda whole: np.ones(9)), "damaged: usual distances"),
        (arrays(training__usual=lambda whole: 0 * whole), "usual"),
        (arrays(training__digests=lambda whole: whole[:, :31]), "digests"),
        (arrays(training__digests=lambda whole: whole[:2]), "training images is damaged"),
        (arrays(training__empty=lambda whole: whole[:, :3]), "damaged: its points"),
        (header(limits=["nan", 1.0]), "not of type float"),
        (header(limits=["-inf", 1.0]), "its limits"),
        (header(limits=[1.0]), "its limits"),
        (header(labels={"dtype": "<U1", "values": list("?ab") * 8}), "not among the classes"),
        (header(labels={"dtype": "<U1", "values": list("ab") * 8}), "is damaged"),
    ],
)
def test_damaged_files_are_refused(
    fitted_model: MicrographClassifier, change: Any, message: str
) -> None:
    state = copy.deepcopy(fitted_model.to_state())
    change(*state)
    with pytest.raises(ModelFileError, match=message):
        MicrographClassifier.from_state(*state)


def test_many_copies_take_little_memory() -> None:
    points = np.zeros((4000, 8), dtype=np.float32)
    tracemalloc.start()
    joined = groups_with_copies(points + 1, np.arange(4000), np.zeros(4000, bool))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(set(joined.tolist())) == 1
    assert peak < 500e6, "64 MB of distances at a time, not all pairs"


def test_a_class_without_readable_training_images_is_left_out(
    model: MicrographClassifier,
    texture_images: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images, labels = texture_images
    # Unreadable images have no digest, and so would change the split.
    monkeypatch.setattr(
        "hypervlad.models.classifier.fitting._digests",
        lambda images, _: [f"{i:02d}" for i in range(24)],
    )
    last = sorted(set(labels))[-1]
    groups = np.arange(len(images))
    _, apart = calibration_split(np.asarray(labels), groups, 0.4, 0)
    broken = [
        tmp_path / f"{i}.png" if labels[i] == last and i not in apart else image
        for i, image in enumerate(images)
    ]
    model.set_params(calibration_size=0.4)
    model.encoder.set_params(on_error="skip")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model.fit(broken, labels)
    assert last not in model.classes_
    assert set(model.training_.labels) == set(model.classes_)
    header, arrays = model.to_state()
    again = MicrographClassifier.from_state(header, arrays)
    np.testing.assert_array_equal(again.training_.labels, model.training_.labels)


def test_a_class_that_a_calibration_split_misses_by_chance_can_be_held_out() -> None:
    labels = np.array([0, 1, 2] * 6)
    vectors = np.eye(3)[labels]
    learner = LogisticRegression().fit(vectors, labels)
    last = predict_calibration(learner, vectors[15:17], labels[:17], np.arange(17))
    assert last is not None
    assert set(last.codes) == {0, 1}
    assert not len(last.lone)
    groups = np.arange(17)
    groups[labels[:17] == 2] = 2
    sole = predict_calibration(learner, vectors[15:17], labels[:17], groups)
    assert sole is not None
    assert sole.lone.tolist() == [2]
