"""What a model remembers of its training images: distances, limits, digests."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from support.tiny import make_tiny_encoder

from hypervlad import HypercolumnVLAD, MicrographClassifier, load
from hypervlad.evaluation.conformal import weighted_limit
from hypervlad.images import read_micrograph
from hypervlad.images.pixels import ImageDigests
from hypervlad.models import TrainingImages
from hypervlad.models.classifier import TrainingImagesWarning
from hypervlad.models.classifier.novelty import (
    KnownPoints,
    empty_images,
    empty_vectors,
    project_vectors,
)


def record(
    points: np.ndarray, labels: np.ndarray, groups: np.ndarray, empty: np.ndarray
) -> TrainingImages:
    n = len(points)
    digests = ImageDigests(np.zeros((n, 32), dtype=np.uint8))
    learnt = KnownPoints(points, labels, empty).learn(groups)
    return TrainingImages(
        [""] * n, labels, groups, np.arange(n), digests, points, empty, *learnt, points.shape[1]
    )


def test_projections_keep_distances() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(30, 5000)) * rng.exponential(size=5000)
    ratio = cdist(project_vectors(vectors), project_vectors(vectors)) / np.maximum(
        cdist(vectors, vectors), 1e-9
    )
    apart = ratio[np.triu_indices(30, 1)]
    assert abs(apart.mean() - 1) < 0.02
    assert apart.std() < 0.04
    assert project_vectors(vectors[:0]).shape == (0, 1024)
    few = rng.normal(size=(4, 1024))
    assert project_vectors(few[:0]).shape == (0, 1024)
    np.testing.assert_array_equal(project_vectors(few), few.astype(np.float32))


def test_projections_are_linear_and_the_same_everywhere() -> None:
    """A model file holds projections, which another version of a library must not change."""
    line = np.linspace(-1, 1, 2000)
    first, second = project_vectors(np.stack([line, line**2]))
    np.testing.assert_allclose(
        project_vectors((line + 2 * line**2)[None])[0], first + 2 * second, atol=1e-4
    )
    np.testing.assert_allclose(first[:3], [0.367768, 0.513906, -0.616022], atol=1e-4)


@given(st.integers(0, 10**6), st.integers(2, 14), st.integers(1, 5), st.integers(0, 3))
def test_novelty_is_that_of_a_slow_search(seed: int, n: int, n_groups: int, n_empty: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n, 4)).astype(np.float32)
    empty = rng.normal(size=(n_empty, 4)).astype(np.float32)
    groups = rng.integers(0, n_groups, n)
    labels = np.array(["a", "b"])[np.r_[0, 1, rng.integers(0, 2, n - 2)]]
    training = record(points, labels, groups, empty)

    def mean_of_nearest(point: np.ndarray, others: list[int]) -> float:
        far = sorted(float(np.linalg.norm(point - points[j])) for j in others)
        return float(np.mean(far[:3])) if far else np.inf

    def scores(point: np.ndarray, others: list[int]) -> tuple[float, float]:
        by_class = [
            mean_of_nearest(point, [j for j in others if labels[j] == name]) / usual[name]
            for name in "ab"
        ]
        not_blank_others = [j for j in others if j in not_blank]
        far = (float(np.linalg.norm(point - points[j])) for j in not_blank_others)
        nearest = min(far, default=np.inf)
        blank = min((float(np.linalg.norm(point - each)) for each in empty), default=np.inf)
        least = 0.01 * float(np.median(to_empty)) if n_empty else 1.0
        return min(by_class), nearest / max(blank, least) if n_empty else 0.0

    to_empty = [min((np.linalg.norm(p - e) for e in empty), default=np.inf) for p in points]
    not_blank = [
        i
        for i in range(n)
        if not to_empty[i]
        < 0.1 * np.median([to_empty[j] for j in range(n) if labels[j] == labels[i]])
    ]
    elsewhere = [[j for j in range(n) if groups[j] != groups[i]] for i in range(n)]
    own = [
        mean_of_nearest(points[i], [j for j in elsewhere[i] if labels[j] == labels[i]])
        for i in range(n)
    ]
    finite = [value for value in own if np.isfinite(value)]
    usual = {}
    for name in "ab":
        of_class = [own[i] for i in range(n) if labels[i] == name and np.isfinite(own[i])]
        usual[name] = np.median(of_class or finite or [1.0])
    held_out = np.array([scores(points[i], elsewhere[i]) for i in range(n)])
    share = 0.025 if n_empty else 0.05
    # Of a class of one group, nothing is left to compare with, unless that is so of all.
    used = [i for i in range(n) if np.isfinite(own[i]) or not finite]
    both = [i for i in used if i in not_blank]

    def limit(rows: list[int], kind: int) -> float:
        logarithms = {i: np.log(np.clip(held_out[i, kind], 2.3e-308, 1.7e308)) for i in rows}
        low, high = np.quantile([*logarithms.values()], [0.25, 0.75])
        inner = [i for i in rows if logarithms[i] <= high + 2 * (high - low)]
        rows = inner if len(rows) - len(inner) <= max(1, len(rows) / 20) else rows
        return weighted_limit(held_out[rows, kind], groups[rows], share)

    limits = [limit(used, 0), limit(both, 1)]
    new = rng.normal(size=(5, 4)).astype(np.float32)
    expected = []
    for point in new:
        found = scores(point, list(range(n)))
        parts = [found[0] / limits[0], found[1] / limits[1] if n_empty else 0.0]
        expected.append(max(parts))
    rows, novelty = training.nearest(new)
    np.testing.assert_allclose(novelty, expected, rtol=1e-3)
    np.testing.assert_array_equal(rows, np.argsort(cdist(new, points), axis=1)[:, :3])


def test_limits_are_those_of_each_class() -> None:
    """An image near a uniform class is unlike it at a distance that is usual in a varied class."""
    rng = np.random.default_rng(0)
    centre = np.zeros(8)
    centre[0] = 20
    uniform, varied = rng.normal(0, 0.1, (60, 8)), centre + rng.normal(0, 2, (60, 8))
    points = np.concatenate([uniform, varied]).astype(np.float32)
    training = record(points, np.repeat(["a", "b"], 60), np.arange(120), points[:0])
    direction = np.zeros(8)
    direction[1] = 2
    new = np.stack([direction, centre + direction]).astype(np.float32)
    novelty = training.nearest(new)[1]
    assert novelty[0] > 2
    assert novelty[1] < 1


def test_images_without_content_are_unlike_varied_images() -> None:
    """They are nearer to the centre of varied images than these are to each other."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(200, 500)).astype(np.float32)
    noise = rng.normal(0, 0.1, size=(10, 500)).astype(np.float32)
    labels = np.repeat(["a", "b"], 100)
    known = rng.normal(size=(50, 500)).astype(np.float32)
    plain = record(points, labels, np.arange(200), points[:0])
    assert (plain.nearest(noise[5:])[1] < 1).all()
    training = record(points, labels, np.arange(200), noise[:5])
    assert (training.nearest(noise[5:])[1] > 1).all()
    assert (training.nearest(known)[1] > 1).mean() < 0.15
    few = np.concatenate([points[:29], noise[:1]])  # one training image is blank
    with_blank = record(few, labels[:30], np.arange(30), noise[:5])
    assert (with_blank.nearest(noise[5:])[1] > 1).all()


