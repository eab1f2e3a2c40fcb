"""`TransferClassifier` with ImageNet's weights, on made textures and on real micrographs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.fine_tuning import keep_the_last_epoch

import hypervlad
from hypervlad.models import TransferClassifier

Images = tuple[list[np.ndarray], np.ndarray]

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore:fine-tuning is validated on:UserWarning"),
]


def test_the_first_epoch_does_not_destroy_the_features(
    mobilenet_weights: Path, texture_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = texture_images
    keep_the_last_epoch(monkeypatch)
    model = TransferClassifier(mode="finetune", trainable="all", image_size=64, random_state=0)
    model.set_params(max_epochs=1, batch_size=8).fit(images, labels)
    before = TransferClassifier(image_size=64).fit(images, labels)._encode(images).vectors
    spread = np.sqrt(((before - before.mean(axis=0)) ** 2).sum(axis=1).mean())
    drift = np.linalg.norm(model._encode(images).vectors - before, axis=1).mean()
    assert 0 < drift < 0.2 * spread


@pytest.mark.parametrize("mode", ["features", "finetune"])
def test_steel_defects_are_told_apart(mode: Any, mobilenet_weights: Path, shared: Path) -> None:
    data = hypervlad.load_image_folder(shared / "data" / "neu_steel")
    images, labels = np.array(data.images), np.array(data.target)
    train = np.arange(len(images)) % 50 < 12
    test = np.arange(len(images)) % 50 >= 42
    model = TransferClassifier(mode=mode, image_size=128, max_epochs=2, random_state=0)
    model.fit(list(images[train]), labels[train])
    assert model.score(list(images[test]), labels[test]) > 0.7
