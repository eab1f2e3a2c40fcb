"""The receptive fields of torchvision's networks, and tiles with that margin."""

from __future__ import annotations

import pytest
import torch

from hypervlad.features.backbones import Reach, build_network, reach_of


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
