"""Windows over feature maps, against windows cut out of explicit hypercolumns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hypervlad import vlad
from hypervlad.backbones import build_network, reach_of
from hypervlad.hypercolumns import dense_hypercolumns
from hypervlad.windows import window_means, window_residual_sums


def some_maps(seed: int, *shapes: tuple[int, int, int]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


@given(
    st.integers(0, 5),
    st.integers(1, 9),
    st.lists(st.integers(0, 11), min_size=1, max_size=4),
    st.lists(st.integers(0, 15), min_size=1, max_size=4),
)
@settings(deadline=None, max_examples=40)
def test_means_are_those_of_the_pixels(
    seed: int, side: int, rows: list[int], columns: list[int]
) -> None:
    size, maps = (20, 24), some_maps(seed, (5, 6, 2), (10, 12, 3), (3, 4, 1))
    found = torch.cat(list(window_means(maps, size, rows, columns, side)))
    pixels = dense_hypercolumns([layer[None] for layer in maps], size)[0]
    for i, top in enumerate(rows):
        for j, left in enumerate(columns):
            window = pixels[top : top + side, left : left + side]
            torch.testing.assert_close(found[i, j], window.mean((0, 1)), atol=1e-6, rtol=0)


@given(
    st.integers(0, 5),
    st.integers(1, 9),
    st.lists(st.integers(0, 11), min_size=1, max_size=4),
    st.lists(st.integers(0, 15), min_size=1, max_size=4),
)
@settings(deadline=None, max_examples=40)
def test_residual_sums_are_those_of_the_positions(
    seed: int, side: int, rows: list[int], columns: list[int]
) -> None:
    size, grid = (20, 24), (10, 12)  # a position every two pixels
    (columns_of_grid,) = some_maps(seed, (*grid, 4))
    (codewords,) = some_maps(seed + 100, (1, 5, 4))
    words = vlad.assign(columns_of_grid.flatten(0, 1), codewords[0]).view(grid)
    found = torch.cat(
        list(window_residual_sums(columns_of_grid, words, codewords[0], size, rows, columns, side))
    )
    for i, top in enumerate(rows):
        for j, left in enumerate(columns):
            expected = torch.zeros(5, 4, dtype=torch.float64)
            for y in range(grid[0]):
                for x in range(grid[1]):
                    inside = top <= 2 * y + 1 < top + side and left <= 2 * x + 1 < left + side
                    if inside:
                        k = int(words[y, x])
                        expected[k] += columns_of_grid[y, x] - codewords[0, k]
            torch.testing.assert_close(found[i, j], expected, atol=1e-9, rtol=0)
            assert ((found[i, j] == 0) == (expected == 0)).all()  # no dust in words not there


def test_the_whole_image_as_one_window_has_the_image_s_vlad() -> None:
    maps = some_maps(0, (8, 8, 3), (4, 4, 2))
    (codewords,) = some_maps(1, (1, 6, 5))
    grid = dense_hypercolumns([layer[None] for layer in maps], (8, 8))[0]
    words = vlad.dense_assign([m[None].float() for m in maps], codewords[0].float(), (8, 8))[0]
    ((row,),) = window_residual_sums(grid, words, codewords[0], (32, 32), [0], [0], 32)
    whole = vlad.sums_of_assigned([m[None] for m in maps], words[None], codewords[0])
    torch.testing.assert_close(row, whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "taps"),
    [("mobilenet_v2", ["features.6", "features.13"]), ("vgg16", ["features.8", "features.15"])],
)
def test_tiles_with_the_margin_have_the_maps_of_the_whole(name: str, taps: list[str]) -> None:
    network = build_network(name, "random", taps)
    reach = reach_of(network)
    assert reach is not None
    core, margin = 2 * reach.stride, reach.margin
    image = torch.randn(1, 3, 3 * margin + core, 2 * margin + core)
    whole, tile = network(image), network(image[:, :, : 2 * margin + core])
    for full, cut in zip(whole, tile, strict=True):
        stride = image.shape[-1] // full.shape[-1]
        rows = slice(margin // stride, (margin + core) // stride)
        torch.testing.assert_close(full[:, :, rows], cut[:, :, rows])
        assert not torch.equal(full[:, :, : cut.shape[2]], cut)  # beyond, the cut's edge shows


def test_networks_that_see_the_whole_image_are_told_apart() -> None:
    assert reach_of(build_network("efficientnet_b0", "random")) is None  # squeeze and excitation
    assert reach_of(build_network("inception_v3", "random")) is None  # no padding
    shallow = reach_of(build_network("resnet18", "random", ["layer1"]))
    deep = reach_of(build_network("resnet18", "random", ["layer1", "layer3"]))
    assert shallow is not None
    assert deep is not None
    assert np.all([deep.margin > shallow.margin, deep.stride == 16, shallow.stride == 4])
