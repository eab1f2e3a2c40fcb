"""Batch normalisations folded away: the same maps, where the graph allows it, else as it was."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import hypervlad
from hypervlad import HypercolumnVLAD, register_backbone
from hypervlad.backbones import Preprocessing, backbone_names, build_network, get_backbone
from hypervlad.backbones.folding import folded, pairs_of

N_LEFT = {  # densely connected layers normalise before they convolve
    "alexnet": 0,
    "convnext_tiny": 0,
    "densenet121": 62,
    "densenet201": 102,
    "efficientnet_b0": 0,
    "inception_v3": 0,
    "mobilenet_v2": 0,
    "resnet18": 0,
    "resnet50": 0,
    "vgg16": 0,
    "vgg19": 0,
}


class Block(torch.nn.Module):
    """Two convolutions and two normalisations, called as ``order`` says."""

    def __init__(self, order: str) -> None:
        super().__init__()
        self.order = order
        self.conv = torch.nn.Conv2d(3, 3, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(3)
        self.other = torch.nn.Conv2d(3, 3, 1)
        self.other_norm = torch.nn.BatchNorm2d(3)
        self.rectify = torch.nn.ReLU(inplace=True)
        self.stem = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Conv2d(3, 3, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.order == "in turn":
            return self.other_norm(self.other(torch.relu(self.norm(self.conv(x)))))
        if self.order == "normalised first":
            return self.other(self.conv(self.norm(x)))
        if self.order == "something between":
            return self.norm(torch.relu(self.conv(x)))
        if self.order == "changed in place":
            return self.norm(self.rectify(self.conv(x)))
        if self.order == "end of a block":
            return self.norm(self.stem(x))
        return self.norm(self.conv(self.norm(self.conv(x))))  # called twice


def lively(module: torch.nn.Module) -> torch.nn.Module:
    """Give normalisations statistics and weights of trained ones, not zeros and ones."""
    generator = torch.Generator().manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            n = layer.num_features
            layer.running_mean.copy_(0.1 * torch.randn(n, generator=generator))
            layer.running_var.copy_(0.5 + torch.rand(n, generator=generator))
            layer.weight.data.copy_(0.5 + torch.rand(n, generator=generator))
            layer.bias.data.copy_(0.1 * torch.randn(n, generator=generator))
    return module.eval().requires_grad_(False)


def n_norms(module: torch.nn.Module) -> int:
    return sum(isinstance(layer, torch.nn.BatchNorm2d) for layer in module.modules())


def test_every_network_of_torchvision_is_tested_here() -> None:
    assert set(N_LEFT) == {n for n in backbone_names() if get_backbone(n).torchvision_name}


@pytest.mark.parametrize("name", N_LEFT)
def test_networks_answer_as_before(name: str) -> None:
    module = lively(get_backbone(name).builder())
    before = {key: value.clone() for key, value in module.state_dict().items()}
    side = get_backbone(name).preprocessing.minimum_size
    images = torch.rand(1, 3, max(64, side), max(64, side))
    lighter = folded(module, pairs_of(module, images))
    assert n_norms(lighter) == N_LEFT[name]
    assert (lighter is module) == (n_norms(module) == 0)
    assert [n for n, _ in lighter.named_modules()] == [n for n, _ in module.named_modules()]
    expected = module(images)
    near = 1e-4 * float(expected.abs().max())
    torch.testing.assert_close(lighter(images), expected, rtol=0, atol=near)
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key]), f"{key} of the original has changed"


@pytest.mark.parametrize(
    ("order", "n_left"),
    [
        ("in turn", 0),
        ("normalised first", 2),
        ("something between", 2),
        ("changed in place", 2),
        ("end of a block", 1),
        ("called twice", 2),
    ],
)
def test_what_follows_what_is_seen_in_a_pass(order: str, n_left: int) -> None:
    module = lively(Block(order))
    x = torch.randn(2, 3, 8, 8)
    lighter = folded(module, pairs_of(module, x))
    assert n_norms(lighter) == n_left
    torch.testing.assert_close(lighter(x), module(x))
    assert not any(layer._forward_hooks for layer in module.modules())


def test_blocks_that_end_in_a_convolution_give_its_output_too() -> None:
    module = lively(Block("end of a block"))
    (pair,) = pairs_of(module, torch.randn(1, 3, 8, 8))
    assert (pair.conv, pair.norm, pair.givers) == ("stem.1", "norm", ("stem.1", "stem"))


def test_layers_that_are_not_folded_are_shared() -> None:
    module = lively(get_backbone("densenet121").builder())
    lighter = folded(module, pairs_of(module, torch.rand(1, 3, 64, 64)))
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


def test_networks_whose_code_is_not_known_stay_as_they_are(tmp_path: Path) -> None:
    register_backbone("normed", lambda: Block("in turn"), ["other_norm"], Preprocessing())
    network = build_network("normed", "random")
    assert network.module is network.original
    assert n_norms(network.module) == 2


def test_networks_are_built_while_others_work() -> None:
    """Nothing of torch itself is changed meanwhile, as tracing would do."""
    images = torch.rand(1, 3, 64, 64)
    network = build_network("resnet18", "random", ["layer1"])
    expected = network(images)[0]

    def work(number: int) -> torch.Tensor:
        built = build_network("resnet18", "random", ["layer1"]) if number % 2 else network
        return built(images)[0]

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(work, range(24)):
            torch.testing.assert_close(found, expected)


def test_a_model_file_holds_the_weights_as_they_came(tmp_path: Path) -> None:
    images = list(np.random.default_rng(0).random((6, 32, 32)))
    encoder = HypercolumnVLAD(
        "resnet18",
        weights="random",
        taps=["layer1"],
        image_size=32,
        n_codewords=2,
        n_samples=100,
        random_state=0,
    ).fit(images)
    encoder.save(tmp_path / "m.hvlad", include_backbone=True)
    loaded = hypervlad.load(tmp_path / "m.hvlad")
    assert "bn1.running_var" in loaded.backbone_state_
    np.testing.assert_array_equal(loaded.transform(images), encoder.transform(images))
