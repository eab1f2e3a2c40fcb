"""The encoder with real weights, on real images: an oracle, and order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.networks import torchvisions_own
from support.oracle import check_against_oracle

import hypervlad
from hypervlad import HypercolumnVLAD, make_tem_images


@pytest.mark.real
@pytest.mark.parametrize(("codebook", "n_codewords"), [("joint", 200), ("per_layer", 16)])
def test_real_images_and_weights_agree_with_the_oracle(
    codebook: str, n_codewords: int, shared: Path, mobilenet_weights: Path
) -> None:
    data = hypervlad.load_image_folder(shared / "data" / "nanofibre")
    images = [hypervlad.read_image(path)[:120, :160] for path in data.images[:4]]
    module = torchvisions_own("mobilenet_v2")
    module.load_state_dict(torch.load(mobilenet_weights), strict=False)
    check_against_oracle(images, "mobilenet_v2", codebook, module=module, n_codewords=n_codewords)


@pytest.mark.real
@pytest.mark.full  # two codebooks of 24 images at 224 pixels
def test_the_order_does_not_change_a_codebook_of_a_real_network(mobilenet_weights: Path) -> None:
    images, _ = make_tem_images(24, random_state=0)
    order = np.random.default_rng(0).permutation(24)
    encoder = HypercolumnVLAD(n_codewords=32, sampling=10_000, random_state=0)
    first = encoder.fit(list(images)).fingerprint()
    assert encoder.fit([images[i] for i in order]).fingerprint() == first
