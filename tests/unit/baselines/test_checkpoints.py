"""A fine-tuning that is interrupted can be resumed, and gives the same model."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hypervlad import register_backbone
from hypervlad.common.modelfile import read_model, write_model
from hypervlad.features import Preprocessing, get_backbone
from hypervlad.models import TransferClassifier
from hypervlad.models.baselines.training import CheckpointError, Trainer

Images = tuple[list[np.ndarray], np.ndarray]
pytestmark = pytest.mark.filterwarnings("ignore:fine-tuning is validated on:UserWarning")


@pytest.fixture(scope="module")
def uninterrupted(texture_images: Images) -> Callable[[str], TransferClassifier]:
    """Models of trainings without interruption, each trained once."""
    return functools.cache(lambda trainable: small(trainable=trainable).fit(*texture_images))


class CutOffError(Exception):
    """The power failed."""


def small(**parameters: Any) -> TransferClassifier:
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
    return TransferClassifier("tiny", **usual | parameters)


def cut_off_after(monkeypatch: pytest.MonkeyPatch, epochs: int, *, kept: bool) -> None:
    """Let a training end as if killed, just after an epoch was kept, or just before."""
    original = Trainer._save_checkpoint

    def save(self: Trainer) -> None:
        if len(self.curves) == epochs and not kept:
            raise CutOffError
        original(self)
        if len(self.curves) == epochs:
            raise CutOffError

    monkeypatch.setattr(Trainer, "_save_checkpoint", save)


def same_models(one: TransferClassifier, other: TransferClassifier, images: Any) -> None:
    assert one.history_ == other.history_
    assert one.network_state_.keys() == other.network_state_.keys()
    for name, array in one.network_state_.items():
        np.testing.assert_array_equal(other.network_state_[name], array)
    np.testing.assert_array_equal(one.head_.coef, other.head_.coef)
    assert one.head_.temperature == other.head_.temperature
    np.testing.assert_array_equal(one.predict_proba(images), other.predict_proba(images))


@pytest.mark.parametrize("trainable", ["head", "all"])
def test_a_training_that_is_cut_off_again_and_again_gives_the_same_model(
    trainable: Any,
    texture_images: Images,
    uninterrupted: Callable[[str], TransferClassifier],
    tmp_path: Path,
) -> None:
    """Order, augmentation and dropout continue where they were."""
    images, labels = texture_images
    whole = uninterrupted(trainable)
    model = small(trainable=trainable, checkpoint=tmp_path)
    for epochs, kept in ((1, False), (1, True), (2, True), (3, False), (4, True)):
        torch.manual_seed(epochs)  # whatever happens in between
        with pytest.MonkeyPatch.context() as patch:
            cut_off_after(patch, epochs, kept=kept)
            with pytest.raises(CutOffError):
                model.fit(images, labels)
    assert not hasattr(model, "head_")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_learn", lambda *_: pytest.fail("it was finished"))
        same_models(whole, model.fit(images, labels), images)


def test_max_epochs_can_be_raised(
    texture_images: Images,
    uninterrupted: Callable[[str], TransferClassifier],
    tmp_path: Path,
) -> None:
    images, labels = texture_images
    place = tmp_path / "training.checkpoint"
    small(max_epochs=2, checkpoint=place).fit(images, labels)
    longer = small(max_epochs=4, checkpoint=place).fit(images, labels)
    same_models(uninterrupted("all"), longer, images)
    with pytest.raises(CheckpointError, match=r"4 epochs are already done, more than max_epochs=3"):
        small(max_epochs=3, checkpoint=place).fit(images, labels)


def test_a_checkpoint_of_other_parameters_is_refused(
    texture_images: Images, tmp_path: Path
) -> None:
    place = tmp_path / "training.checkpoint"
    small(max_epochs=1, checkpoint=place).fit(*texture_images)
    other = small(max_epochs=1, checkpoint=place, random_state=1, trainable="last", image_size=17)
    expected = r"image_size: 16, now 17; .*seeds: .*; trainable: 'all', now 'last'.*give another"
    with pytest.raises(CheckpointError, match=rf"another training \({expected}"):
        other.fit(*texture_images)
    with pytest.raises(ValueError, match="checkpoint needs an integer random_state"):
        other.set_params(random_state=None).fit(*texture_images)


def test_a_checkpoint_of_other_data_is_refused(texture_images: Images, tmp_path: Path) -> None:
    images, labels = texture_images
    place = tmp_path / "training.checkpoint"
    model = small(max_epochs=1, checkpoint=place).fit(images, labels)
    others = [np.clip(images[0] + 0.01, 0, 1), *images[1:]]
    swapped = labels[[1, 0, *range(2, 24)]]
    for data in ((others, labels), (images, swapped), (images[:-1], labels[:-1])):
        with pytest.raises(CheckpointError, match=r"another training .*data: "):
            model.fit(*data)
    with pytest.raises(CheckpointError, match=r"another training .*data: "):
        model.fit(images, labels, groups=np.arange(24) // 2)
    backwards = [images[i] for i in range(23, -1, -1)]
    model.fit(backwards, labels[::-1])  # the same images, in another order


def test_a_checkpoint_of_another_network_definition_is_refused(
    texture_images: Images, tmp_path: Path
) -> None:
    place = tmp_path / "training.checkpoint"
    model = small(max_epochs=1, trainable="last", checkpoint=place).fit(*texture_images)
    usual, build = Preprocessing(minimum_size=4), get_backbone("tiny").builder
    try:
        for taps, preprocessing, problem in (
            (["1", "4"], usual, "taps: "),
            (["1", "3", "4"], Preprocessing(mean=(0.5,) * 3, minimum_size=4), "preprocessing: "),
        ):
            register_backbone("tiny", build, taps, preprocessing)
            with pytest.raises(CheckpointError, match=f"another training .*{problem}"):
                model.fit(*texture_images)
    finally:
        register_backbone("tiny", build, ["1", "3", "4"], usual)


def test_a_checkpoint_without_a_tensor_is_refused(texture_images: Images, tmp_path: Path) -> None:
    place = tmp_path / "training.checkpoint"
    model = small(max_epochs=1, checkpoint=place).fit(*texture_images)
    content = read_model(place, kind="training_checkpoint")
    for prefix in ("network.head.weight", "best.head.bias", "optimiser.0"):
        fewer = {key: value for key, value in content.arrays.items() if not key.startswith(prefix)}
        assert len(fewer) < len(content.arrays)
        write_model(place, "training_checkpoint", content.header, fewer)
        with pytest.raises(CheckpointError, match="tensors are not those that this network trains"):
            model.fit(*texture_images)


def test_a_missing_output_folder_is_reported_before_images_are_read(tmp_path: Path) -> None:
    for place in ("absent/", "absent/training.checkpoint"):
        with pytest.raises(CheckpointError, match=r"there is no folder .*absent; create it"):
            small(checkpoint=f"{tmp_path}/{place}").fit(["no such image.png"] * 2, ["a", "b"])


def test_in_a_folder_each_training_has_its_own_file(texture_images: Images, tmp_path: Path) -> None:
    images, labels = texture_images
    model = small(max_epochs=1, checkpoint=tmp_path)
    model.fit(images, labels)
    model.fit(images[:-3], labels[:-3])
    model.fit(images, labels)
    assert len(list(tmp_path.glob("training-*.checkpoint"))) == 2


def test_a_checkpoint_is_no_pickle_and_damage_is_reported(
    texture_images: Images, tmp_path: Path
) -> None:
    place = tmp_path / "training.checkpoint"
    model = small(max_epochs=1, checkpoint=place).fit(*texture_images)
    place.write_bytes(place.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match=r"damaged.*delete the file"):
        model.fit(*texture_images)
    place.write_bytes(b"\x80\x04pickle")
    with pytest.raises(CheckpointError, match="a Python pickle"):
        model.fit(*texture_images)
    model.set_params(checkpoint=None).fit(*texture_images).save(place)
    with pytest.raises(CheckpointError, match="expected a model of kind 'training_checkpoint'"):
        model.set_params(checkpoint=place).fit(*texture_images)