@pytest.mark.filterwarnings("ignore:5 of .* are blank")
def test_images_without_content_are_plain_pixels(texture_images: Any) -> None:
    images = empty_images()
    assert all(image.shape == (256, 256) and image.dtype == np.float32 for image in images)
    assert all(0 <= image.min() <= image.max() <= 1 for image in images)
    assert [image.std() == 0 for image in images].count(True) == 5
    encoder = make_tiny_encoder().set_params(pixel_size=2.0, read_options={"scaling": (0, 50)})
    with pytest.warns(UserWarning, match="pixel size"):
        encoder.fit(texture_images[0])
    found = empty_vectors(encoder)
    plain = HypercolumnVLAD.from_state(*encoder.to_state())
    plain.fitted_params_ = dataclasses.replace(
        encoder.fitted_params_, pixel_size=None, read_options=type(encoder.loader().read_options)()
    )
    np.testing.assert_allclose(found, plain.transform(images), atol=1e-5)


@pytest.mark.parametrize("kind", ["far away", "no content"])
def test_one_image_that_does_not_belong_sets_no_limit(kind: str) -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(51, 60)).astype(np.float32)
    noise = (0.1 * rng.normal(size=(10, 60))).astype(np.float32)
    far = (5 + rng.normal(size=(10, 60))).astype(np.float32)
    points[50] = far[0] if kind == "far away" else 3 * noise[9]
    training = record(points, np.repeat(["a", "b", "a"], [25, 25, 1]), np.arange(51), noise[:5])
    assert (training.nearest(noise[5:9])[1] > 1).all()
    assert (training.nearest(-far[1:])[1] > 1).all()
    known = rng.normal(size=(200, 60)).astype(np.float32)
    assert (training.nearest(known)[1] > 1).mean() < 0.12


# --- of the classifier --------------------------------------------------------------------------


