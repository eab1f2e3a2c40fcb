"""Slow oracles of windows: sums and means over the pixels of each, and maps from tiles."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.oracle import enlarged, normalised, residual_sums

from hypervlad import HypercolumnVLAD
from hypervlad.features import register_backbone
from hypervlad.features.hypercolumns import window_means
from hypervlad.features.patches import WindowGrid
from hypervlad.features.vlad import window_residual_sums
from hypervlad.features.windows import TiledNetwork, Tiling, WindowVectors
from hypervlad.models import default_patch_encoder


def some_maps(seed, *shapes):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


windows = given(
    seed=st.integers(0, 5),
    side=st.integers(1, 9),
    rows=st.lists(st.integers(0, 11), min_size=1, max_size=4),
    columns=st.lists(st.integers(0, 15), min_size=1, max_size=4),
)


@windows
@settings(deadline=None, max_examples=30)
def test_means_are_those_of_the_pixels(seed, side, rows, columns):
    size, maps = (20, 24), some_maps(seed, (5, 6, 2), (10, 12, 3), (3, 4, 1))
    found = torch.cat(list(window_means(maps, size, rows, columns, side)))
    pixels = np.concatenate([enlarged(layer.numpy(), size) for layer in maps], axis=2)
    for i, top in enumerate(rows):
        for j, left in enumerate(columns):
            window = pixels[top : top + side, left : left + side]
            np.testing.assert_allclose(found[i, j], window.mean((0, 1)), atol=1e-6)


@windows
@settings(deadline=None, max_examples=30)
def test_residual_sums_are_those_of_the_positions(seed, side, rows, columns):
    size, grid = (20, 24), (10, 12)  # a position every two pixels
    maps, (codewords,) = some_maps(seed, (*grid, 4))[0], some_maps(seed + 100, (1, 5, 4))[0]
    distances = ((maps[:, :, None] - codewords) ** 2).sum(3)
    words = distances.argmin(2)
    found = torch.cat(list(window_residual_sums(maps, words, codewords, size, rows, columns, side)))
    for i, top in enumerate(rows):
        for j, left in enumerate(columns):
            expected = torch.zeros(5, 4, dtype=torch.float64)
            for y in range(grid[0]):
                for x in range(grid[1]):
                    if top <= 2 * y + 1 < top + side and left <= 2 * x + 1 < left + side:
                        expected[words[y, x]] += maps[y, x] - codewords[words[y, x]]
            torch.testing.assert_close(found[i, j], expected, atol=1e-9, rtol=0)
            assert ((found[i, j] == 0) == (expected == 0)).all()  # no dust in words not there


@pytest.fixture
def image():
    return np.random.default_rng(0).random((140, 183), dtype=np.float32)


def fitted(image, blocks):
    encoder = default_patch_encoder(backbone="tiny", weights="random", taps=["1", "4"])
    return encoder.set_params(n_codewords=4, blocks=blocks, random_state=0).fit([image])


@pytest.mark.parametrize(
    "blocks", [["joint"], ["joint", "pooled"], ["joint", "per_layer", "pooled_unit"]]
)
def test_vectors_of_windows_and_those_of_tiles(blocks, image):
    encoder, pixels = fitted(image, blocks), torch.from_numpy(image)[None]
    grid = WindowGrid.cover(image.shape, side=15, stride=7)
    whole, tiled = WindowVectors(encoder, Tiling(4096)), WindowVectors(encoder, Tiling(64))
    maps = whole.network.padded_maps(pixels, "image")
    vectors = np.concatenate(list(whole.vectors(maps, grid)))
    assert vectors.shape == (grid.size, encoder.n_features_out_)
    stitched = tiled.network.padded_maps(pixels, "image")
    for one, other in zip(maps.maps, stitched.maps, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    # The joint block of one window, cut out of explicit hypercolumns.
    book = encoder.codebook_
    layers = [
        enlarged(layer.double().numpy() - p.mean, maps.maps[0].shape[:2]) @ p.components.T
        for p, layer in zip(book.projections, maps.maps, strict=True)
    ]
    top, left = grid.positions[30] + maps.border
    cut = np.concatenate(layers, axis=2)[top : top + 15, left : left + 15]
    sums = residual_sums(cut.reshape(225, -1), book.joint.astype(np.float64), None)
    np.testing.assert_allclose(vectors[30, : book.joint.size], normalised([sums]), atol=5e-3)


def test_seams_between_tiles_are_bounded():
    """Along an overlap of n cells, two tiles that differ by d change by d / (n + 1) at most."""
    layers = torch.nn.Conv2d(3, 4, 16, stride=16), torch.nn.InstanceNorm2d(4)
    register_backbone("all of a tile", lambda: torch.nn.Sequential(*layers), ["1"])
    image = np.random.default_rng(0).random((96, 192), dtype=np.float32)
    encoder = HypercolumnVLAD("all of a tile", weights="random", image_size=None, n_codewords=2)
    network = encoder.set_params(taps=["1"]).fit([image]).network()
    pixels = encoder.preprocessing_.prepare(image, (96, 192))
    tiled = TiledNetwork(network, Tiling(128), encoder.preprocessing_, border=0)
    (blended,) = tiled.padded_maps(torch.from_numpy(image)[None], "image").maps
    # Of two tiles of 8 cells, which overlap in 4 and may overlap in 2.
    one, other = (
        network(pixels[None, :, :, first * 16 : (first + 8) * 16])[0][0].permute(1, 2, 0)
        for first in (0, 4)
    )
    torch.testing.assert_close(blended[:, :4], one[:, :4])
    torch.testing.assert_close(blended[:, 8:], other[:, 4:])
    both = torch.stack([one[:, 4:], other[:, :4]])
    own = both.diff(dim=2).abs().amax(dim=0)
    bound = own + (both[0] - both[1]).abs().amax(dim=1, keepdim=True) / (2 + 1)
    assert (blended[:, 4:8].diff(dim=1).abs() <= bound + 1e-5).all()
    low, high = both.amin(dim=0) - 1e-5, both.amax(dim=0) + 1e-5
    assert ((blended[:, 4:8] >= low) & (blended[:, 4:8] <= high)).all()
