"""`AlignmentClassifier` as a user meets it: labels and maps, turned images, files, errors."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as Picture
from scipy.ndimage import rotate
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import check_is_fitted, validate_data

from hypervlad import (
    AlignmentClassifier,
    BoostedSoftmaxClassifier,
    HypercolumnVLAD,
    ImageReadError,
    load,
)
from hypervlad.alignment import default_alignment_encoder
from hypervlad.alignment.estimator import windows_between
from hypervlad.alignment.labels import WindowLabels
from hypervlad.alignment.turned import TurnedVectors, mean_and_contrast, turned_lattice
from hypervlad.defects.lattice import Lattice as Windows
from hypervlad.defects.reading import inputs_of, picture
from hypervlad.fibres import AlignmentModel, aligned_fraction
from hypervlad.fibres.lattice import Lattice
from hypervlad.images import ReadOptions
from hypervlad.modelfile import ModelFileError

Image = NDArray[np.float32]
WINDOW = 16


def stripes(seed: int, angle: float, size: tuple[int, int] = (64, 80)) -> Image:
    """Lines of one direction, a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    wave = np.sin(0.9 * (x * np.sin(angle) + y * np.cos(angle)) + rng.uniform(0, 6))
    return (0.5 + 0.3 * wave + 0.02 * rng.standard_normal(size)).astype(np.float32)


def checks(seed: int, size: tuple[int, int] = (64, 80)) -> Image:
    """The same lines, crossing at right angles."""
    angle = float(np.random.default_rng(seed).uniform(0, np.pi))
    both = stripes(seed, angle, size) + stripes(seed + 999, angle + np.pi / 2, size)
    return (both / 2).astype(np.float32)


def halves(seed: int, angle: float) -> tuple[Image, NDArray[np.float32]]:
    """Aligned on the left, crossing on the right; and the map of it."""
    image = stripes(seed, angle)
    image[:, 48:] = checks(seed)[:, 48:]
    return image, np.where(np.arange(80) < 48, 1, 0) * np.ones((64, 1), np.float32)


def small_model(**options: Any) -> AlignmentClassifier:
    encoder = default_alignment_encoder(
        backbone="tiny", weights="random", taps=["1", "4"], n_codewords=4, layer_components=4
    )
    learner = BoostedSoftmaxClassifier(n_estimators=5, Cs=10.0)
    usual = {"encoder": encoder, "window": WINDOW, "boosting": learner, "random_state": 0}
    return AlignmentClassifier(**usual | options)


ANGLES = np.linspace(0, np.pi, 9)[:-1]


@pytest.fixture(scope="module")
def labelled() -> tuple[list[Image], list[str]]:
    images = [stripes(i, float(angle)) for i, angle in enumerate(ANGLES)] + [
        checks(i) for i in range(8)
    ]
    return images, ["aligned"] * 8 + ["not aligned"] * 8


@pytest.fixture(scope="module")
def model(tiny_backbone: None, labelled: tuple[list[Image], list[str]]) -> AlignmentClassifier:
    return small_model().fit(*labelled)


