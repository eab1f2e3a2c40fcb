"""The segmenter, on a tiny network: what it learns, and what it refuses."""

import copy
import pickle
import re

import numpy as np
import pytest
from scipy import ndimage
from scipy.ndimage import zoom
from support.damage import damaged
from support.few_crops import few_crops

from hypervlad import HypercolumnSegmenter, ModelFileError
from hypervlad.images import ImageReadError

pytestmark = pytest.mark.filterwarnings("ignore:.*(no particle is found|another magnif)")
SHAPE = (96, 128)
FEW = [0, 0, 1, 1, 2]  # groups, too few to hold any out, which takes five more models
EMPTY = [np.full(SHAPE, 0.3, np.float32)] * 4, [np.zeros(SHAPE, np.int32)] * 4


def make_fields(n, shape=SHAPE, seed=0):
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
def fields():
    return make_fields(5)


@pytest.fixture(scope="module", autouse=True)
def small_crops():
    with few_crops(side=48):
        yield


@pytest.fixture(scope="module")
def fitted(fields, small_crops):
    return new_segmenter(n_epochs=8).fit(*fields)


def new_segmenter(**parameters):
    usual = {"weights": "random", "n_epochs": 1, "random_state": 0}
    return HypercolumnSegmenter("tiny", **usual | parameters)


def overlap(found, truth):
    return np.count_nonzero((found > 0) & (truth > 0)) / np.count_nonzero((found > 0) | (truth > 0))


def test_it_finds_particles_that_are_easy_to_see(fitted):
    for image, labels in zip(*make_fields(2, seed=1), strict=True):
        (found,) = fitted.predict([image])
        assert found.dtype == np.int32
        assert set(np.unique(found)) == set(range(found.max() + 1))
        assert np.bincount(found.ravel())[1:].min() >= fitted.min_area
        assert overlap(found, labels) > 0.8
        # Brightness and contrast do not matter.
        assert overlap(*fitted.predict([0.5 * image + 0.2]), found) > 0.99
        (proba,) = fitted.predict_proba([image])
        assert proba.shape == (3, *SHAPE)
        assert np.abs(proba.sum(axis=0) - 1).max() <= 1e-6
        assert overlap(proba[0] < 0.5, found) > 0.9
    assert fitted.held_out_ is not None
    assert fitted.held_out_.n_images == fitted.detection_.n_fields == 5  # each once
    assert fitted.held_out_.iou > 0.8
    assert (fitted.n_images_, len(fitted.losses_)) == (5, 8)
    assert fitted.losses_[7] < 0.7 * fitted.losses_[0]
    noise = np.random.default_rng(0).normal(0.3, 0.02, SHAPE).astype(np.float32)
    assert not any(map(np.any, fitted.predict([noise, np.full((50, 40), 0.3)])))


def test_touching_particles_are_separated(fitted):
    rows, columns = np.mgrid[:96, :128]
    labels = np.zeros(SHAPE, int)
    for number, column in enumerate((40, 58), 1):
        labels[(rows - 48) ** 2 + (columns - column) ** 2 < 10**2] = number
    image = np.where(labels > 0, 0.7, 0.3) + np.random.default_rng(3).normal(0, 0.05, SHAPE)
    given, model = image.clip(0, 1).astype(np.float32), copy.copy(fitted)
    for separation, are_apart in ((0.0, False), (1.0, True)):
        model.separation_ = separation
        (found,) = model.predict([given])
        assert overlap(found, labels) > 0.8
        assert (found[48, 40] != found[48, 58]) == are_apart
    assert found.max() > 2  # discs in pieces, between which there is no neck
    model.at_necks_ = True
    assert model.predict([given])[0].max() == 2
    model.min_area = 2000
    assert not model.predict([given])[0].any()


def test_tiles_give_what_the_whole_image_gives(fitted):
    tiled = copy.copy(fitted)
    tiled.tile_size = 512
    for shape in ((64, 700), (600, 72)):
        (image,), _ = make_fields(1, shape=shape, seed=2)
        np.testing.assert_array_equal(*tiled.predict([image]), *fitted.predict([image]))


def test_fields_are_brought_to_the_magnification_of_training(fields):
    images, outlines = fields
    model = new_segmenter(n_epochs=8, read_options={"pixel_size": 4.0})
    model.fit(images, outlines, groups=FEW)
    seen, truths = make_fields(3, seed=1)
    enlarged = [zoom(image, 2, order=1, mode="nearest", grid_mode=True) for image in seen]
    expected, found = model.predict(seen), model.predict(enlarged, read_options={"pixel_size": 2.0})
    for own, other, truth in zip(expected, found, truths, strict=True):
        assert abs(other.max() - own.max()) <= 1 < own.max()
        assert other.shape == (192, 256)
        pieces = [ndimage.label(other == n, np.ones((3, 3)))[1] for n in np.unique(other)[1:]]
        assert set(pieces) == {1}
        assert overlap(other, truth.repeat(2, 0).repeat(2, 1)) > 0.8
    (proba,) = model.predict_proba(enlarged[:1], read_options={"pixel_size": 2.0})
    assert overlap(proba[0] < 0.5, found[0]) > 0.9
    for answer in (model.predict, model.predict_proba):
        with pytest.warns(UserWarning, match="image 2 .*the pixel size is unknown.*4 nm per pixel"):
            answer(enlarged, read_options={})
    doubtful = copy.copy(model)
    doubtful.diameters_ = (100.0, 200.0)
    note = doubtful.find_particles(images[0], read_options={}).note
    assert ("another magnification" in note, "the pixel size is unknown" in note) == (True, True)
    blurred = ndimage.gaussian_filter(images[0], 3)  # noticed whatever the magnification
    for size in (4.0, 3.0):
        note = model.find_particles(blurred, read_options={"pixel_size": size}).note
        assert note.startswith("unlike nearly all training images")
    for size, words in ((4e3, "400,000,000 pixels"), (33, "8 times"), (0.1, "below 8 pixels")):
        with pytest.raises(ImageReadError, match=words):
            model.predict(images[:1], read_options={"pixel_size": size})


