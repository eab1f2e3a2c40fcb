"""The encoder with real weights, on real images: an oracle, and order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.oracle import check_against_oracle

import hypervlad
from hypervlad import HypercolumnVLAD, make_tem_images


@pytest.mark.real
@pytest.mark.parametrize("n_codewords", [64, 200])
@pytest.mark.parametrize("codebook", ["joint", "per_layer"])
def test_real_images_and_weights_agree_with_the_oracle(
    codebook: str, n_codewords: int, shared: Path, mobilenet_weights: Path
) -> None:
    data = hypervlad.load_image_folder(shared / "data" / "nanofibre")
    images = [hypervlad.read_image(path)[:200, :260] for path in data.images[:4]]
    options = {"weights": str(mobilenet_weights), "n_codewords": n_codewords}
    check_against_oracle(images, "mobilenet_v2", codebook, **options)


@pytest.mark.real
@pytest.mark.slow
def test_the_order_does_not_change_a_codebook_of_a_real_network(mobilenet_weights: Path) -> None:
    images, _ = make_tem_images(24, random_state=0)
    order = np.random.default_rng(0).permutation(24)
    encoder = HypercolumnVLAD(n_codewords=32, sampling=10_000, random_state=0)
    first = encoder.fit(list(images)).codebook_.to_arrays()
    second = encoder.fit([images[i] for i in order]).codebook_.to_arrays()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)
