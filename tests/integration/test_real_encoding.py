"""The encoder with real weights, on real images: an oracle, and batches and order."""

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
    options = {"weights": str(mobilenet_weights), "image_size": 224}
    check_against_oracle(
        data.images[:4], "mobilenet_v2", codebook, n_codewords=n_codewords, **options
    )


@pytest.mark.real
@pytest.mark.slow
def test_batches_and_order_do_not_change_a_codebook_of_a_real_network(
    mobilenet_weights: Path,
) -> None:
    images, _ = make_tem_images(24, random_state=0)
    order = np.random.default_rng(0).permutation(24)
    encoders = [
        HypercolumnVLAD(n_codewords=32, n_samples=10_000, batch_size=size, random_state=0)
        for size in (24, 5)
    ]
    first = encoders[0].fit(list(images)).codebook_.to_arrays()
    second = encoders[1].fit([images[i] for i in order]).codebook_.to_arrays()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)
