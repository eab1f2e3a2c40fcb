"""`AlignmentClassifier`: labels and maps, turned images, files, errors."""

from __future__ import annotations

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

from hypervlad import (
    AlignmentClassifier,
    BoostedSoftmaxClassifier,
    HypercolumnVLAD,
    ImageReadError,
    ModelFileError,
    load,
)
from hypervlad.features import ImageInfo
from hypervlad.features.windows.dataset import PreparedImage, WindowReader
from hypervlad.features.windows.vectors import Tiling
from hypervlad.fibres import AlignmentModel, aligned_fraction
from hypervlad.fibres.regions import TileGrid
from hypervlad.images import ReadOptions, SkippedImagesWarning
from hypervlad.models import default_alignment_encoder
from hypervlad.models.alignment import AlignmentLabels, TurnInvariantVectors, read_grey, turned_grid

Image = NDArray[np.float32]
WINDOW = 16


def stripes(seed: int, angle: float, size: tuple[int, int] = (64, 80)) -> Image:
    """Lines of one direction, a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    wave = np.sin(0.9 * (x * np.sin(angle) + y * np.cos(angle)) + rng.uniform(0, 6))
    return (0.5 + 0.3 * wave + 0.02 * rng.standard_normal(size)).astype(np.float32)


def checks(seed: int, size: tuple[int, int] = (64, 80)) -> Image:
    """The same lines, crossing, in any direction."""
    return crossing(seed, float(np.random.default_rng(seed).uniform(0, np.pi)), size)


def crossing(seed: int, angle: float, size: tuple[int, int] = (64, 80)) -> Image:
    """The same lines, crossing at right angles."""
    both = stripes(seed, angle, size) + stripes(seed + 999, angle + np.pi / 2, size)
    return (both / 2).astype(np.float32)


def halves(seed: int, angle: float) -> tuple[Image, NDArray[np.float32]]:
    """Aligned on the left, crossing on the right; and the map of it."""
    image = stripes(seed, angle)
    image[:, 48:] = checks(seed)[:, 48:]
    return image, np.where(np.arange(80) < 48, 1, 0) * np.ones((64, 1), np.float32)


def small_model(**options: Any) -> AlignmentClassifier:
    encoder = default_alignment_encoder(
        backbone="tiny", weights="random", taps=["1", "4"], n_codewords=4
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


def test_aligned_windows_are_distinguished_from_crossing_ones(model: AlignmentClassifier) -> None:
    for seed, angle in enumerate(ANGLES + 0.2):
        image, truth = halves(50 + seed, float(angle))
        found = model.aligned_fraction(image)
        right = found.aligned == (truth[8::16, 8::16] == 1)
        assert right.mean() > 0.8
        assert found.proba is not None
        assert found.fraction == pytest.approx(0.6, abs=0.2)


def test_trained_on_maps(tiny_backbone: None) -> None:
    images, maps = zip(*(halves(i, float(angle)) for i, angle in enumerate(ANGLES)), strict=True)
    fitted = small_model().fit(list(images), list(maps))
    others, their_maps = zip(*(halves(90 + i, 0.3 * i) for i in range(4)), strict=True)
    assert fitted.score(list(others), list(their_maps)) > 0.85
    assert 0.5 < fitted.aligned_share_ < 0.7
    np.testing.assert_allclose(fitted.predict(list(others)), 0.6, atol=0.2)


def test_it_is_a_model_for_the_aligned_fraction(model: AlignmentClassifier) -> None:
    assert isinstance(model, AlignmentModel)
    image, _ = halves(7, 0.4)
    by_rule, own = aligned_fraction(image, model, window=WINDOW), model.aligned_fraction(image)
    assert own.proba is not None
    np.testing.assert_allclose(by_rule.proba, own.proba, atol=1e-5)
    np.testing.assert_array_equal(own.aligned, (own.proba > 0.5) & ~own.background)


@pytest.mark.parametrize(("turn", "size"), [(1, (64, 80)), (2, (100, 137)), (3, (70, 90))])
def test_a_right_angle_changes_nothing(
    model: AlignmentClassifier, turn: int, size: tuple[int, int]
) -> None:
    image = stripes(11, 0.4, size)
    image[:, 48:] = checks(11, size)[:, 48:]
    straight = model.aligned_fraction(image).proba
    turned = model.aligned_fraction(np.rot90(image, turn)).proba
    assert straight is not None
    assert np.ptp(straight) > 0.1
    np.testing.assert_allclose(turned, np.rot90(straight, turn), atol=1e-6)


@pytest.mark.slow  # turns large images
def test_any_other_angle_changes_little(tiny_backbone: None) -> None:
    """By 127 degrees, an angle far from those trained on."""
    level = np.linspace(0, 0.3, 8)
    images = [stripes(i, float(angle)) for i, angle in enumerate(level)]
    images += [crossing(i, float(angle)) for i, angle in enumerate(level)]
    fitted = small_model().fit(images, [True] * 8 + [False] * 8)
    inner = slice(80, 176)
    for make in (stripes, crossing):
        image = make(3, 0.15, (256, 256))
        turned = rotate(image, 127, reshape=False, order=3, mode="reflect")
        before, after = (
            fitted.aligned_fraction(each[inner, inner]).expected_fraction
            for each in (image, turned)
        )
        assert before is not None
        assert after == pytest.approx(before, abs=0.25)


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
    prepared = WindowReader(model.encoder_.loader(), 1).read(image, "image")
    tiles = TileGrid.over(image.shape, 16)
    vectors = TurnInvariantVectors(model.encoder_, Tiling(2048))
    found = vectors(prepared, tiles).reshape(*tiles.shape, -1)
    turns = [vectors.turned(prepared, tiles, turn) for turn in range(4)]
    for i, j in ((0, 0), (1, 2), (3, 1)):
        (sums, means) = (np.stack([turn[k][i, j].numpy() for turn in turns]) for k in (0, 1))
        m, c = sums.mean(axis=0), abs(sums[0] - sums[1] + sums[2] - sums[3]) / 4
        words = np.hstack([m, c])
        words /= np.maximum(np.linalg.norm(words, axis=1, keepdims=True), 1e-12)
        words /= np.linalg.norm(words)
        pooled = np.hstack([means.mean(axis=0), abs(means[0] - means[1] + means[2] - means[3]) / 4])
        expected = np.hstack([words.ravel(), pooled / np.sqrt(len(pooled))])
        np.testing.assert_allclose(found[i, j], expected, atol=1e-5)


@given(st.integers(0, 3), st.integers(2, 9), st.integers(2, 9), st.integers(2, 20))
def test_turned_windows_hold_the_same_pixels(turn: int, down: int, across: int, side: int) -> None:
    """Where all windows are of one size."""
    image = np.arange(down * across * side**2).reshape(down * side, across * side)
    tiles = TileGrid.over(image.shape, side)
    windows = turned_grid(tiles, turn)
    turned = np.rot90(image, turn)
    first = [[int(turned[y, x]) for x in windows.columns] for y in windows.rows]
    corner = {0: (0, 0), 1: (0, side - 1), 2: (side - 1, side - 1), 3: (side - 1, 0)}[turn]
    own = image[corner[0] :: side, corner[1] :: side]
    assert windows.side == side
    np.testing.assert_array_equal(first, np.rot90(own, turn))


@given(st.integers(16, 200), st.integers(16, 200), st.integers(8, 48), st.integers(0, 3))
def test_windows_lie_in_the_middle_of_their_tiles(
    height: int, width: int, window: int, turn: int
) -> None:
    tiles = TileGrid.over((height, width), window)
    windows = turned_grid(tiles, turn)
    turned = [(tiles.rows, tiles.columns), (tiles.columns, tiles.rows)][turn % 2]
    for starts, edges, flipped in zip(
        (windows.rows, windows.columns), turned, (turn in (1, 2), turn in (2, 3)), strict=True
    ):
        own = edges[-1] - edges[::-1] if flipped else edges
        assert starts.min() >= 0
        assert starts.max() + windows.side <= own[-1]
        off = starts + windows.side / 2 - (own[:-1] + own[1:]) / 2
        assert abs(off).max() <= max(1, abs(windows.side - np.diff(own)).max())


def labels_of(image: Image, y: Any, options: ReadOptions | None = None) -> NDArray[np.str_]:
    """Labels of the windows of one image."""
    options = options or ReadOptions()
    grey = read_grey(image, options, "image")
    pixels = torch.zeros(3, *grey.shape)
    info = ImageInfo("0" * 64, grey.shape, None)
    prepared = PreparedImage(info, info.digest, "image", pixels, grey)
    return AlignmentLabels.check([image], [y], options).of_windows(0, prepared, WINDOW)


def test_windows_of_which_little_is_known_are_left_out() -> None:
    image, truth = halves(19, 0.2)
    unknown = truth.copy()
    unknown[:32] = np.nan
    unknown[32:43, :16] = np.nan  # eleven of sixteen rows
    labels = labels_of(image, unknown).reshape(4, 5)
    assert (labels[:2] == "").all()
    assert labels[2].tolist() == ["", "aligned", "aligned", "not aligned", "not aligned"]
    assert labels[3].tolist() == ["aligned"] * 3 + ["not aligned"] * 2


def test_the_background_is_not_trained_on() -> None:
    image = stripes(0, 0.3)
    image[:, 48:] = 0.5
    labels = labels_of(image, True).reshape(4, 5)
    assert (labels[:, :2] == "aligned").all()
    assert (labels[:, 4] == "").all()


def test_maps_may_be_files(tmp_path: Path) -> None:
    image, truth = halves(0, 0.7)
    Picture.fromarray((255 * truth).astype(np.uint8)).save(tmp_path / "map.png")
    expected = labels_of(image, truth)
    assert {"aligned", "not aligned"} <= set(expected)
    np.testing.assert_array_equal(labels_of(image, tmp_path / "map.png"), expected)


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
    back.save(tmp_path / "again.hvlad")
    assert (tmp_path / "again.hvlad").read_bytes() == path.read_bytes()


def test_a_damaged_state_is_an_error(model: AlignmentClassifier) -> None:
    header, arrays = model.to_state()
    header["fitted"]["boosting_"]["state"]["fitted"]["classes_"]["values"] = ["a", "b"]
    with pytest.raises(ModelFileError, match="the learner has no class 'aligned'"):
        AlignmentClassifier.from_state(header, arrays)
    header, arrays = model.to_state()
    learner = header["fitted"]["boosting_"]["state"]["fitted"]
    learner["n_features_in_"], learner["linear_coef_"]["shape"] = 5, [5, 1]
    learner["block_widths_"] = [5]
    arrays["boosting_.linear_coef_"] = np.zeros((5, 1))
    with pytest.raises(ModelFileError, match="the learner takes 5 features where the windows have"):
        AlignmentClassifier.from_state(header, arrays)


def test_windows_of_another_size_are_warned_of(model: AlignmentClassifier) -> None:
    with pytest.warns(UserWarning, match="trained on windows of 16 pixels and is applied to"):
        aligned_fraction(stripes(0, 0.3), model, window=32)


def test_an_image_without_fibres_has_no_fraction(model: AlignmentClassifier) -> None:
    noise = np.random.default_rng(0).standard_normal((64, 80))
    assert not model.aligned_fraction(noise).fraction > 0.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": None}, "requires y"),
        ({"y": ["aligned"] * 3}, "16"),
        ({"y": ["aligned"] * 16}, r"of one class: none of \d+ is 'not aligned'"),
        ({"y": [1.5] * 16}, "y of image 0 .*: expected 'aligned'"),
        ({"y": ["Aligned"] * 16}, "there is no such file"),
        ({"y": [np.zeros((9, 9))] + [True] * 15}, "map .y. of image 0"),
        ({"groups": [1, 2]}, "groups"),
        ({"window": 100}, "smaller than a patch of 100"),
        ({"encoder": HypercolumnVLAD()}, "alignment is judged at an image's own size"),
        ({"encoder": default_alignment_encoder(pixel_size=2.0)}, "image's own pixels"),
    ],
)
def test_unusable_input_is_named(
    labelled: tuple[list[Image], list[str]], change: dict[str, Any], message: str
) -> None:
    images, y = labelled
    y, groups = change.pop("y", y), change.pop("groups", None)
    model = small_model(**change)
    with pytest.raises(ValueError, match=message):
        model.fit(images, y, groups=groups)
    with pytest.raises(NotFittedError):
        model.predict(images)


@pytest.mark.slow  # a fit for each size
@pytest.mark.parametrize("size", [(45, 178), (32, 47)])
def test_images_of_any_size(model: AlignmentClassifier, size: tuple[int, int]) -> None:
    model = clone(model).set_params(window=32)
    images = [stripes(0, 0.3, size), checks(0, size), stripes(1, 1.3, size), checks(1, size)]
    images += [stripes(2, 2.3, size), checks(2, size)]
    labels = [True, False] * 3
    assert 0 <= model.fit(images, labels).score(images, labels) <= 1


@pytest.mark.parametrize("kind", ["colour", "16 bit", "of a detector"])
def test_all_methods_read_an_image_alike(tmp_path: Path, kind: str) -> None:
    """What `score` judges is what `aligned_fraction`, `predict` and ``align`` answer."""
    images, maps = zip(*(halves(i, float(angle)) for i, angle in enumerate(ANGLES)), strict=True)
    rng = np.random.default_rng(0)
    given: list[Any] = {
        "colour": [each[..., None] * rng.uniform(0, 1, 3) for each in images],
        "16 bit": [np.round(2000 * each + 100).astype(np.uint16) for each in images],
        "of a detector": [-7e4 * each for each in images],
    }[kind]
    model = small_model().fit(given[:6], list(maps[:6]))
    right = []
    for image, where in zip(given[6:], maps[6:], strict=True):
        found = model.aligned_fraction(image)
        asked = model.aligned_proba(image, found.rows, found.columns)
        np.testing.assert_allclose(found.proba, asked, atol=1e-5)
        judged = (found.aligned == (where[8::16, 8::16] == 1))[~found.background]
        right.append(judged)
    share = float(np.concatenate(right).mean())
    assert model.score(given[6:], list(maps[6:])) == pytest.approx(share)


def test_a_banner_is_cut_off_once(
    monkeypatch: pytest.MonkeyPatch, labelled: tuple[list[Image], list[str]]
) -> None:
    """However much the rule would find below what is left."""
    encoder = small_model().encoder
    assert encoder is not None
    encoder.set_params(read_options={"banner": "remove"})
    model = small_model(encoder=encoder).fit(*(each[4:12] for each in labelled))
    monkeypatch.setattr("hypervlad.images.reading.find_banner", lambda pixels: 6)
    image, _ = halves(2, 0.4)
    found = model.aligned_fraction(image)
    assert found.rows[-1] == 58
    assert found.proba is not None


def test_the_learner_gets_groups_weights_and_parts(
    monkeypatch: pytest.MonkeyPatch, labelled: tuple[list[Image], list[str]]
) -> None:
    given: dict[str, Any] = {}
    fit = BoostedSoftmaxClassifier.fit

    def spy(self: Any, X: Any, y: Any, **options: Any) -> Any:
        given.update(options, X=X)
        return fit(self, X, y, **options)

    monkeypatch.setattr(BoostedSoftmaxClassifier, "fit", spy)
    images, labels = labelled
    twice = [*images, images[0]]  # a copy, said to be of another group
    model = small_model().fit(twice, [*labels, labels[0]], groups=[*(np.arange(16) // 2), 99])
    assert sum(given["blocks"]) == given["X"].shape[1]
    assert given["blocks"] == [2 * each for each in model.encoder_.feature_blocks.values()]
    assert len(np.unique(given["groups"])) == 8
    assert (given["sample_weight"] == 1).all()


def test_unreadable_images_are_skipped_where_that_is_requested(
    labelled: tuple[list[Image], list[str]],
) -> None:
    images, labels = (each[4:12] for each in labelled)
    flat = np.zeros((64, 80))
    with pytest.raises(ImageReadError, match=r"image 8 .*flat"):
        small_model().fit([*images, flat], [*labels, True])
    lenient = small_model()
    assert lenient.encoder is not None
    lenient.encoder.set_params(on_error="skip")
    with pytest.warns(SkippedImagesWarning, match="flat"):
        lenient.fit([*images, flat], [*labels, True])
    assert lenient.n_images_ == 8
    with pytest.warns(SkippedImagesWarning, match="flat"):
        fractions = lenient.predict([images[0], flat])
    assert np.isnan(fractions).tolist() == [False, True]
    small = images[0][: WINDOW - 1]
    with pytest.warns(SkippedImagesWarning, match=r"image 1 .*: window=16: larger than the image"):
        assert np.isnan(lenient.predict([images[0], small])[1])


@pytest.mark.slow  # a fit
def test_one_channel_is_read_alike_in_training_and_prediction(
    model: AlignmentClassifier, labelled: tuple[list[Image], list[str]]
) -> None:
    images, labels = labelled
    noise = np.random.default_rng(0).uniform(size=images[0].shape).astype(np.float32)
    coloured = [np.dstack([noise, image, noise]) for image in images]
    second = small_model()
    assert second.encoder is not None
    options = second.encoder.read_options | {"channel": 1}
    second.set_params(encoder__read_options=options).fit(coloured, labels)

    np.testing.assert_array_equal(second.predict(coloured[:2]), model.predict(images[:2]))
    expected = model.aligned_fraction(images[0])
    tiles = expected.rows, expected.columns
    for each in (coloured[0], images[0]):
        np.testing.assert_array_equal(second.aligned_proba(each, *tiles), expected.proba)
    assert second.score(coloured[:2], labels[:2]) == model.score(images[:2], labels[:2])


def test_maps_of_whole_frames_with_unknown_pixels_fit_images_without_banner() -> None:
    image, truth = halves(5, 0.7)
    whole = np.vstack([truth, np.full((6, 80), np.nan)])
    options = ReadOptions(banner="remove")
    np.testing.assert_array_equal(
        labels_of(image, whole, options), labels_of(image, truth, options)
    )


def test_windows_must_cover_the_image(model: AlignmentClassifier) -> None:
    with pytest.raises(ValueError, match="the edges of windows must rise from 0"):
        model.aligned_proba(stripes(0, 0), np.array([0, 16, 32]), np.array([0, 16, 32]))


def test_nothing_known_cannot_be_judged(model: AlignmentClassifier) -> None:
    with pytest.raises(ValueError, match="none can be judged"):
        model.score([stripes(0, 0)], [np.full((64, 80), np.nan)])
