"""Vectors of windows over feature maps, against windows cut out of explicit hypercolumns."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hypervlad import HypercolumnVLAD, default_patch_encoder
from hypervlad.features import vlad
from hypervlad.features.backbones import Reach, TappedNetwork, build_network
from hypervlad.features.hypercolumns import dense_hypercolumns
from hypervlad.features.windows import WindowGrid
from hypervlad.features.windows.vectors import (
    TiledNetwork,
    Tiling,
    WindowVectors,
    window_means,
    window_residual_sums,
)


def some_maps(seed: int, *shapes: tuple[int, int, int]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


windows = given(
    seed=st.integers(0, 5),
    side=st.integers(1, 9),
    rows=st.lists(st.integers(0, 11), min_size=1, max_size=4),
    columns=st.lists(st.integers(0, 15), min_size=1, max_size=4),
)


@windows
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


@windows
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


def fitted(image: NDArray[np.float32], **parameters: object) -> HypercolumnVLAD:
    encoder = default_patch_encoder(
        backbone="tiny", weights="random", taps=["1", "4"], n_codewords=4
    )
    return encoder.set_params(**parameters, random_state=0).fit([image])


def prepared(encoder: HypercolumnVLAD, image: NDArray[np.float32]) -> torch.Tensor:
    return encoder.loader().load_batch(image).tensors[0]


@pytest.fixture
def image() -> NDArray[np.float32]:
    return np.random.default_rng(0).random((140, 183), dtype=np.float32)


@pytest.mark.parametrize("codebooks", [["per_layer"], ["joint", "per_layer"]])
def test_tiles_have_the_vectors_of_the_whole(
    image: NDArray[np.float32], codebooks: list[str]
) -> None:
    encoder = fitted(image, blocks=[*codebooks, "pooled"])
    windows = WindowGrid.cover(image.shape, side=15, stride=7)
    whole, tiled = WindowVectors(encoder, Tiling(4096)), WindowVectors(encoder, Tiling(64))
    maps, stitched = (
        vectors.network.padded_maps(prepared(encoder, image), "image") for vectors in (whole, tiled)
    )
    for one, other in zip(maps.maps, stitched.maps, strict=True):
        assert not torch.isnan(other).any()
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    vectors = np.concatenate(list(whole.vectors(maps, windows)))
    again = np.concatenate(list(tiled.vectors(stitched, windows)))
    np.testing.assert_allclose(vectors, again, atol=2e-3)
    assert vectors.shape[1] == encoder.n_features_out_


def test_tiles_are_wider_than_what_a_cell_depends_on(image: NDArray[np.float32]) -> None:
    vectors = WindowVectors(encoder := fitted(image), Tiling(8))
    with pytest.raises(ValueError, match=r"tile_size=8 is too small .* must be at least \d+"):
        vectors.network.padded_maps(prepared(encoder, image), "image")


def test_other_tiles_than_in_fit_are_a_warning_where_answers_depend_on_them(
    image: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = fitted(image)

    def maps(side: int, fitted_side: int, pixels: NDArray[np.float32]) -> None:
        network = TiledNetwork(encoder.network(), Tiling(side, fitted_side=fitted_side))
        network.padded_maps(prepared(encoder, pixels), "image")

    maps(64, 128, image)  # each cell depends on a few pixels
    monkeypatch.setattr(TappedNetwork, "reach", lambda *_: Reach(4, None))
    maps(64, 64, image)
    maps(64, 128, image[:50, :60])
    for sides in ((64, 128), (256, 128)):
        with pytest.warns(UserWarning, match=r"tile_size=128 and .* with tile_size=(64|256);"):
            maps(*sides, image)


def test_a_window_is_encoded_as_an_image_of_its_positions(image: NDArray[np.float32]) -> None:
    encoder = fitted(image)
    own = WindowVectors(encoder, Tiling(4096))
    maps = own.network.padded_maps(prepared(encoder, image), "image")
    windows = WindowGrid(np.array([16, 40]), np.array([8, 64]), side=24)
    vectors = np.concatenate(list(own.vectors(maps, windows))).reshape(2, 2, -1)
    codewords = encoder.codebook_.joint
    means = [projection.mean for projection in encoder.codebook_.projections]
    stds = [projection.std for projection in encoder.codebook_.projections]
    grid = maps.maps[0].shape[:2]  # the finest tap: every pixel
    raw = [_enlarged(layer.double().numpy(), grid) for layer in maps.maps]
    projected = np.concatenate(
        [
            (layer - mean) @ projection.components.T
            for layer, mean, projection in zip(
                raw, means, encoder.codebook_.projections, strict=True
            )
        ],
        axis=2,
    )
    border = maps.border
    for (i, top), (j, left) in itertools.product(
        enumerate(windows.rows), enumerate(windows.columns)
    ):
        cut = np.s_[border + top : border + top + 24, border + left : border + left + 24]
        columns = projected[cut].reshape(-1, projected.shape[2])
        nearest = ((columns[:, None] - codewords) ** 2).sum(2).argmin(1)
        sums = np.zeros(codewords.shape)
        np.add.at(sums, nearest, columns - codewords[nearest])
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        sums /= np.where(lengths > 0, lengths, 1)
        pooled = np.concatenate(
            [(r[cut].mean((0, 1)) - m) / s for r, m, s in zip(raw, means, stds, strict=True)]
        )
        expected = np.concatenate(
            [sums.ravel() / np.linalg.norm(sums), pooled / np.sqrt(len(pooled))]
        )
        np.testing.assert_allclose(vectors[i, j], expected, atol=5e-3)


@pytest.mark.parametrize(
    "blocks", [["joint"], ["joint", "pooled"], ["joint", "per_layer", "pooled_unit"]]
)
def test_products_are_those_of_the_vectors(image: NDArray[np.float32], blocks: list[str]) -> None:
    encoder = fitted(image, blocks=blocks)
    own = WindowVectors(encoder, Tiling(4096))
    maps = own.network.padded_maps(prepared(encoder, image), "image")
    windows = WindowGrid.cover(image.shape, side=15, stride=4)
    weights = np.random.default_rng(1).standard_normal((encoder.n_features_out_, 3))
    vectors = np.concatenate(list(own.vectors(maps, windows)))
    found = np.concatenate(list(own.products(maps, windows, weights.astype(np.float32))))
    np.testing.assert_allclose(found, vectors @ weights, atol=1e-5)


def _enlarged(layer: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    channels_first = torch.from_numpy(layer).permute(2, 0, 1)[None]
    large = torch.nn.functional.interpolate(channels_first, size, mode="bilinear")
    return large[0].permute(1, 2, 0).numpy()


def test_stored_maps_are_those_computed(image: NDArray[np.float32], tmp_path: Path) -> None:
    network = TiledNetwork(build_network("tiny", "random", ["1", "4"]), Tiling(4096, tmp_path))
    pixels = torch.from_numpy(np.stack([image] * 3))
    computed = network.padded_maps(pixels, "image", "key", keep=True)
    empty = torch.zeros(0)  # is never looked at
    for again in (
        network.stored_maps("key"),
        network.padded_maps(empty, "image", "key", keep=True),
        network.padded_maps(empty, "image", "key"),
    ):
        assert (again.size, again.border) == (computed.size, computed.border)
        assert all(map(torch.equal, again.maps, computed.maps))
    assert not list(tmp_path.iterdir())  # the last call no longer kept them
    network.padded_maps(pixels, "image", "key")
    assert not list(tmp_path.iterdir())