class RowsAsImages(AlignmentClassifier):
    """Takes a 2-D array and sees each row as an image of four rows of pixels."""

    def fit(self, X: Any, y: Any) -> RowsAsImages:
        X, y = validate_data(self, X, y, dtype=np.float64)
        super().fit(self._images(X), [bool(each) for each in y > np.mean(y)])
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return np.nan_to_num(super().predict(self._images(X)))

    def score(self, X: Any, y: Any) -> float:
        return float(np.mean((self.predict(X) > 0.5) == (y > np.mean(y))))

    def _images(self, X: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        rows = np.repeat(X, 4, axis=1)[:, None]
        ramp = np.arange(4)[:, None]
        return [row + ramp * (np.ptp(row) or 1) for row in rows]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        tags.input_tags.string = False
        return tags


def test_it_tells_aligned_windows_from_crossing_ones(model: AlignmentClassifier) -> None:
    for seed, angle in enumerate(ANGLES + 0.2):
        image, truth = halves(50 + seed, float(angle))
        found = model.aligned_fraction(image)
        right = found.aligned == (truth[8::16, 8::16] == 1)
        assert right.mean() > 0.8
        assert found.proba is not None
        assert found.fraction == pytest.approx(0.6, abs=0.2)


def test_maps_teach_what_labels_do(tiny_backbone: None) -> None:
    images, maps = zip(*(halves(i, float(angle)) for i, angle in enumerate(ANGLES)), strict=True)
    learnt = small_model().fit(list(images), list(maps))
    others, their_maps = zip(*(halves(90 + i, 0.3 * i) for i in range(4)), strict=True)
    assert learnt.score(list(others), list(their_maps)) > 0.85
    assert 0.5 < learnt.aligned_share_ < 0.7
    np.testing.assert_allclose(learnt.predict(list(others)), 0.6, atol=0.2)


def test_it_is_a_model_for_the_aligned_fraction(model: AlignmentClassifier) -> None:
    assert isinstance(model, AlignmentModel)
    image, _ = halves(7, 0.4)
    by_rule, own = aligned_fraction(image, model, window=WINDOW), model.aligned_fraction(image)
    assert own.proba is not None
    np.testing.assert_allclose(by_rule.proba, own.proba, atol=1e-5)
    np.testing.assert_array_equal(own.aligned, (own.proba > 0.5) & ~own.background)


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_a_right_angle_changes_nothing(model: AlignmentClassifier, turn: int) -> None:
    image, _ = halves(11, 0.4)
    straight = model.aligned_fraction(image).proba
    turned = model.aligned_fraction(np.rot90(image, turn)).proba
    assert straight is not None
    np.testing.assert_array_equal(turned, np.rot90(straight, turn))


def test_any_other_angle_changes_little(model: AlignmentClassifier) -> None:
    """37 degrees, of the middle of a larger image, where no corner is empty."""
    for make in (lambda: stripes(3, 0.4, (256, 256)), lambda: checks(3, (256, 256))):
        image = make()
        turned = rotate(image, 37, reshape=False, order=3, mode="reflect")
        inner = slice(80, 176)
        before, after = (
            model.aligned_fraction(each[inner, inner]).fraction for each in (image, turned)
        )
        assert after == pytest.approx(before, abs=0.15)


@given(gain=st.floats(0.01, 1e4), offset=st.floats(-1e3, 1e3))
@settings(max_examples=10, deadline=None)
def test_gain_and_offset_change_nothing(
    model: AlignmentClassifier, gain: float, offset: float
) -> None:
    image, _ = halves(13, 1.0)
    before = model.aligned_fraction(image).proba
    after = model.aligned_fraction(gain * image.astype(np.float64) + offset).proba
    assert before is not None
    np.testing.assert_allclose(after, before, atol=1e-3)


def test_vectors_are_those_of_their_definition(model: AlignmentClassifier) -> None:
    """Each window's m and c by hand, from residual sums over turned images."""
    image, _ = halves(17, 0.7)
    seen = picture(inputs_of(model.encoder_), image, 1)
    windows = Windows(np.array([0, 16, 48]), np.array([0, 32, 64]), 16)
    vectors = TurnedVectors(model.encoder_, 2048)
    found = vectors(seen, windows).reshape(3, 3, -1)
    for i, j in ((0, 0), (1, 2), (2, 1)):
        alone = Windows(windows.rows[[i]], windows.columns[[j]], 16)
        turns = [vectors._seen(seen, alone, turn) for turn in range(4)]
        (sums, means) = (np.stack([turn[k][0, 0].numpy() for turn in turns]) for k in (0, 1))
        m, c = sums.mean(axis=0), abs(sums[0] - sums[1] + sums[2] - sums[3]) / 4
        words = np.hstack([m, c])
        words /= np.maximum(np.linalg.norm(words, axis=1, keepdims=True), 1e-12)
        words /= np.linalg.norm(words)
        pooled = np.hstack([means.mean(axis=0), abs(means[0] - means[1] + means[2] - means[3]) / 4])
        expected = np.hstack([words.ravel(), pooled / np.sqrt(len(pooled))])
        np.testing.assert_allclose(found[i, j], expected, atol=1e-5)


def test_the_contrast_sees_what_the_mean_cannot() -> None:
    """Two windows whose words are used alike over all turns; one has a single direction."""
    level, upright = torch.tensor([4.0, 0.0]), torch.tensor([0.0, 4.0])
    one_way = mean_and_contrast(2 * level, 2 * upright)
    crossing = mean_and_contrast(level + upright, upright + level)
    torch.testing.assert_close(one_way[:2], crossing[:2])
    assert one_way[2:].tolist() == [2, 2]
    assert crossing[2:].tolist() == [0, 0]


@given(st.integers(0, 3), st.integers(40, 70), st.integers(40, 70), st.integers(1, 20))
def test_turned_windows_hold_the_same_pixels(turn: int, height: int, width: int, side: int) -> None:
    image = np.arange(height * width).reshape(height, width)
    windows = Windows(np.array([0, 3, 20]), np.array([1, 20]), side)
    turned, own = np.rot90(image, turn), turned_lattice(windows, (height, width), turn)
    cut = [
        [set(seen[y : y + side, x : x + side].ravel().tolist()) for x in where.columns]
        for seen, where in ((image, windows), (turned, own))
        for y in where.rows
    ]
    before, after = cut[:3], cut[3:]
    assert np.rot90(np.array(before, dtype=object), turn).tolist() == after


@given(st.integers(64, 200), st.integers(64, 200), st.integers(8, 48))
def test_windows_lie_in_the_middle_of_their_places(height: int, width: int, window: int) -> None:
    places = Lattice.over((height, width), window)
    windows = windows_between(places.rows, places.columns)
    for starts, edges in ((windows.rows, places.rows), (windows.columns, places.columns)):
        assert starts.min() >= 0
        assert starts.max() + windows.side <= edges[-1]
        off = starts + windows.side / 2 - (edges[:-1] + edges[1:]) / 2
        assert abs(off).max() <= max(1, abs(windows.side - np.diff(edges)).max())


def test_windows_of_which_little_is_known_are_left_out() -> None:
    image, truth = halves(19, 0.2)
    unknown = truth.copy()
    unknown[:32] = np.nan
    unknown[32:43, :16] = np.nan  # eleven of sixteen rows
    lattice = Lattice.over(image.shape, WINDOW)
    (labels,) = (
        WindowLabels.of([image], [each], ReadOptions()).of_windows(0, lattice).reshape(4, 5)
        for each in (unknown,)
    )
    assert (labels[:2] == "").all()
    assert labels[2].tolist() == ["", "aligned", "aligned", "not aligned", "not aligned"]
    assert labels[3].tolist() == ["aligned"] * 3 + ["not aligned"] * 2


def test_the_background_teaches_nothing() -> None:
    image = stripes(0, 0.3)
    image[:, 48:] = 0.5
    lattice = Lattice.over(image.shape, WINDOW)
    labels = WindowLabels.of([image], [True], ReadOptions()).of_windows(0, lattice).reshape(4, 5)
    assert (labels[:, :2] == "aligned").all()
    assert (labels[:, 4] == "").all()


def test_maps_may_be_files(
    tiny_backbone: None, tmp_path: Path, labelled: tuple[list[Image], list[str]]
) -> None:
    images, maps = zip(*(halves(i, float(angle)) for i, angle in enumerate(ANGLES)), strict=True)
    paths = []
    for i, each in enumerate(maps):
        paths.append(tmp_path / f"{i}.png")
        Picture.fromarray((255 * each).astype(np.uint8)).save(paths[-1])
    of_files, of_arrays = (small_model().fit(list(images), y) for y in (paths, list(maps)))
    probe = labelled[0][0]
    np.testing.assert_array_equal(
        of_files.aligned_fraction(probe).proba, of_arrays.aligned_fraction(probe).proba
    )


def test_the_order_of_images_does_not_matter(
    model: AlignmentClassifier, labelled: tuple[list[Image], list[str]]
) -> None:
    images, labels = labelled
    other = small_model().fit(images[::-1], labels[::-1], groups=np.arange(16)[::-1])
    probe, _ = halves(23, 0.9)
    before, after = (each.aligned_fraction(probe).proba for each in (model, other))
    assert before is not None
    np.testing.assert_allclose(after, before, atol=1e-5)


def test_one_file_without_pickle(model: AlignmentClassifier, tmp_path: Path) -> None:
    path = tmp_path / "alignment.hvlad"
    model.save(path)
    back = load(path)
    assert isinstance(back, AlignmentClassifier)
    probe, _ = halves(29, 0.1)
    np.testing.assert_array_equal(
        back.aligned_fraction(probe).proba, model.aligned_fraction(probe).proba
    )
    for name in ("window_", "n_images_", "n_windows_", "aligned_share_"):
        assert getattr(back, name) == getattr(model, name)
    assert clone(back).get_params()["window"] == WINDOW
    back.save(tmp_path / "again.hvlad")
    assert (tmp_path / "again.hvlad").read_bytes() == path.read_bytes()


def test_a_damaged_state_is_told(model: AlignmentClassifier) -> None:
    header, arrays = model.to_state()
    with pytest.raises(ModelFileError, match="alignment classifier is incomplete"):
        AlignmentClassifier.from_state({**header, "window": None}, arrays)


def test_it_survives_copies_and_pickling(model: AlignmentClassifier) -> None:
    probe, _ = halves(31, 0.1)
    before = model.aligned_fraction(probe).proba
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other.aligned_fraction(probe).proba, before)


