"""Networks of torchvision: vectors by a slow oracle on the maps of torchvision's own modules."""

import re

import numpy as np
import pytest
import torch
from support.networks import check_network, save_whole, torchvisions_own

import hypervlad
from hypervlad import HypercolumnVLAD, make_tem_images
from hypervlad.features import get_backbone
from hypervlad.models import TransferClassifier

NAMES = ["alexnet", "convnext_tiny", "densenet121", "densenet201", "efficientnet_b0"]
NAMES += ["inception_v3", "mobilenet_v2", "resnet101", "resnet18", "resnet34", "resnet50"]
NAMES += ["vgg16", "vgg16_bn", "vgg19"]
# Each large network takes seconds.
LARGE = [
    pytest.param(name, marks=pytest.mark.full)
    for name in ("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "inception_v3")
]


@pytest.fixture(scope="module")
def images():
    return make_tem_images(3, size=(70, 101), random_state=0)[0]


@pytest.mark.parametrize("name", ["mobilenet_v2", "vgg16", "resnet18", *LARGE])
def test_vectors_agree_with_the_oracle(name, images):
    """With normalisations folded into convolutions, where torchvision's module has them."""
    options = {"n_codewords": 16}
    if name == "inception_v3":  # it takes no smaller ones
        options["image_size"] = 75
    check_network(images, name, **options)


def test_taps_keep_what_later_layers_change(images):
    """A residual sum is added in place; a tapped convolution is not folded."""
    taps = ["layer1.0.bn2", "layer1.0.conv1", "conv1", "bn1", "layer2"]
    check_network(images, "resnet18", "per_layer", taps=taps, n_codewords=4)


@pytest.mark.parametrize(
    ("name", "weights", "prefix", "inside"),
    [
        ("resnet18", "micronet", "module.", ""),
        ("resnet18", "image-micronet", "module.encoder.", ""),
        pytest.param(
            *("densenet121", "image-micronet", "features.module.", "features."),
            marks=pytest.mark.full,  # a large network
        ),
    ],
)
def test_files_fit_as_they_are_published(name, weights, prefix, inside, tmp_path, monkeypatch):
    """Those of MicroNet have prefixes, and torchvision's first DenseNets other names of layers."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    module = torchvisions_own(name)
    plain = save_whole(module, tmp_path / "plain.pth")
    published = {}
    for key, value in module.state_dict().items():
        old = re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", key)
        published[prefix + old.removeprefix(inside)] = value
    assert not published.keys() & module.state_dict().keys()
    kind = {"micronet": "microscopynet", "image-micronet": "imagenet-microscopynet"}[weights]
    path = tmp_path / "hub" / "checkpoints" / f"{name}_pretrained_{kind}_v1.0.pth.tar"
    path.parent.mkdir(parents=True)
    checkpoint = {"epoch": 3, "arch": name, "state_dict": published, "best_acc1": torch.tensor(0.9)}
    torch.save(checkpoint, path)
    images = list(np.random.default_rng(0).random((2, 32, 32)))
    taps = get_backbone(name).taps[:1]
    encoder = HypercolumnVLAD(name, taps=taps, image_size=32, n_codewords=2)
    digests = {
        encoder.set_params(weights=each).fit(images).weights_digest_
        for each in (weights, path, plain)
    }
    assert len(digests) == 1


def test_a_model_file_contains_the_original_weights(tmp_path):
    """Not the folded ones, which no other version could use."""
    weights = save_whole(torchvisions_own("resnet18"), tmp_path / "w.pth")
    images = list(np.random.default_rng(0).random((6, 32, 32)))
    encoder = HypercolumnVLAD("resnet18", weights=weights, taps=["layer1"], image_size=32)
    encoder.set_params(n_codewords=2, random_state=0).fit(images)
    encoder.save(tmp_path / "m.hvlad", include_backbone=True)
    weights.unlink()
    loaded = hypervlad.load(tmp_path / "m.hvlad")
    np.testing.assert_array_equal(loaded.transform(images), encoder.transform(images))
    assert loaded.weights_digest_ == encoder.weights_digest_


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", *LARGE[2:4]])
def test_pooled_features_are_what_torchvision_gives_its_last_layer(name, tmp_path):
    module = torchvisions_own(name)  # whose head is replaced by one that returns its input
    weights = save_whole(module, tmp_path / "w.pth")
    images = list(np.random.default_rng(0).random((6, 64, 64), dtype=np.float32))
    model = TransferClassifier(name, weights, image_size=64, random_state=0)
    model.fit(images, ["a", "b"] * 3)
    prepare = get_backbone(name).preprocessing.prepare
    with torch.no_grad():
        features = module(torch.stack([prepare(image, (64, 64)) for image in images])).numpy()
    head = model.head_
    margins = ((features - head.mean) / head.scale) @ head.coef + head.intercept
    found = model.decision_function(images)
    expected = margins / head.temperature
    np.testing.assert_allclose(found, expected[:, 1] - expected[:, 0], rtol=2e-3, atol=1e-4)
