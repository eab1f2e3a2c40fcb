"""Resizing, bilinear enlargement and hypercolumns against torch and against naive loops."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from hypervlad.backbones import Preprocessing, build_network
from hypervlad.hypercolumns import (
    axis_interpolation,
    axis_weights,
    dense_hypercolumns,
    enlarge,
    feature_maps,
    hypercolumns_at,
    input_size,
    prepare,
)

PLAIN = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
sizes = st.integers(1, 9)


@given(n_in=st.integers(1, 20), factor=st.integers(1, 5), extra=st.integers(0, 3))
def test_axis_interpolation_is_torchs(n_in: int, factor: int, extra: int) -> None:
    n_out = n_in * factor + extra
    signal = torch.rand(n_in, generator=torch.Generator().manual_seed(n_in))
    low, high, weight = axis_interpolation(n_in, n_out)
    ours = torch.lerp(signal[low], signal[high], weight)
    theirs = functional.interpolate(signal[None, None], n_out, mode="linear")[0, 0]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@settings(deadline=None)
@given(height=sizes, width=sizes, up=st.integers(1, 4), seed=st.integers(0, 99))
def test_points_agree_with_the_dense_form(height: int, width: int, up: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    size = (height * up + 1, width * up)
    maps = [torch.rand(1, height, width, 3, generator=generator)]
    maps.append(torch.rand(1, size[0], size[1], 2, generator=generator))
    points = np.random.default_rng(seed).integers(0, size[0] * size[1], 10)
    blocks = hypercolumns_at([layer[0] for layer in maps], points, size)
    dense = dense_hypercolumns(maps, size).reshape(-1, 5)
    torch.testing.assert_close(torch.cat(blocks, 1), dense[points], atol=1e-6, rtol=0)


def test_enlarging_keeps_constants_and_leaves_equal_sizes_alone() -> None:
    maps = torch.full((1, 3, 4, 2), 7.0)
    torch.testing.assert_close(enlarge(maps, (9, 5)), torch.full((1, 9, 5, 2), 7.0))
    assert enlarge(maps, (3, 4)) is maps


def test_input_size_keeps_the_area_or_the_square() -> None:
    assert input_size((100, 400), 64) == (64, 64)
    assert input_size((100, 400), 64, "own") == (32, 128)
    assert input_size((10, 4000), 64, "own", minimum=32)[0] == 32


def test_grey_and_repeated_grey_are_the_same_input() -> None:
    grey = np.random.default_rng(0).random((20, 30), dtype=np.float32)
    colour = np.repeat(grey[:, :, None], 3, axis=2)
    a, b = (prepare(pixels, (16, 16), Preprocessing()) for pixels in (grey, colour))
    assert a.shape == (3, 16, 16)
    torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


def test_preparing_normalises_each_channel_and_averages_for_a_grey_network() -> None:
    pixels = np.zeros((4, 4, 3), dtype=np.float32)
    pixels[..., 0] = 0.9
    normal = prepare(pixels, (4, 4), Preprocessing((0.1, 0.2, 0.3), (0.5, 0.5, 0.1)))
    assert normal[:, 0, 0].tolist() == pytest.approx([1.6, -0.4, -3.0])
    assert prepare(pixels, (4, 4), Preprocessing((0.0,), (1.0,)))[0, 0, 0] == pytest.approx(0.3)


def filtered(x: float, mode: str) -> float:
    """Return the triangle, or Keys' cubic with -0.5."""
    x = abs(x)
    if mode == "bilinear":
        return max(0.0, 1 - x)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("n_in", "n_out"), [(64, 7), (9, 9), (5, 12), (3, 40), (1, 4), (100, 1)])
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
@pytest.mark.parametrize("shape", [(50, 37), (41, 90, 3)])
@pytest.mark.parametrize("size", [(32, 17), (50, 100), (64, 37)])
def test_resizing_is_torchs(
    shape: tuple[int, ...], size: tuple[int, int], mode: Literal["bilinear", "bicubic"]
) -> None:
    pixels = np.random.default_rng(0).random(shape, dtype=np.float32)
    image = torch.from_numpy(np.atleast_3d(pixels)).permute(2, 0, 1)[None].double()
    theirs = functional.interpolate(image, size, mode=mode, antialias=True)[0].clamp(0, 1)
    ours = prepare(pixels, size, replace(PLAIN, interpolation=mode))
    torch.testing.assert_close(ours, theirs.float().expand(3, *size), atol=1e-6, rtol=0)


def test_downsizing_is_antialiased() -> None:
    checkerboard = (np.indices((64, 64)).sum(0) % 2).astype(np.float32)
    small = prepare(checkerboard, (8, 8), PLAIN)
    assert small.std() < 0.02
    assert small.mean().item() == pytest.approx(0.5, abs=1e-3)


def test_feature_maps_are_channels_last_and_as_deep_as_the_taps() -> None:
    network = build_network("tiny", "random")
    maps = feature_maps(network, torch.rand(2, 3, 12, 20))
    assert [tuple(layer.shape) for layer in maps] == [(2, 12, 20, 6), (2, 6, 10, 8), (2, 3, 5, 10)]
