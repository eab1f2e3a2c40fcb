"""`TransferClassifier`: features and fine-tuning, files, skipped images, what it refuses."""

import copy
import functools
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from support.counting import CountingImage
from support.damage import damaged, replaced
from support.tiny import build_tiny, make_tiny_encoder

import hypervlad
from hypervlad import ImageReadError, ModelFileError
from hypervlad.evaluation import expected_calibration_error
from hypervlad.features import WeightsNotFoundError, get_backbone
from hypervlad.images import SkippedImagesWarning
from hypervlad.models import TransferClassifier

pytestmark = pytest.mark.filterwarnings("ignore:fine-tuning is validated on:UserWarning")


@functools.cache
def _curves():
    """The class of what a fine-tuning remembers of its epochs."""
    model = TransferClassifier(
        "tiny", "random", mode="finetune", image_size=4, max_epochs=1, random_state=0
    )
    images = [np.full((4, 4), 0.1 * i) for i in range(8)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return type(model.fit(images, [*"abababab"]).history_)


def small(**parameters):
    """A classifier on the tiny network, that learns in a fraction of a second."""
    usual = {
        "weights": "random",
        "image_size": 16,
        "learning_rate": 1e-3,
        "batch_size": 6,
        "max_epochs": 3,
        "random_state": 0,
    }
    return TransferClassifier("tiny", **usual | parameters)


def tuned(monkeypatch, **more):
    # The weights of the last epoch are kept, whether or not it is better than the start.
    monkeypatch.setattr(_curves(), "best_epoch", property(lambda curves: len(curves) - 1))
    return small(mode="finetune", **more)


@pytest.fixture(scope="module")
def features(tiny_backbone, texture_images):
    return small().fit(*texture_images)


modes = pytest.mark.parametrize("mode", ["features", "finetune"])


def network_and_maps(images):
    """The tiny network's weights, and its last maps averaged over each image."""
    network = make_tiny_encoder().fit(images[:1]).network()
    preprocessing = get_backbone("tiny").preprocessing
    batch = torch.stack([preprocessing.prepare(image, (16, 16)) for image in images])
    with torch.no_grad():
        *_, maps = network(batch)
    return network.original.state_dict(), maps.mean(dim=(2, 3)).double().numpy()


# --- learning ------------------------------------------------------------------------------------


@modes
def test_it_learns_and_its_probabilities_are_probabilities(mode, texture_images):
    images, labels = texture_images
    model = small(mode=mode).fit(images[:18], labels[:18])
    assert model.score(images[18:], labels[18:]) == 1
    proba = model.predict_proba(images)
    assert model.classes_.tolist() == ["flat", "rings", "stripes"]
    np.testing.assert_allclose(softmax(model.decision_function(images), axis=1), proba)
    assert model.n_images_ == 18
    assert expected_calibration_error(np.searchsorted(model.classes_, labels), proba) < 0.25
    order = np.random.default_rng(0).permutation(18)
    other = small(mode=mode).fit([images[i] for i in order], labels[order])
    np.testing.assert_array_equal(other.predict_proba(images), proba)
    colour = [np.repeat(image[..., None], 3, axis=-1) for image in images[:4]]
    np.testing.assert_allclose(model.predict_proba(colour), proba[:4], atol=1e-4)


def test_the_head_is_logistic_regression_on_the_last_maps_averaged(texture_images):
    """Against the same in a few plain lines, without any of the code under test."""
    images, labels = texture_images
    shuffled = np.random.default_rng(0).permutation(labels)  # so that the penalty matters
    model = small().fit(images, shuffled)
    _, X = network_and_maps(images)
    Z = X - X.mean(axis=0)
    Z /= np.sqrt((Z**2).sum(axis=1).mean())
    plain = LogisticRegression(C=model.C_, max_iter=10_000, tol=1e-8).fit(Z, shuffled)
    expected = plain.decision_function(Z)
    found = model.decision_function(images) * model.head_.temperature
    np.testing.assert_allclose(found, expected, atol=0.01 * np.abs(expected).max())
    assert model.history_ is None


def test_all_layers_change(features, texture_images, monkeypatch):
    model = tuned(monkeypatch).fit(*texture_images)
    expected = {f"{layer}.{part}" for layer in "024" for part in ("weight", "bias")}
    assert set(model.network_state_) == expected
    before, _ = network_and_maps(texture_images[0])
    for name, after in model.network_state_.items():
        assert 0 < np.abs(after - before[name].numpy()).max() < 0.1
    assert (features.head_.coef != model.head_.coef).any()


def test_what_is_held_out_decides(texture_images, monkeypatch, sampled):
    """Whole groups, with the copies of their images; their loss is that of the final model."""
    images, labels = texture_images
    copies, theirs = [*images, *images], np.tile(labels, 2)
    # The second copy of each image is in a group of another name, together with the next image.
    groups = np.r_[np.arange(24), 100 + np.arange(24) // 2]
    model = tuned(monkeypatch).fit(copies, theirs, groups=groups)
    means = [get_backbone("tiny").preprocessing.prepare(each, (16, 16))[0] for each in images]
    std, mean = (getattr(get_backbone("tiny").preprocessing, name)[0] for name in ("std", "mean"))
    greys = np.array([float(each.mean()) * std + mean for each in means])
    learnt = np.abs(sampled.joined.before.mean((1, 2))[:, None] - greys).argmin(1)
    held_out = sorted(set(range(24)) - set(learnt.tolist()))
    assert model.history_.n_validation == 2 * len(held_out)
    assert model.history_.n_validation_groups == len(held_out) / 2
    assert {i // 2 for i in held_out} & {i // 2 for i in learnt.tolist()} == set()
    assert np.unique(learnt, return_counts=True)[1].tolist() == [6] * (24 - len(held_out))
    proba = model.predict_proba([images[i] for i in held_out])
    codes = np.searchsorted(model.classes_, labels[held_out])
    loss = -np.log(proba[np.arange(len(held_out)), codes]).mean()
    assert loss == pytest.approx(model.history_.validation_loss[-1], abs=1e-5)


# --- files ---------------------------------------------------------------------------------------


def test_a_file_with_the_network_predicts_bit_identically(features, texture_images, tmp_path):
    images, path = texture_images[0], tmp_path / "m.hvlad"
    features.save(path, include_backbone=True)
    loaded = hypervlad.load(path)
    np.testing.assert_array_equal(loaded.predict_proba(images), features.predict_proba(images))
    assert {name[0] for name in loaded.network_state_} == set("024")
    loaded.save(tmp_path / "again.hvlad", include_backbone=True)
    assert (tmp_path / "again.hvlad").read_bytes() == path.read_bytes()


class Deleting(CountingImage):
    """An image that deletes a file when it is read."""

    path: Path

    def __array__(self, dtype=None, copy=None):
        self.path.unlink(missing_ok=True)
        return super().__array__(dtype, copy)


def test_weights_that_are_not_those_of_the_model_are_reported(texture_images, tmp_path):
    images, labels = texture_images
    state = build_tiny().state_dict()
    torch.save(state, tmp_path / "own.pth")
    torch.save({name: value + 1 for name, value in state.items()}, tmp_path / "other.pth")
    torch.save({k: torch.full_like(v, 1e30) for k, v in state.items()}, tmp_path / "huge.pth")
    shutil.copy(tmp_path / "own.pth", tmp_path / "moved.pth")
    model = small(weights=tmp_path / "own.pth")
    # A fit needs the file once, before the images are read.
    first = Deleting(images[0])
    first.path = tmp_path / "own.pth"
    model.fit([first, *images[1:]], labels)
    assert not first.path.exists()
    model.save(tmp_path / "m.hvlad")
    expected = model.predict_proba(images)
    with pytest.raises(WeightsNotFoundError):
        hypervlad.load(tmp_path / "m.hvlad").predict(images)
    with pytest.raises(WeightsNotFoundError, match="not those that the model was trained with"):
        hypervlad.load(tmp_path / "m.hvlad", weights=tmp_path / "other.pth").predict(images)
    found = hypervlad.load(tmp_path / "m.hvlad", weights=tmp_path / "moved.pth")
    np.testing.assert_array_equal(found.predict_proba(images), expected)
    with pytest.raises(ValueError):
        small(weights=tmp_path / "huge.pth").fit(images, labels)


def test_a_damaged_state_is_an_error(texture_images, monkeypatch):
    header, arrays = tuned(monkeypatch).fit(*texture_images).to_state()
    states = [(header, each) for each in damaged(arrays, "head_.")]
    states += [(header, each) for each in damaged(arrays, "network_state_.", finite=False)]
    states += [(header, arrays | {"head_.scale": np.zeros(10)})]
    for part, value in (
        ("head_/state/temperature", 0.0),
        ("classes_/values", ["flat", "rings"]),
        ("backbone_", "absent"),
        ("image_size_", 0),
        ("history_/loss", 3),
        ("history_/loss", [1.0]),
        ("history_/start_loss", "low"),
    ):
        states.append((replaced(header, f"fitted/{part}", value), arrays))
    for state in states:
        with pytest.raises(ModelFileError):
            TransferClassifier.from_state(*state)


# --- images that cannot be read, input that cannot be --------------------------------------------


@modes
def test_skipped_images_are_left_out_and_marked(mode, texture_images, tmp_path):
    images, labels = texture_images
    (bad := tmp_path / "bad.tif").touch()
    mixed = [bad, *images]
    with pytest.raises(ImageReadError):
        small(mode=mode).fit(mixed, ["flat", *labels])
    model = small(on_error="skip", mode=mode)
    with pytest.warns(SkippedImagesWarning):
        model.fit(mixed, ["flat", *labels], groups=np.arange(25))
    assert model.n_images_ == 24
    with pytest.warns(SkippedImagesWarning):
        score = model.score(mixed, ["flat", *labels])
    with pytest.warns(SkippedImagesWarning):
        predicted, margins = model.predict(mixed), model.decision_function(mixed)
    assert score == model.score(images, labels)
    assert predicted.tolist() == [None, *model.predict(images)]
    assert np.isnan(margins[0]).all()
    with pytest.warns(SkippedImagesWarning), pytest.raises(ValueError):  # one class is left
        model.fit([bad, *images[:3]], ["other", "flat", "flat", "flat"])
    assert model.score(images, labels) == score  # a fit that fails leaves the model as it was


@pytest.mark.parametrize(
    ("parameters", "given", "words"),
    [
        ({"weights": "nowhere.pth"}, {}, "no such weights file"),
        ({"image_size": 2}, {}, "image_size must be .* at least 4 and at most 2048 or 'auto', not"),
        ({}, {"groups": [1, 2]}, "2 groups values for 24 images"),
    ],
)
def test_bad_input_is_reported_before_images_are_read(parameters, given, words, texture_images):
    model = small(mode="finetune").set_params(**parameters)
    with pytest.raises(ValueError, match=words):
        model.fit(**{"images": ["absent.png"] * 24, "y": texture_images[1]} | given)


def test_a_loss_that_is_nan_is_reported(texture_images):
    model = small(mode="finetune", learning_rate=1e30, max_epochs=9)
    before = copy.copy(vars(model))
    with pytest.raises(ValueError, match=r"loss is (nan|inf) after .* use a smaller one"):
        model.fit(*texture_images)
    assert vars(model) == before