def test_training_images_are_recognised_by_their_pixels(
    model: MicrographClassifier, texture_images: Any, tmp_path: Path
) -> None:
    images, labels = texture_images
    model.fit(images[2:], labels[2:])
    assert model.classify(images).in_training.tolist() == [False] * 2 + [True] * 22
    model.save(tmp_path / "m.hvlad")
    again = load(tmp_path / "m.hvlad")
    assert again.classify(images).in_training.tolist() == [False] * 2 + [True] * 22
    own = [read_micrograph(image).digest for image in images[2:]]
    np.testing.assert_array_equal(again.training_.digests.digests, ImageDigests.of(own).digests)
    changed = images[5].copy()
    changed[0, 0] += 0.01
    assert not model.classify([changed]).in_training[0]
    model.set_params(calibration_size=0.25).fit(images, labels)
    assert model.n_images_ < len(images)
    assert model.classify(images).in_training.all()


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=6), st.data())
def test_digests_are_found_as_in_a_list(known: list[bytes], data: st.DataObject) -> None:
    digests = ImageDigests.of([each.hex() for each in known])
    asked = data.draw(st.lists(st.sampled_from([*known, b"\0" * 32, b"a" * 32]), max_size=5))
    expected = [any(each == own for own in known) for each in asked]
    assert digests.contains([each.hex() for each in asked]).tolist() == expected
    assert digests.n_copies == sum(known[i] in known[:i] for i in range(len(known)))
    again = ImageDigests.from_state(*digests.to_state())
    assert (again.digests == digests.digests).all()


@pytest.mark.parametrize(
    ("shape", "dtype"), [((3, 31), "uint8"), ((32,), "uint8"), ((3, 32), "<i8")]
)
def test_what_cannot_be_a_digest_is_refused(shape: tuple[int, ...], dtype: str) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 and \(n, 32\)"):
        ImageDigests.from_state({}, {"digests": np.zeros(shape, dtype=dtype)})


def test_a_score_on_training_images_warns(model: MicrographClassifier, texture_images: Any) -> None:
    images, labels = texture_images
    model.fit(images[3:], labels[3:])
    with pytest.warns(TrainingImagesWarning, match=r"^21 of 24 images are training images"):
        accuracy = model.score(images, labels)
    assert accuracy == (model.predict(images) == labels).mean()
    model.score(images[:3], labels[:3])  # a warning would be an error


def test_equal_images_of_different_labels_are_listed(
    model: MicrographClassifier, texture_images: Any
) -> None:
    images, labels = texture_images
    other = labels[1]
    assert other != labels[0]
    copies = [*images, images[0], images[4]]
    with pytest.warns(UserWarning, match="different labels") as warned:
        model.fit(copies, [*labels, other, labels[4]])
    (message,) = [str(w.message) for w in warned if "different labels" in str(w.message)]
    assert f"image 0 ({labels[0]}) = image 24 ({other})." in message
    assert "image 4" not in message


def test_a_class_of_one_group_does_not_raise_the_limit() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(30, 4)).astype(np.float32)
    points[:10] += 8
    labels, groups = np.repeat(["a", "b"], [10, 20]), np.arange(30)
    empty = np.empty((0, 4), dtype=np.float32)
    several = record(points, labels, groups, empty)
    groups[:10] = 0  # all of class a: without them, they are far from everything
    one = record(points, labels, groups, empty)
    assert one.limits[0] < 2 * several.limits[0]
    far = np.full((1, 4), -8, dtype=np.float32)
    assert one.nearest(far)[1] > 1


@pytest.mark.parametrize("contrast", [0.02, 0.3])
def test_noise_of_any_contrast_is_unlike_textures(
    fitted_model: MicrographClassifier, contrast: float
) -> None:
    rng = np.random.default_rng(5)
    noise = [np.clip(g + contrast * rng.normal(size=(80, 80)), 0, 1) for g in (0.3, 0.5, 0.7)]
    assert fitted_model.classify(noise).unlike_training.all()


def test_a_class_of_empty_fields_is_content(
    model: MicrographClassifier, texture_images: Any
) -> None:
    """New images of it are like the training images; a frame missed in another class is none."""
    rng = np.random.default_rng(3)
    noise = [np.clip(0.5 + 0.1 * rng.normal(size=(20, 24)), 0, 1) for _ in range(24)]
    images, labels = texture_images
    content = [image for image, label in zip(images, labels, strict=True) if label != "flat"]
    own = [str(label) for label in labels if label != "flat"]
    missed = np.full_like(content[0], 0.5)
    with pytest.warns(UserWarning, match="1 of 29 training images is blank"):
        model.fit([*content, *noise[:12], missed], [*own, *["empty"] * 12, own[0]])
    training = model.training_
    known = KnownPoints(training.points, training.labels, training.empty)
    assert known.is_empty.tolist() == [False] * 28 + [True]
    assert model.classify(noise[12:]).unlike_training.mean() < 0.2