def test_windows_unlike_those_learnt_from_are_told(model: AlignmentClassifier) -> None:
    with pytest.warns(UserWarning, match="learnt from windows of 16 pixels and is asked about"):
        aligned_fraction(stripes(0, 0.3), model, window=32)


def test_an_image_without_fibres_has_no_fraction(model: AlignmentClassifier) -> None:
    noise = np.random.default_rng(0).standard_normal((64, 80))
    with pytest.raises(ImageReadError, match="is flat"):
        model.aligned_fraction(np.zeros((64, 80)))
    assert not model.aligned_fraction(noise).fraction > 0.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": None}, "requires y"),
        ({"y": "aligned"}, "y is a list"),
        ({"y": ["aligned"] * 3}, "16"),
        ({"y": ["aligned"] * 16}, "no window is not aligned"),
        ({"y": [1.5] * 16}, "y of image 0 .*: expected 'aligned'"),
        ({"y": ["Aligned"] * 16}, "there is no such file"),
        ({"y": [halves(0, 0)[1] / 2] * 8 + [False] * 8}, None),
        ({"y": [np.zeros((9, 9))] + [True] * 15}, "map .y. of image 0"),
        ({"groups": [1, 2]}, "groups"),
        ({"window": 0}, "window"),
        ({"window": 100}, "smaller than a patch of 100"),
        ({"tile_size": 3}, "tile_size"),
        ({"boosting": "trees"}, "BoostedSoftmaxClassifier or None"),
        ({"encoder": "vgg16"}, "HypercolumnVLAD or None"),
        ({"encoder": HypercolumnVLAD()}, "alignment is judged at an image's own size"),
        ({"encoder": default_alignment_encoder(pixel_size=2.0)}, "image's own pixels"),
    ],
)
def test_what_is_wrong_is_told(
    labelled: tuple[list[Image], list[str]], change: dict[str, Any], message: str | None
) -> None:
    images, y = labelled
    y, groups = change.pop("y", y), change.pop("groups", None)
    model = small_model(**change)
    if message is None:  # 0 and one value above it are a map, whatever that value
        model.fit(images, y)
        return
    with pytest.raises(ValueError, match=message):
        model.fit(images, y, groups=groups)
    with pytest.raises(NotFittedError):
        model.predict(images)


def test_windows_must_cover_the_image(model: AlignmentClassifier) -> None:
    with pytest.raises(ValueError, match="windows over 32 x 32 pixels"):
        model.aligned_proba(stripes(0, 0), np.array([0, 16, 32]), np.array([0, 16, 32]))


def test_nothing_known_cannot_be_judged(model: AlignmentClassifier) -> None:
    with pytest.raises(ValueError, match="none can be judged"):
        model.score([stripes(0, 0)], [np.full((64, 80), np.nan)])


def rows_as_images() -> RowsAsImages:
    encoder = HypercolumnVLAD(
        "tiny", weights="random", taps=["1"], image_size=None, n_codewords=2, layer_components=2
    )
    learner = BoostedSoftmaxClassifier(n_estimators=2, Cs=1.0)
    return RowsAsImages(encoder, window=4, boosting=learner, random_state=0)


@pytest.mark.filterwarnings("ignore::UserWarning")
@parametrize_with_checks([rows_as_images()])
def test_scikit_learns_conformance(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)
