"""Resizing and normalising for a network, against torch and naive loops."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from torch.nn import functional

from hypervlad.features import Preprocessing
from hypervlad.features.backbones.preprocessing import axis_weights

PLAIN = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def test_grey_and_repeated_grey_are_the_same_input() -> None:
    grey = np.random.default_rng(0).random((20, 30), dtype=np.float32)
    colour = np.repeat(grey[:, :, None], 3, axis=2)
    a, b = (Preprocessing().prepare(pixels, (16, 16)) for pixels in (grey, colour))
    assert a.shape == (3, 16, 16)
    torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


def test_preparing_normalises_each_channel_and_averages_for_a_grey_network() -> None:
    pixels = np.zeros((4, 4, 3), dtype=np.float32)
    pixels[..., 0] = 0.9
    normal = Preprocessing((0.1, 0.2, 0.3), (0.5, 0.5, 0.1)).prepare(pixels, (4, 4))
    assert normal[:, 0, 0].tolist() == pytest.approx([1.6, -0.4, -3.0])
    assert Preprocessing((0.0,), (1.0,)).prepare(pixels, (4, 4))[0, 0, 0] == pytest.approx(0.3)


def filtered(x: float, mode: str) -> float:
    """Return the triangle, or Keys' cubic with -0.5."""
    x = abs(x)
    if mode == "bilinear":
        return max(0.0, 1 - x)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("n_in", "n_out"), [(64, 7), (5, 12), (1, 4), (100, 1)])
def test_weights_of_an_axis_equal_a_loop(n_in: int, n_out: int, mode: str) -> None:
    wide = max(n_in / n_out, 1.0)
    expected = np.zeros((n_out, n_in))
    for row in range(n_out):
        centre = (row + 0.5) * n_in / n_out
        for column in range(n_in):
            expected[row, column] = filtered((column + 0.5 - centre) / wide, mode)
        expected[row] /= expected[row].sum()
    found = axis_weights(n_in, n_out, mode).toarray()
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("shape", "size"), [((50, 37), (32, 17)), ((41, 90, 3), (50, 100)), ((50, 37), (64, 37))]
)
def test_resizing_is_torchs(
    shape: tuple[int, ...], size: tuple[int, int], mode: Literal["bilinear", "bicubic"]
) -> None:
    pixels = np.random.default_rng(0).random(shape, dtype=np.float32)
    image = torch.from_numpy(np.atleast_3d(pixels)).permute(2, 0, 1)[None].double()
    theirs = functional.interpolate(image, size, mode=mode, antialias=True)[0].clamp(0, 1)
    ours = replace(PLAIN, interpolation=mode).prepare(pixels, size)
    torch.testing.assert_close(ours, theirs.float().expand(3, *size), atol=1e-6, rtol=0)
