"""Folding batch normalisations: the same maps where the graph allows it, otherwise no change."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.norms import lively, n_norms

from hypervlad import register_backbone
from hypervlad.features import Preprocessing
from hypervlad.features.backbones import build_network
from hypervlad.features.backbones.folding import fold_norms


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
def test_the_order_of_layers_is_observed_in_a_pass(order: str, n_left: int) -> None:
    module = lively(Block(order))
    x = torch.randn(2, 3, 8, 8)
    lighter = fold_norms(module, x)
    assert n_norms(lighter) == n_left
    torch.testing.assert_close(lighter(x), module(x))
    assert not any(layer._forward_hooks for layer in module.modules())


@pytest.mark.parametrize(("tap", "n_left"), [("stem.1", 2), ("stem", 2), ("norm", 1)])
def test_a_tapped_convolution_or_block_that_ends_in_it_is_not_folded(tap: str, n_left: int) -> None:
    module = lively(Block("end of a block"))
    assert n_norms(fold_norms(module, torch.randn(1, 3, 8, 8), [tap])) == n_left


def test_registered_networks_are_not_folded(tmp_path: Path) -> None:
    register_backbone("normed", lambda: Block("in turn"), ["other_norm"], Preprocessing())
    network = build_network("normed", "random")
    assert network.module is network.original
    assert n_norms(network.module) == 2
