"""`PatchDefectScorer` and `TransferClassifier` with the default network and its real weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from support.surfaces import blotted

from hypervlad import PatchDefectScorer, load_image_folder
from hypervlad.data import make_nanofibre_images
from hypervlad.features import cut_patches
from hypervlad.models import TransferClassifier

pytestmark = [
    pytest.mark.real,
    pytest.mark.full,  # a pretrained network, over and over
    pytest.mark.filterwarnings("ignore:fine-tuning is validated on:UserWarning"),
]


def test_a_particle_on_a_fibre_mat_is_found_at_its_place(mobilenet_weights: Path) -> None:
    mats, _ = make_nanofibre_images(11, defective=0.0, size=(160, 200), random_state=0)
    scorer = PatchDefectScorer(random_state=0).fit(mats[:10])
    y, x = np.mgrid[:160, :200]
    inside = np.hypot(y - 60, x - 120) < 18
    image = np.where(inside, 0.85 + 0.02 * np.sin(y), mats[10]).astype(np.float32)
    found = scorer.score_map(image)
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert np.hypot(row - 60, column - 120) < 25
    assert roc_auc_score(inside.ravel(), found.ravel()) > 0.9


def test_patches_smaller_than_the_network_needs(mobilenet_weights: Path) -> None:
    """29 pixels, where the network takes images of 32 at least."""
    pairs = [blotted(seed, (40, 40), radius=10, size=(87, 87)) for seed in range(5)]
    images, masks = zip(*pairs, strict=True)
    patches = cut_patches(list(images), list(masks), stride=29)
    scorer = PatchDefectScorer(random_state=0).fit(list(patches.pixels), patches.labels)
    found = scorer.score_map(images[0])
    assert found[40, 40] > np.median(found)


@pytest.mark.parametrize("mode", ["features", "finetune"])
def test_steel_defects_are_told_apart(mode: Any, mobilenet_weights: Path, shared: Path) -> None:
    data = load_image_folder(shared / "data" / "neu_steel")
    images, labels = np.array(data.images), np.array(data.target)
    train = np.arange(len(images)) % 50 < 12
    test = np.arange(len(images)) % 50 >= 42
    model = TransferClassifier(mode=mode, image_size=128, max_epochs=2, random_state=0)
    model.fit(list(images[train]), labels[train])
    assert model.score(list(images[test]), labels[test]) > 0.7
