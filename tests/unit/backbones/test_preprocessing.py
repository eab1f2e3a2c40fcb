"""Resizing and normalising for a network, against torch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from hypervlad.features import Preprocessing

PLAIN = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def test_preparing_normalises_each_channel_and_averages_for_a_grey_network():
    pixels = np.zeros((4, 4, 3), dtype=np.float32)
    pixels[..., 0] = 0.9
    normal = Preprocessing((0.1, 0.2, 0.3), (0.5, 0.5, 0.1)).prepare(pixels, (4, 4))
    assert normal[:, 0, 0].tolist() == pytest.approx([1.6, -0.4, -3.0])
    assert Preprocessing((0.0,), (1.0,)).prepare(pixels, (4, 4))[0, 0, 0] == pytest.approx(0.3)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((50, 37), (32, 17)),
        ((41, 90, 3), (50, 100)),
        ((50, 37), (64, 37)),
        ((64, 1), (7, 4)),
        ((100, 5), (1, 12)),
    ],
)
def test_resizing_is_torchs(shape, size, mode):
    pixels = np.random.default_rng(0).random(shape, dtype=np.float32)
    image = torch.from_numpy(np.atleast_3d(pixels)).permute(2, 0, 1)[None].double()
    theirs = functional.interpolate(image, size, mode=mode, antialias=True)[0].clamp(0, 1)
    ours = replace(PLAIN, interpolation=mode).prepare(pixels, size)
    torch.testing.assert_close(ours, theirs.float().expand(3, *size), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "fields",
    [{"std": (0.0,) * 3}, {"mean": (0.5,)}, {"minimum_size": 0}, {"interpolation": "nearest"}],
)
def test_fields_out_of_range_are_refused(fields):
    with pytest.raises(ValueError):
        replace(PLAIN, **fields)
