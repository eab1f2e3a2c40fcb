"""Taps, sizes and state dicts of every backbone of torchvision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hypervlad.backbones import backbone_names, build_network, get_backbone, tap_names
from hypervlad.backbones.weights import published_weights

FAMILIES = ["alexnet", "convnext_tiny", "densenet121", "densenet201", "efficientnet_b0"]
FAMILIES += ["inception_v3", "mobilenet_v2", "resnet18", "resnet50", "vgg16", "vgg19"]


def test_all_documented_backbones_are_registered() -> None:
    assert set(FAMILIES) <= set(backbone_names())


@pytest.mark.parametrize("name", FAMILIES)
def test_default_taps_are_valid_and_need_no_forward_pass_to_list(name: str) -> None:
    assert set(get_backbone(name).taps) <= set(tap_names(name))


@pytest.mark.parametrize("name", ["alexnet", "mobilenet_v2", "resnet18"])
def test_minimum_size_is_enough_for_the_deepest_tap(name: str) -> None:
    side = get_backbone(name).preprocessing.minimum_size
    maps = build_network(name, "random")(torch.rand(1, 3, side, side))
    assert all(min(layer.shape) >= 1 for layer in maps)


def test_paper_taps_of_vgg16_have_1472_channels() -> None:
    maps = build_network("vgg16", "random")(torch.rand(1, 3, 32, 32))
    assert sum(layer.shape[1] for layer in maps) == 1472
    assert all((layer >= 0).all() for layer in maps), "the taps come after the ReLU"


def test_residual_networks_keep_a_tap_that_is_added_to_in_place() -> None:
    batch = torch.randn(1, 3, 32, 32)
    taps = ["layer1.0.bn2", "layer2"]
    deep = build_network("resnet18", "random", taps)(batch)[0]
    alone = build_network("resnet18", "random", taps[:1])(batch)[0]
    torch.testing.assert_close(deep, alone)


def test_the_default_network_is_that_of_torchvision() -> None:
    """Layer by layer, with the same random numbers and the same result."""
    import torchvision

    own, theirs = (
        _random_network(builder)
        for builder in (get_backbone("mobilenet_v2").builder, torchvision.models.mobilenet_v2)
    )
    for (name, tensor), (other, expected) in zip(
        own.state_dict().items(), theirs.state_dict().items(), strict=True
    ):
        assert name == other
        torch.testing.assert_close(tensor, expected, rtol=0, atol=0)
    assert [name for name, _ in own.named_modules()] == [name for name, _ in theirs.named_modules()]
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(own(images), theirs(images))


def _random_network(builder: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return builder().eval()


def test_the_weights_of_the_default_network_are_where_torchvision_has_them() -> None:
    import torchvision

    entry = torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1
    assert published_weights("mobilenet_v2") == (entry.url, entry.meta["_file_size"])


def test_a_mistyped_tap_gets_a_suggestion() -> None:
    with pytest.raises(ValueError, match=r"Did you mean 'features\.3'"):
        build_network("vgg16", "random", ["feature.3"])


@pytest.mark.parametrize("name", ["mobilenet_v2", "densenet121", "convnext_tiny", "resnet18"])
def test_torchvisions_whole_state_dicts_fit_without_the_head(name: str, tmp_path: Path) -> None:
    import torchvision

    state = torchvision.models.get_model(name, weights=None).state_dict()
    if name == "densenet121":  # as its published file has it
        state = {
            key.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2.")
            if "denselayer" in key
            else key: value
            for key, value in state.items()
        }
    torch.save(state, tmp_path / "w.pth")
    maps = build_network(name, tmp_path / "w.pth")(torch.rand(1, 3, 32, 32))
    assert all(torch.isfinite(layer).all() for layer in maps)
