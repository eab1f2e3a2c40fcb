"""The encoder on a network of torchvision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hypervlad import HypercolumnVLAD, make_tem_images


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
