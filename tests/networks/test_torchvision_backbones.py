"""Networks of torchvision: taps, sizes, state dicts, receptive fields, dense vectors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from support.oracle import check_against_oracle

from hypervlad import make_tem_images
from hypervlad.features import get_backbone, tap_names
from hypervlad.features.backbones import Reach, build_network, reach_of
from hypervlad.features.backbones.weights import published_weights

NAMES = ["alexnet", "convnext_tiny", "densenet121", "densenet201", "efficientnet_b0"]
NAMES += ["inception_v3", "mobilenet_v2", "resnet101", "resnet18", "resnet34", "resnet50"]
NAMES += ["vgg16", "vgg16_bn", "vgg19"]
FAMILIES = ["alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "inception_v3"]
FAMILIES += ["mobilenet_v2", "resnet18", "vgg16"]


@pytest.mark.parametrize("name", NAMES)
def test_default_taps_are_valid_and_need_no_forward_pass_to_list(name: str) -> None:
    assert set(get_backbone(name).taps) <= set(tap_names(name))


@pytest.mark.parametrize("name", ["alexnet", "mobilenet_v2", "resnet18"])
def test_minimum_size_is_enough_for_the_deepest_tap(name: str) -> None:
    side = get_backbone(name).preprocessing.minimum_size
    maps = build_network(name, "random")(torch.rand(1, 3, side, side))
    assert all(min(layer.shape) >= 1 for layer in maps)


@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn"])
def test_default_taps_of_vgg16_come_after_the_last_relu_of_a_resolution(name: str) -> None:
    maps = build_network(name, "random")(torch.rand(1, 3, 32, 64))
    assert [layer.shape[2] for layer in maps] == [32, 16, 8, 4, 2]
    assert all((layer >= 0).all() for layer in maps)


def test_residual_networks_keep_a_tap_that_is_added_to_in_place() -> None:
    batch = torch.randn(1, 3, 32, 32)
    taps = ["layer1.0.bn2", "layer2"]
    deep = build_network("resnet18", "random", taps)(batch)[0]
    alone = build_network("resnet18", "random", taps[:1])(batch)[0]
    torch.testing.assert_close(deep, alone)


def test_the_default_network_is_that_of_torchvision() -> None:
    """Layer by layer, with the same random numbers and the same result."""
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
    entry = torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1
    assert published_weights("mobilenet_v2") == (entry.url, entry.meta["_file_size"])


def test_a_mistyped_tap_gets_a_suggestion() -> None:
    with pytest.raises(ValueError, match=r"Did you mean 'features\.3'"):
        build_network("vgg16", "random", ["feature.3"])


@pytest.mark.parametrize(
    ("name", "weights", "prefix", "inside"),
    [
        ("resnet18", "micronet", "module.", ""),
        ("resnet18", "image-micronet", "encoder.", ""),
        ("resnet18", "micronet", "module.encoder.", ""),
        ("densenet121", "image-micronet", "features.module.", "features."),
    ],
)
def test_files_of_micronet_fit_as_they_are_published(
    name: str,
    weights: str,
    prefix: str,
    inside: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.manual_seed(5)
    state = torchvision.models.get_model(name, weights=None).state_dict()
    published = {
        prefix + key.removeprefix(inside) if key.startswith(inside) else key: value
        for key, value in state.items()
    }
    assert published.keys() != state.keys()
    url, _ = published_weights(name, weights)
    path = tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2]
    path.parent.mkdir(parents=True)
    checkpoint = {"epoch": 3, "arch": name, "state_dict": published, "best_acc1": torch.tensor(0.9)}
    torch.save(checkpoint, path)
    torch.save(state, tmp_path / "plain.pth")
    found = build_network(name, weights)
    assert found.digest == build_network(name, tmp_path / "plain.pth").digest
    assert found.digest == build_network(name, path).digest


def test_files_of_micronet_have_the_names_that_its_loader_knows() -> None:
    names = [
        published_weights(name, weights)[0].rpartition("/")[2]
        for name, weights in (
            ("resnet50", "micronet"),
            ("resnet50", "image-micronet"),
            ("vgg16_bn", "micronet"),
        )
    ]
    assert names == [
        "resnet50_pretrained_microscopynet_v1.1.pth.tar",
        "resnet50_pretrained_imagenet-microscopynet_v1.0.pth.tar",
        "vgg16_bn_pretrained_microscopynet_v1.0.pth.tar",
    ]


@pytest.mark.parametrize("name", ["densenet121", "convnext_tiny"])
def test_torchvisions_whole_state_dicts_fit_without_the_head(name: str, tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("name", "taps"),
    [("mobilenet_v2", ["features.6", "features.13"]), ("vgg16", ["features.8", "features.15"])],
)
def test_tiles_with_the_margin_have_the_maps_of_the_whole(name: str, taps: list[str]) -> None:
    network = build_network(name, "random", taps)
    reach = reach_of(network)
    assert reach is not None
    assert reach.margin is not None
    core, margin = 2 * reach.stride, reach.margin
    image = torch.randn(1, 3, 3 * margin + core, 2 * margin + core)
    whole, tile = network(image), network(image[:, :, : 2 * margin + core])
    for full, cut in zip(whole, tile, strict=True):
        stride = image.shape[-1] // full.shape[-1]
        rows = slice(margin // stride, (margin + core) // stride)
        torch.testing.assert_close(full[:, :, rows], cut[:, :, rows])
        assert not torch.equal(full[:, :, : cut.shape[2]], cut)  # beyond, the cut's edge shows


def test_networks_that_depend_on_the_whole_image_have_no_margin() -> None:
    squeeze_and_excitation = build_network("efficientnet_b0", "random")
    assert reach_of(squeeze_and_excitation) == Reach(stride=32, margin=None)
    assert reach_of(build_network("inception_v3", "random")) is None  # no padding


@pytest.mark.parametrize("name", FAMILIES)
def test_the_dense_encoding_agrees_with_the_oracle(name: str) -> None:
    images, _ = make_tem_images(4, size=(90, 130), random_state=0)
    for codebook in ("joint", "per_layer") if name == "mobilenet_v2" else ("joint",):
        check_against_oracle(images, name, codebook, weights="random", n_codewords=16)
