"""`TransferClassifier` on networks of torchvision and timm: features, fine-tuning, files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from sklearn.base import clone
from support.fine_tuning import keep_the_last_epoch

import hypervlad
from hypervlad.features import get_backbone
from hypervlad.features.backbones import build_network
from hypervlad.models import TransferClassifier
from hypervlad.models.baselines.finetuning import imagenet_size

Images = tuple[list[np.ndarray], np.ndarray]

pytestmark = pytest.mark.filterwarnings("ignore:fine-tuning is validated on:UserWarning")

TORCHVISIONS = [
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "inception_v3",
    "mobilenet_v2",
    "resnet18",
]


@pytest.mark.parametrize("name", [*TORCHVISIONS, "timm/test_vit", "timm/test_efficientnet"])
def test_every_backbone(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_the_last_epoch(monkeypatch)
    rng = np.random.default_rng(0)
    images = [rng.random((40, 50)).astype(np.float32) for _ in range(8)]
    labels = ["a", "b"] * 4
    side = get_backbone(name).preprocessing.minimum_size
    model = TransferClassifier(name, "random", image_size=side, batch_size=4, random_state=0)
    plain = model.fit(images, labels).predict_proba(images)
    tuned = clone(model).set_params(mode="finetune", max_epochs=1).fit(images, labels)
    # The last resolution learns: more than the head, less than everything.
    state = tuned._network().original.state_dict()
    n_learnt = sum(value.size for value in tuned.network_state_.values())
    assert 0 < n_learnt < sum(value.numel() for value in state.values())
    for each, expected in ((model, plain), (tuned, tuned.predict_proba(images))):
        assert np.isfinite(expected).all()
        each.save(tmp_path / "m.hvlad")
        loaded = hypervlad.load(tmp_path / "m.hvlad")
        np.testing.assert_array_equal(loaded.predict_proba(images), expected)


def test_pooled_features_are_torchvisions_own() -> None:
    """What torchvision's networks give their last layer, where that is an average of maps."""
    for name in ("mobilenet_v2", "resnet18", "densenet121", "efficientnet_b0"):
        images = [np.random.default_rng(i).random((64, 64)).astype(np.float32) for i in range(4)]
        model = TransferClassifier(name, "random", image_size=64, random_state=0)
        model.fit(images, ["a", "b"] * 2)
        full = torchvision.models.get_model(name, weights=None).eval()
        full.load_state_dict(model._network().original.state_dict(), strict=False)
        last = full.fc if hasattr(full, "fc") else full.classifier
        seen: list[torch.Tensor] = []
        last.register_forward_pre_hook(lambda _m, inputs, seen=seen: seen.append(inputs[0]))
        preprocessing = get_backbone(name).preprocessing
        batch = torch.stack([preprocessing.prepare(image, (64, 64)) for image in images])
        with torch.no_grad():
            full(batch)
        expected = seen[0].numpy()
        np.testing.assert_allclose(model._encode(images).vectors, expected, rtol=2e-3, atol=1e-5)


def test_imagenet_sizes() -> None:
    assert imagenet_size(get_backbone("inception_v3")) == 299
    assert {imagenet_size(get_backbone(name)) for name in TORCHVISIONS} == {224, 299}


def test_frozen_running_statistics(texture_images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = texture_images
    keep_the_last_epoch(monkeypatch)
    model = TransferClassifier(
        "mobilenet_v2", "random", mode="finetune", trainable="all", image_size=32, max_epochs=1
    ).fit(images, labels)
    before = build_network("mobilenet_v2", "random").original.state_dict()
    after = model._network().original.state_dict()
    for name, value in before.items():
        is_statistic = "running" in name or "num_batches" in name
        assert torch.equal(value, after[name]) == is_statistic, name