@pytest.mark.filterwarnings("ignore:(scan lines|.*unlike nearly)")  # the former of a grid
def test_particles_unlike_those_of_training_are_noted():
    rows, columns = np.mgrid[-16:16, -16:16]

    def field(is_inside, step=0.4, seed=0):
        labels = np.kron(np.arange(1, 81).reshape(8, 10), is_inside)
        image = 0.3 + np.array([0.4, step, 0.4])[labels % 3] * (labels > 0)
        return image + np.random.default_rng(seed).normal(0, 0.02, image.shape), labels

    disc, bar = rows**2 + columns**2 < 64, (abs(rows) < 4) & (abs(columns) < 13)
    images, outlines = zip(*(field(disc, seed=seed) for seed in range(4)), strict=True)
    with few_crops():
        model = new_segmenter(n_epochs=8).fit(images, outlines, groups=FEW[:4])
    for given, expected in (
        (field(disc), "^$"),
        (field(bar), "elongation"),
        (field(bar | bar.T), "solidity"),
        (field(disc, 0.1), "evenness.*spots as faint|spots as faint.*evenness"),
    ):
        assert re.search(expected, model.find_particles(given[0], annotations="keep").note)
    every = [np.where(labels % 3 == 1, 0, labels) for labels in outlines]  # faint ones are none
    model.set_params(n_epochs=1).fit([field(disc, 0.1)[0]] * 4, every, groups=FEW[:4])
    assert "spots" not in model.find_particles(field(disc, 0.1)[0], annotations="keep").note


def test_parameters_set_later_do_not_change_what_was_fitted(fitted, fields):
    expected, (image, *_) = fitted.predict(fields[0][:1]), fields[0]
    model = copy.deepcopy(fitted).set_params(weights="pretrained", backbone="nothing")
    read = HypercolumnSegmenter.from_state(*model.to_state())
    for again in (model, pickle.loads(pickle.dumps(model)), read):
        np.testing.assert_array_equal(again.predict([image]), expected)
    with pytest.raises(ValueError, match="unknown"):
        model.check_parameters()


def test_held_out_images_say_how_well_it_outlines(fields):
    """What is learnt on is never held out; the order of images does not matter."""
    images, outlines = fields
    with few_crops(8):
        model, again = (
            new_segmenter(min_area=5).fit(images[::step], outlines[::step]) for step in (1, -1)
        )
        for name, values in model.decoder_.items():
            np.testing.assert_array_equal(again.decoder_[name], values)
        assert model.held_out_ == again.held_out_
        # Of an image with particles among empty ones, none is held out; of two, one is.
        for n, some_held_out in ((1, False), (2, True)):
            model.fit([*EMPTY[0], *images[:n]], [*EMPTY[1], *outlines[:n]])
            assert model.held_out_ is not None
            assert (model.held_out_.n_particles > 0) == some_held_out
        grouped = new_segmenter().fit(images, outlines, groups=FEW)
    assert grouped.held_out_ is None
    assert grouped.n_particles_ == sum(len(np.unique(labels)) - 1 for labels in outlines)
    assert grouped.separation_ == 0.8


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([np.zeros(SHAPE, int)] * 5, "no particle is outlined"),
        ([np.eye(90, 128, dtype=int)] * 5, "90 x 128"),
        ([np.ones(SHAPE, int)] * 4, "4 label images for 5 images"),
        ([None, *[np.ones(SHAPE, int)] * 4], "the outlines of image 0 .*are missing"),
        ("outlines/", "find_outlines"),
    ],
)
def test_unusable_outlines(fields, given, words):
    model = new_segmenter()
    with pytest.raises(ValueError, match=words):  # an ImageReadError is one
        model.fit(fields[0], given)
    assert not hasattr(model, "decoder_")


def test_a_damaged_state_is_an_error(fitted):
    header, arrays = fitted.to_state(include_backbone=True)
    assert "network_state_.2.weight" in arrays.keys() - fitted.to_state()[1].keys()
    for other in damaged(arrays, finite=False):
        with pytest.raises(ModelFileError):
            HypercolumnSegmenter.from_state(header, other)
