"""The segmenter, on a tiny network: what it learns, and what it refuses."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from sklearn.base import clone

import hypervlad
from hypervlad.images import ImageReadError
from hypervlad.models import HypercolumnSegmenter
from hypervlad.models.segmentation.decoder import BORDER, IGNORED, INSIDE, Targets, TopDownDecoder
from hypervlad.models.segmentation.estimator import chosen_columns
from hypervlad.particles import Outlines

Fields = tuple[list[NDArray[np.float32]], list[NDArray[np.int32]]]


def make_fields(n: int, shape: tuple[int, int] = (96, 128), seed: int = 0) -> Fields:
    """Bright discs on a dark, noisy ground."""
    rng = np.random.default_rng(seed)
    images, outlines = [], []
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    for _ in range(n):
        labels = np.zeros(shape, np.int32)
        for number in range(1, 7):
            y, x, radius = rng.uniform(0, shape[0]), rng.uniform(0, shape[1]), rng.uniform(5, 12)
            labels[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = number
        image = np.where(labels > 0, 0.7, 0.3) + rng.normal(0, 0.05, shape)
        images.append(image.clip(0, 1).astype(np.float32))
        outlines.append(labels)
    return images, outlines


@pytest.fixture(scope="module")
def fields() -> Fields:
    return make_fields(5)


@pytest.fixture(scope="module", autouse=True)
def few_crops() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hypervlad.models.segmentation.decoder.N_CROPS", 30)
        patch.setattr("hypervlad.models.segmentation.decoder.CROP", 64)
        yield


@pytest.fixture(scope="module")
def fitted(fields: Fields, few_crops: None) -> HypercolumnSegmenter:
    return new_segmenter(n_epochs=8).fit(*fields)


def new_segmenter(**parameters: Any) -> HypercolumnSegmenter:
    usual = {"weights": "random", "n_epochs": 1, "random_state": 0}
    return HypercolumnSegmenter("tiny", **usual | parameters)


def test_it_finds_particles_that_are_easy_to_see(fitted: HypercolumnSegmenter) -> None:
    images, outlines = make_fields(2, seed=1)
    for image, labels in zip(images, outlines, strict=True):
        found = fitted.predict(image)
        assert found.dtype == np.int32
        both = np.count_nonzero((found > 0) & (labels > 0))
        assert both > 0.8 * np.count_nonzero((found > 0) | (labels > 0))
    assert fitted.held_out_ is not None
    assert fitted.held_out_.n_images == 1
    assert fitted.held_out_.iou > 0.8
    assert fitted.n_images_ == 5


def test_probabilities_of_a_pixel_sum_to_one(fitted: HypercolumnSegmenter, fields: Fields) -> None:
    proba = fitted.predict_proba(fields[0][0])
    assert proba.shape == (3, 96, 128)
    assert np.abs(proba.sum(axis=0) - 1).max() <= 2 / 255


def test_an_empty_field_has_no_particles(fitted: HypercolumnSegmenter) -> None:
    noise = np.random.default_rng(0).normal(0.3, 0.02, (96, 128)).astype(np.float32)
    assert not fitted.predict(noise).any()
    assert not fitted.predict(np.full((50, 40), 0.3)).any()


def test_tiles_give_what_the_whole_image_gives(fitted: HypercolumnSegmenter) -> None:
    (image,), _ = make_fields(1, shape=(600, 700), seed=2)
    tiled = clone(fitted)
    tiled.__dict__.update(fitted.__dict__)
    tiled.tile_size = 512
    np.testing.assert_array_equal(tiled.predict(image), fitted.predict(image))


def test_a_saved_segmenter_finds_the_same(
    fitted: HypercolumnSegmenter, fields: Fields, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "p.hvlad")
    loaded = hypervlad.load(tmp_path / "p.hvlad")
    assert loaded.held_out_ == fitted.held_out_
    pickled = pickle.loads(pickle.dumps(fitted))
    for model in (loaded, pickled):
        np.testing.assert_array_equal(model.predict(fields[0][0]), fitted.predict(fields[0][0]))


@pytest.fixture
def fewer_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too few to find particles."""
    monkeypatch.setattr("hypervlad.models.segmentation.decoder.N_CROPS", 8)


