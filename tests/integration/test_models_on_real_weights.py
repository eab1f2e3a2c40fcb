"""`PatchDefectScorer` and `TransferClassifier` with the default network and its real weights."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from hypervlad import PatchDefectScorer, load_image_folder
from hypervlad.data import make_fibre_images
from hypervlad.models import TransferClassifier

pytestmark = [
    pytest.mark.real,
    pytest.mark.full,  # a pretrained network, over and over
    pytest.mark.filterwarnings("ignore:fine-tuning is validated on:UserWarning"),
]


def test_a_particle_on_a_fibre_mat_is_found_at_its_place(mobilenet_weights):
    mats, _ = make_fibre_images(11, diameter=7, cover=0.8, size=(160, 200), random_state=0)
    scorer = PatchDefectScorer(random_state=0).fit(mats[:10])
    y, x = np.mgrid[:160, :200]
    inside = np.hypot(y - 60, x - 120) < 18
    image = np.where(inside, 0.85 + 0.02 * np.sin(y), mats[10]).astype(np.float32)
    found = scorer.score_map(image)
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert np.hypot(row - 60, column - 120) < 25
    assert roc_auc_score(inside.ravel(), found.ravel()) > 0.9


@pytest.mark.parametrize("mode", ["features", "finetune"])
def test_steel_defects_are_told_apart(mode, mobilenet_weights, shared):
    data = load_image_folder(shared / "data" / "neu_steel")
    images, labels = np.array(data.images), np.array(data.target)
    train = np.arange(len(images)) % 50 < 12
    test = np.arange(len(images)) % 50 >= 42
    model = TransferClassifier(mode=mode, image_size=128, max_epochs=2, random_state=0)
    model.fit(list(images[train]), labels[train])
    assert model.score(list(images[test]), labels[test]) > 0.7
