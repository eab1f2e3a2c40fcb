"""Batch normalisations folded away: the same maps, where the graph allows it, else as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import hypervlad
from hypervlad import HypercolumnVLAD, register_backbone
from hypervlad.backbones import Preprocessing, build_network, get_backbone
from hypervlad.backbones.folding import folded

N_LEFT = {  # densely connected layers normalise before they convolve
    "mobilenet_v2": 0,
    "resnet18": 0,
    "inception_v3": 0,
    "efficientnet_b0": 0,
    "densenet121": 62,
    "vgg16": 0,
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

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.order == "in turn":
            return self.other_norm(self.other(torch.relu(self.norm(self.conv(x)))))
        if self.order == "normalised first":
            return self.other(self.conv(self.norm(x)))
        if self.order == "output used twice":
            seen = self.conv(x)
            return self.norm(seen) + seen
        if self.order == "called twice":
            return self.norm(self.conv(self.norm(self.conv(x))))
        return self.norm(self.conv(x)) if x.mean() > 0 else x  # no graph: it depends on values


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


@pytest.mark.parametrize("name", N_LEFT)
def test_networks_answer_as_before(name: str) -> None:
    module = lively(get_backbone(name).builder())
    before = {key: value.clone() for key, value in module.state_dict().items()}
    lighter = folded(module)
    assert n_norms(lighter) == N_LEFT[name]
    assert (lighter is module) == (n_norms(module) == 0)
    assert [n for n, _ in lighter.named_modules()] == [n for n, _ in module.named_modules()]
    side = get_backbone(name).preprocessing.minimum_size
    images = torch.rand(1, 3, max(64, side), max(64, side))
    torch.testing.assert_close(lighter(images), module(images), rtol=1e-4, atol=1e-5)
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key]), f"{key} of the original has changed"


@pytest.mark.parametrize(
    ("order", "n_left"),
    [("in turn", 0), ("normalised first", 2), ("output used twice", 2), ("called twice", 2)],
)
def test_what_follows_what_is_read_from_the_graph(order: str, n_left: int) -> None:
    module = lively(Block(order))
    lighter = folded(module)
    assert n_norms(lighter) == n_left
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(lighter(x), module(x))


def test_a_network_without_a_graph_stays_as_it_is() -> None:
    module = lively(Block("by values"))
    assert folded(module) is module


def test_statistics_of_the_batch_cannot_be_folded() -> None:
    module = lively(Block("in turn"))
    module.norm.track_running_stats = False
    assert n_norms(folded(module)) == 1
    module.other_norm.train()
    assert folded(module) is module


def test_layers_that_are_not_folded_are_shared() -> None:
    module = lively(get_backbone("densenet121").builder())
    lighter = folded(module)
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


def test_a_model_file_holds_the_weights_as_they_came(tmp_path: Path) -> None:
    register_backbone("normed", lambda: Block("in turn"), ["other_norm"], Preprocessing())
    images = list(np.random.default_rng(0).random((6, 32, 32)))
    encoder = HypercolumnVLAD(
        "normed", weights="random", image_size=32, n_codewords=2, n_samples=100, random_state=0
    ).fit(images)
    encoder.save(tmp_path / "m.hvlad", include_backbone=True)
    loaded = hypervlad.load(tmp_path / "m.hvlad")
    assert "norm.running_var" in loaded.backbone_state_
    np.testing.assert_array_equal(loaded.transform(images), encoder.transform(images))