def test_the_same_seed_gives_the_same_model(fields: Fields, fewer_crops: None) -> None:
    first, second = (new_segmenter().fit(*fields) for _ in range(2))
    for name, values in first.decoder_.items():
        np.testing.assert_array_equal(second.decoder_[name], values)


def test_weights_are_drawn_as_torch_does_but_not_from_what_threads_share() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        usual = TopDownDecoder([5, 7])
        state = torch.random.get_rng_state()
        drawn = TopDownDecoder.empty([5, 7])
        drawn.initialise(3)
        assert torch.equal(torch.random.get_rng_state(), state)
    for name, values in usual.state_dict().items():
        if "weight" in name or "bias" in name:
            torch.testing.assert_close(drawn.state_dict()[name], values)


def test_files_are_read(fields: Fields, tmp_path: Path) -> None:
    images, outlines = fields
    paths, label_paths = [], []
    for number, (image, labels) in enumerate(zip(images, outlines, strict=True)):
        paths.append(tmp_path / f"{number}.png")
        label_paths.append(tmp_path / f"{number}_labels.png")
        Image.fromarray((255 * image).astype(np.uint8)).save(paths[-1])
        Image.fromarray(labels.astype(np.uint16)).save(label_paths[-1])
    model = new_segmenter().fit(paths, label_paths, groups=[0, 0, 1, 1, 2])
    assert model.held_out_ is None  # three groups are too few
    assert model.n_particles_ == sum(len(np.unique(labels)) - 1 for labels in outlines)
    assert model.predict(paths[0]).shape == (96, 128)


def test_scribbles_are_enough(fields: Fields) -> None:
    images, outlines = fields
    scribbles = []
    for labels in outlines:
        marks = np.zeros(labels.shape, np.uint8)
        marks[ndimage.binary_erosion(labels > 0, iterations=3)] = 2
        marks[::7][ndimage.binary_erosion(labels == 0, iterations=3)[::7]] = 1
        scribbles.append(marks)
    model = new_segmenter(n_epochs=8).fit(images, scribbles, annotation="scribbles")
    found, truth = model.predict(images[0]) > 0, outlines[0] > 0
    assert np.count_nonzero(found & truth) > 0.7 * np.count_nonzero(found | truth)
    assert model.separation_ is None


@pytest.mark.parametrize(
    ("outlines", "message"),
    [
        ([np.zeros((96, 128), int)] * 5, "no particle is outlined"),
        ([np.ones((90, 128), int)] * 5, "90 x 128"),
        ([np.ones((96, 128), int)] * 4, "4 label images for 5 images"),
        ("outlines/", "find_outlines"),
    ],
)
def test_unusable_outlines(fields: Fields, outlines: list[Any], message: str) -> None:
    model = new_segmenter()
    with pytest.raises((ValueError, ImageReadError), match=message):
        model.fit(fields[0], outlines)
    assert not hasattr(model, "decoder_")


def test_unusable_scribbles(fields: Fields) -> None:
    with pytest.raises(ValueError, match="both background"):
        new_segmenter().fit(fields[0], [np.ones((96, 128), int)] * 5, annotation="scribbles")
    with pytest.raises(ImageReadError, match="scribbles must be"):
        new_segmenter().fit(fields[0], [np.full((96, 128), 7)] * 5, annotation="scribbles")
    with pytest.raises(ImageReadError, match=r"got shape \(0, 0\)$"):
        new_segmenter().fit(fields[0], [np.zeros((0, 0))] * 5, annotation="scribbles")


