"""For every family of networks: the factorised dense encoding against a float64 oracle."""

from __future__ import annotations

import pytest
from support.oracle import check_against_oracle

from hypervlad import make_tem_images

FAMILIES = ["alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "inception_v3"]
FAMILIES += ["mobilenet_v2", "resnet18", "vgg16"]


@pytest.mark.parametrize(
    ("name", "codebook"),
    [*((name, "joint") for name in FAMILIES), ("mobilenet_v2", "per_layer")],
)
def test_every_family_agrees_with_the_oracle(name: str, codebook: str) -> None:
    images, _ = make_tem_images(4, size=(90, 130), random_state=0)
    check_against_oracle(images, name, codebook, weights="random", n_codewords=16)
