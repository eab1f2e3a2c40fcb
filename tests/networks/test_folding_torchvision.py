"""Batch normalisations folded in the networks of torchvision: the same maps."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from support.norms import lively, n_norms

import hypervlad
from hypervlad import HypercolumnVLAD
from hypervlad.features import get_backbone
from hypervlad.features.backbones import build_network
from hypervlad.features.backbones.folding import fold_norms

N_LEFT = {  # densely connected layers normalise before they convolve
    "convnext_tiny": 0,
    "densenet121": 62,
    "efficientnet_b0": 0,
    "inception_v3": 0,
    "mobilenet_v2": 0,
    "resnet18": 0,
    "vgg16_bn": 0,
}


@pytest.mark.parametrize("name", N_LEFT)
def test_folded_networks_have_the_same_output(name: str) -> None:
    module = lively(get_backbone(name).builder())
    # The rows of a dense layer share memory: `tests/networks/conftest.py`.
    state = {k: v[:1] if v.stride()[:1] == (0,) else v for k, v in module.state_dict().items()}
    before = {key: value.clone() for key, value in state.items()}
    side = get_backbone(name).preprocessing.minimum_size
    images = torch.rand(1, 3, max(64, side), max(64, side))
    lighter = fold_norms(module, images)
    assert n_norms(lighter) == N_LEFT[name]
    assert (lighter is module) == (n_norms(module) == 0)
    assert [n for n, _ in lighter.named_modules()] == [n for n, _ in module.named_modules()]
    expected = module(images)
    near = 1e-4 * float(expected.abs().max())
    torch.testing.assert_close(lighter(images), expected, rtol=0, atol=near)
    for key, value in state.items():
        assert torch.equal(value, before[key]), f"{key} of the original has changed"


def test_layers_that_are_not_folded_are_shared() -> None:
    module = lively(get_backbone("densenet121").builder())
    lighter = fold_norms(module, torch.rand(1, 3, 64, 64))
    theirs, own = dict(module.named_parameters()), dict(lighter.named_parameters())
    name = "features.denseblock1.denselayer1.conv2.weight"
    assert own[name] is theirs[name]


def test_a_tapped_convolution_keeps_its_own_output() -> None:
    taps = ["conv1", "bn1", "layer1.0.conv1", "layer1"]
    network = build_network("resnet18", "random", taps)
    images = torch.rand(1, 3, 64, 64)
    seen = network.original.conv1(images)
    torch.testing.assert_close(network(images)[0], seen)
    torch.testing.assert_close(network(images)[1], network.original.bn1(seen))
    assert n_norms(network.module) == 2


def test_networks_are_built_while_others_run() -> None:
    """Unlike tracing, building does not change the state of torch meanwhile."""
    images = torch.rand(1, 3, 64, 64)
    network = build_network("resnet18", "random", ["layer1"])
    expected = network(images)[0]

    def work(number: int) -> torch.Tensor:
        built = build_network("resnet18", "random", ["layer1"]) if number % 2 else network
        return built(images)[0]

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(work, range(24)):
            torch.testing.assert_close(found, expected)


def test_a_model_file_contains_the_original_weights(tmp_path: Path) -> None:
    images = list(np.random.default_rng(0).random((6, 32, 32)))
    encoder = HypercolumnVLAD(
        "resnet18",
        weights="random",
        taps=["layer1"],
        image_size=32,
        n_codewords=2,
        sampling=100,
        random_state=0,
    ).fit(images)
    encoder.save(tmp_path / "m.hvlad", include_backbone=True)
    loaded = hypervlad.load(tmp_path / "m.hvlad")
    assert "bn1.running_var" in loaded.backbone_state_
    np.testing.assert_array_equal(loaded.transform(images), encoder.transform(images))