def test_targets_of_outlines() -> None:
    labels = np.zeros((9, 14), int)
    labels[2:7, 1:6], labels[2:7, 6:11] = 1, 2
    targets = Targets.of_outlines(Outlines.of(labels))
    assert (targets.kind[3:6, 2:5] == INSIDE).all()
    assert (targets.kind[2, 1:11] == BORDER).all()
    assert (targets.kind[2:7, 5:7] == BORDER).all()  # where they touch
    assert (targets.weight[2:7, 4:8] > 1).all()
    assert (targets.weight[:, 13:] == 1).all()
    gap = Targets.of_outlines(Outlines.of(np.array([[1, 1, 1, 0, 2, 2, 2, 0, 0]])))
    assert gap.weight[0, 3] > 1  # the gap matters as much as what is beside it
    assert targets.depth[4, 3] == targets.depth[4, 8] == targets.depth.max() == 1
    np.testing.assert_allclose(targets.depth[2, 1:6], 1 / 3)
    scribbled = Targets.of_scribbles(np.array([[0, 1, 2, 3]]))
    assert scribbled.kind.tolist() == [[IGNORED, 0, INSIDE, BORDER]]
    assert torch.from_numpy(scribbled.depth).isnan().all()


def test_a_segmenter_with_empty_fields_is_saved(fields: Fields, tmp_path: Path) -> None:
    images, outlines = fields
    empty = [np.full((96, 128), 0.3, np.float32)] * 4
    nothing = [np.zeros((96, 128), np.int32)] * 4
    model = new_segmenter().fit([*empty, images[0]], [*nothing, outlines[0]])
    model.save(tmp_path / "p.hvlad")
    assert hypervlad.load(tmp_path / "p.hvlad").held_out_ == model.held_out_


def test_an_outlined_image_is_learnt_and_another_held_out(
    fields: Fields, fewer_crops: None
) -> None:
    images, outlines = fields
    empty = [np.full((96, 128), 0.3, np.float32)] * 4
    nothing = [np.zeros((96, 128), np.int32)] * 4
    for seed in range(3):
        model = new_segmenter(random_state=seed)
        model.fit([*empty, images[0]], [*nothing, outlines[0]])
        assert model.held_out_ is not None
        assert model.held_out_.n_particles == 0
        model.fit([*empty, *images[:2]], [*nothing, *outlines[:2]])
        assert model.held_out_.n_particles > 0


def test_no_held_out_image_chooses_its_own_separation() -> None:
    assert chosen_columns(np.array([[0.0, 3], [4, -3]])) == (1, [1, 0])
    assert chosen_columns(np.array([[5.0, 0]])) == (1, [0])  # there is no other: the default


def test_a_network_that_allows_no_tiles_is_refused_before_the_training() -> None:
    images, outlines = make_fields(4, shape=(40, 600))
    model = new_segmenter(tile_size=512)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hypervlad.features.backbones.TappedNetwork.reach", lambda _: None)
        patch.setattr("hypervlad.models.segmentation.estimator.train", None)
        with pytest.raises(ValueError, match="depend on the whole image"):
            model.fit(images, outlines)


def test_a_network_changed_after_fit_takes_effect_at_the_next(
    fitted: HypercolumnSegmenter, fields: Fields
) -> None:
    changed = pickle.loads(pickle.dumps(fitted)).set_params(backbone="mobilenet_v2")
    np.testing.assert_array_equal(changed.predict(fields[0][0]), fitted.predict(fields[0][0]))


def test_pieces_are_joined_across_faint_places_unless_they_are_separated() -> None:
    background = np.full((20, 60), 250, np.uint8)
    background[8:12, 5:55], background[8:12, 25:28] = 10, 150  # a fibre with a faint place
    depth = 255 - background
    fields = np.stack([background, depth, 0 * depth, depth])
    model = new_segmenter()
    joined, separated = model._labels(fields, 0.0), model._labels(fields, 0.8)
    # A particle is in one piece, with what joins it: a label image of 0 and 1 would be a mask.
    np.testing.assert_array_equal(joined, background < 180)
    assert np.unique(separated).tolist() == [0, 1, 2]
    np.testing.assert_array_equal(separated > 0, background < 128)
