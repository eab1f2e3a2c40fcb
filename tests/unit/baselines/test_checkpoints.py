"""A fine-tuning that is interrupted can be resumed, and gives the same model."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch
from support.tiny import Tiny

from hypervlad import register_backbone
from hypervlad.features import Preprocessing
from hypervlad.models import TransferClassifier

pytestmark = pytest.mark.filterwarnings("ignore:fine-tuning is validated on:UserWarning")
TAPS, USUAL = ["1", "3", "4"], Preprocessing(minimum_size=4)
BATCHES = 3  # of an epoch: 18 of 24 images are learnt, of which six are a batch


class CutOffError(Exception):
    """The power failed."""


class Fragile(Tiny):
    """A network that fails when it has learnt from a number of batches."""

    n_left: ClassVar[float] = np.inf

    def forward(self, batch):
        if torch.is_grad_enabled():
            Fragile.n_left -= 1
            if Fragile.n_left < 0:
                raise CutOffError
        return super().forward(batch)


@pytest.fixture(autouse=True)
def fragile():
    register_backbone("fragile", Fragile, TAPS, USUAL)
    Fragile.n_left = np.inf
    yield
    Fragile.n_left = np.inf


def small(**parameters):
    usual = {
        "weights": "random",
        "mode": "finetune",
        "trainable": "all",
        "image_size": 16,
        "batch_size": 6,
        "max_epochs": 4,
        "patience": 4,
        "random_state": 0,
    }
    return TransferClassifier("fragile", **usual | parameters)


def same_models(one, other):
    assert one.history_ == other.history_
    assert one.network_state_.keys() == other.network_state_.keys()
    for name, array in one.network_state_.items():
        np.testing.assert_array_equal(other.network_state_[name], array)
    np.testing.assert_array_equal(one.head_.coef, other.head_.coef)
    assert one.head_.temperature == other.head_.temperature


@pytest.mark.parametrize("trainable", ["head", "all"])
def test_a_training_that_is_cut_off_again_and_again_gives_the_same_model(
    trainable, texture_images, tmp_path
):
    """Order, augmentation and dropout continue where they were."""
    whole = small(trainable=trainable).fit(*texture_images)
    assert whole.history_.n_validation == 24 - 6 * BATCHES
    model = small(trainable=trainable, checkpoint=tmp_path)
    # In the first epoch, at the end of it, in the second, and after what were three.
    for attempt, n_batches in enumerate((BATCHES - 1, BATCHES, BATCHES + 2, BATCHES + 1)):
        torch.manual_seed(attempt)  # whatever happens in between
        Fragile.n_left = n_batches
        with pytest.raises(CutOffError):
            model.fit(*texture_images)
    assert not hasattr(model, "head_")
    Fragile.n_left = BATCHES  # of the last epoch
    same_models(whole, model.fit(*texture_images))
    Fragile.n_left = 0  # it is finished
    same_models(whole, model.fit(*texture_images))
    assert len(list(tmp_path.glob("training-*.checkpoint"))) == 1
    Fragile.n_left = np.inf
    model.fit(*(each[:-3] for each in texture_images))  # in a folder, each has its own file
    assert len(list(tmp_path.glob("training-*.checkpoint"))) == 2


@pytest.fixture(scope="module")
def done(tiny_backbone, texture_images, tmp_path_factory):
    """The checkpoint of one epoch."""
    register_backbone("fragile", Fragile, TAPS, USUAL)
    place = tmp_path_factory.mktemp("done") / "training.checkpoint"
    small(max_epochs=1, checkpoint=place).fit(*texture_images)
    return place.read_bytes()


def other_network(taps, preprocessing):
    return lambda _: register_backbone("fragile", Fragile, taps, preprocessing)


def saved_model(place):
    images = [np.full((8, 8), 0.1 * i) for i in range(8)]
    TransferClassifier("tiny", "random").fit(images, [*"abababab"]).save(place)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"random_state": 1}, r"another training \(.*seeds: .*give another"),
        ({"trainable": "last"}, "trainable: 'all', now 'last'"),
        ({"image_size": 17}, "image_size: 16, now 17"),
        ({"images": lambda images: [np.clip(images[0] + 0.01, 0, 1), *images[1:]]}, "data: "),
        ({"y": lambda labels: labels[[1, 0, *range(2, 24)]]}, "data: "),
        ({"groups": np.arange(24) // 2}, "data: "),
        (other_network(["1", "4"], USUAL), "taps: "),
        (other_network(TAPS, Preprocessing(mean=(0.5,) * 3, minimum_size=4)), "preprocessing: "),
        (lambda place: place.write_bytes(place.read_bytes()[:-5]), "damaged.*delete the file"),
        (lambda place: place.write_bytes(b"\x80\x04pickle"), "a Python pickle"),
        (saved_model, "expected a model of kind 'training_checkpoint'"),
        ({"random_state": None}, "checkpoint needs an integer random_state"),
        ({"checkpoint": "absent/"}, "there is no folder .*absent; create it"),
        ({"checkpoint": "absent/training.checkpoint"}, "there is no folder .*absent; create it"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(change, words, done, texture_images, tmp_path):
    place = tmp_path / "training.checkpoint"
    place.write_bytes(done)
    given = dict(zip(("images", "y"), texture_images, strict=True))
    parameters = {"max_epochs": 1, "checkpoint": place}
    if callable(change):
        change(place)
        change = {}
    for name, value in change.items():
        if name in ("images", "y", "groups"):
            given[name] = value(given[name]) if callable(value) else value
        else:
            parameters[name] = f"{tmp_path}/{value}" if name == "checkpoint" else value
    Fragile.n_left = 0
    with pytest.raises(ValueError, match=words):
        small(**parameters).fit(**given)
