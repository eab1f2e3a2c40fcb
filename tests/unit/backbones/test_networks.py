"""Tapped networks: in-place layers, order of maps, random weights, mistakes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch

from hypervlad.features import Backbone, Preprocessing, get_backbone, register_backbone
from hypervlad.features.backbones import Reach, build_network, ensure_registered, reach_of


def test_a_tap_before_an_in_place_layer_is_not_changed_by_it() -> None:
    plain = build_network("tiny", "random", ["0"])
    batch = torch.randn(1, 3, 8, 8)
    truth = torch.nn.functional.conv2d(
        batch, plain.module[0].weight, plain.module[0].bias, padding=1
    )
    assert (truth < 0).any()
    network = build_network("tiny", "random", ["0", "3"])
    torch.testing.assert_close(network(batch)[0], truth)
    torch.testing.assert_close(network(batch)[0], truth)


@pytest.mark.parametrize("taps", [["0", "3"], ["1", "4"], ["first", "0.0"]])
def test_a_callers_inference_mode_changes_nothing(taps: list[str]) -> None:
    name = "starts with nothing" if "first" in taps else "tiny"
    register_backbone("starts with nothing", _starts_with_nothing, ["first"])
    outside = torch.randn(2, 3, 8, 8)
    truth = build_network(name, "random", taps)(outside)
    with torch.inference_mode():
        inside = outside.clone()
        built_inside = build_network(name, "random", taps)
        answers = [built_inside(inside), build_network(name, "random", taps)(outside)]
    answers.append(built_inside(outside))
    answers.append(built_inside(inside))
    for maps in answers:
        torch.testing.assert_close(maps, truth)
        assert not any(layer.is_inference() for layer in maps)


def _starts_with_nothing() -> torch.nn.Module:
    """The first layer returns the batch itself, for any kind of tensor."""
    layers = {
        "first": torch.nn.Identity(),
        "0": torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(inplace=True)),
    }
    return torch.nn.Sequential(OrderedDict(layers))


def test_nothing_after_the_last_tap_runs() -> None:
    network = build_network("tiny", "random", ["1"])

    def fail(*_: object) -> None:
        raise AssertionError("ran past the last tap")

    network.module[2].register_forward_hook(fail)
    network(torch.rand(1, 3, 8, 8))
    assert not network.module[1]._forward_hooks, "hooks are taken off again"


def test_maps_come_in_the_order_requested() -> None:
    maps = build_network("tiny", "random", ["4", "1"])(torch.rand(1, 3, 8, 8))
    assert [layer.shape[1] for layer in maps] == [10, 6]


def test_random_weights_are_always_the_same_and_leave_torchs_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    digests = {build_network("tiny", "random").digest for _ in range(2)}
    assert len(digests) == 1
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: get_backbone("vgg15"), "unknown backbone 'vgg15'. Did you mean 'vgg1"),
        (lambda: get_backbone(None), "unknown backbone None"),
        (lambda: build_network("tiny", "random", ["9"]), "has no layer '9'.* Its layers: 0, 1, 2"),
        (lambda: build_network("tiny", "random", []), "taps must be one or more"),
        (lambda: build_network("tiny", "random", ["0", "0"]), "taps must be one or more"),
        (lambda: build_network("tiny"), "registered by you and has no published weights"),
        (lambda: build_network("tiny", "no/such.pth"), "no/such.pth: no such weights file"),
        (lambda: build_network("tiny", "n" * 5000 + ".pth"), "no such weights file"),
        (lambda: register_backbone("", torch.nn.Identity, ["0"]), "non-empty string"),
        (lambda: register_backbone("timm/own", torch.nn.Identity, ["0"]), "begin with timm/ are"),
        (lambda: register_backbone("x", 3, ["0"]), "builder of 'x' must be callable"),
        (lambda: register_backbone("x", torch.nn.Identity, []), "needs at least one tap"),
    ],
)
def test_mistakes_are_reported(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_builder_must_return_a_module() -> None:
    register_backbone("not_a_module", lambda: 7, ["0"])  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match=r"returned int, expected a torch\.nn\.Module"):
        build_network("not_a_module", "random")


def test_a_tap_without_a_map_is_rejected() -> None:
    def build() -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Conv2d(3, 1, 1), torch.nn.Flatten())

    register_backbone("flat", build, ["1"])
    network = build_network("flat", "random")
    with pytest.raises(ValueError, match=r"gives \(1, 16\), not a map"):
        network(torch.rand(1, 3, 4, 4))


def test_the_reach_of_convolutions() -> None:
    network = build_network("tiny", "random")
    assert reach_of(network) == Reach(stride=4, margin=12)
    assert network.stride() == 4
    assert reach_of(build_network("tiny", "random", ["1"])) == Reach(stride=1, margin=3)


@pytest.mark.slow  # tries images of up to 1120 x 1120 pixels
def test_the_reach_where_cells_depend_on_the_whole_image_or_have_no_regular_grid() -> None:
    layers = {"global": torch.nn.InstanceNorm2d(3, affine=True), "valid": torch.nn.Conv2d(3, 1, 3)}
    expected = {"global": Reach(stride=1, margin=None), "valid": None}
    for name, layer in layers.items():
        register_backbone(name, lambda layer=layer: torch.nn.Sequential(layer), ["0"])
        network = build_network(name, "random")
        assert reach_of(network) == expected[name]
        assert network.stride() == (expected[name] and expected[name].stride)


def test_backbones_of_other_processes_are_registered_once() -> None:
    backbone = Backbone("elsewhere", torch.nn.Identity, ("0",), Preprocessing())
    ensure_registered(backbone)
    ensure_registered(Backbone("elsewhere", torch.nn.Identity, ("1",), Preprocessing()))
    assert get_backbone("elsewhere") is backbone
