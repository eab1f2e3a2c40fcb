"""The factorised dense path against a naive oracle in float64 that a reader can check by eye."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from hypervlad.features import hypercolumns, vlad
from hypervlad.features.backbones import build_network

Problem = tuple[list[np.ndarray], np.ndarray, tuple[int, int]]


def bilinear(layer: np.ndarray, y: int, x: int, size: tuple[int, int]) -> np.ndarray:
    """One layer's value at a grid position, cell centres aligned as in image resizing."""
    cells = []
    for position, n_in, n_out in ((y, layer.shape[0], size[0]), (x, layer.shape[1], size[1])):
        place = max(0.0, (position + 0.5) * n_in / n_out - 0.5)
        low = min(int(place), n_in - 1)
        cells.append((low, min(low + 1, n_in - 1), place - low))
    (y0, y1, v), (x0, x1, u) = cells
    top = (1 - u) * layer[y0, x0] + u * layer[y0, x1]
    bottom = (1 - u) * layer[y1, x0] + u * layer[y1, x1]
    return (1 - v) * top + v * bottom


def naive_vlad(
    layers: list[np.ndarray], codewords: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Every hypercolumn, its nearest codeword, its residual: the definition."""
    assignments = np.empty(size, dtype=int)
    sums = np.zeros_like(codewords)
    for y in range(size[0]):
        for x in range(size[1]):
            column = np.concatenate([bilinear(layer, y, x, size) for layer in layers])
            distances = [np.sum((column - word) ** 2) for word in codewords]
            assignments[y, x] = np.argmin(distances)
            sums[assignments[y, x]] += column - codewords[assignments[y, x]]
    return assignments, sums


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Layers of any sizes up to the grid's, any depth, any number of codewords."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = draw(st.tuples(st.integers(1, 11), st.integers(1, 11)))
    layers = []
    for _ in range(draw(st.integers(1, 3))):
        shape = (draw(st.integers(1, size[0])), draw(st.integers(1, size[1])))
        layers.append(rng.standard_normal((*shape, draw(st.integers(1, 4)))))
    n_words = draw(st.integers(1, 6))
    codewords = rng.standard_normal((n_words, sum(layer.shape[2] for layer in layers)))
    return layers, codewords, size


def as_tensors(arrays: list[np.ndarray]) -> list[torch.Tensor]:
    return [torch.from_numpy(array)[None].float() for array in arrays]


def random_maps(n_images: int, *shapes: tuple[int, int, int]) -> list[torch.Tensor]:
    rng = np.random.default_rng(0)
    return [torch.from_numpy(rng.standard_normal((n_images, *s), dtype="f4")) for s in shapes]


def random_words(n_words: int, n_features: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).standard_normal((n_words, n_features), "f4"))


@settings(deadline=None, max_examples=60)
@given(problem=problems())
def test_dense_sums_are_the_naive_ones(problem: Problem) -> None:
    layers, codewords, size = problem
    assignments, sums = naive_vlad(layers, codewords, size)
    maps, words = as_tensors(layers), torch.from_numpy(codewords).float()
    np.testing.assert_array_equal(vlad.dense_assign(maps, words, size)[0].numpy(), assignments)
    ours = vlad.dense_residual_sums(maps, words, size)[0].numpy()
    np.testing.assert_allclose(ours, sums, atol=2e-4)


@pytest.mark.slow  # compiles for one, two and three layers
@settings(deadline=None, max_examples=60)
@given(problem=problems())
def test_sums_of_the_kernel_are_the_naive_ones(problem: Problem) -> None:
    kernel = pytest.importorskip("hypervlad.features.vlad_kernel")
    layers, codewords, size = problem
    _, sums = naive_vlad(layers, codewords, size)
    words = torch.from_numpy(codewords).float()
    ours = kernel.dense_residual_sums(as_tensors(layers), words, size)[0].numpy()
    np.testing.assert_allclose(ours, sums, atol=2e-4)


@pytest.mark.slow  # compiles for three layers
@pytest.mark.parametrize(("threads", "n_words"), [(1, 64), (3, 1), (3, 6)])
def test_the_kernel_does_not_depend_on_threads_and_batches(
    threads: int, n_words: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = pytest.importorskip("hypervlad.features.vlad_kernel")
    maps, words = random_maps(3, (13, 128, 2), (7, 127, 9), (2, 9, 5)), random_words(n_words, 16)
    size = (26, 128)  # several strips, and a strip that has as many cells of a layer as columns
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    found = kernel.dense_residual_sums(maps, words, size)
    expected = vlad.dense_residual_sums(maps, words, size)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    alone = [
        kernel.dense_residual_sums([layer[i : i + 1] for layer in maps], words, size)
        for i in range(3)
    ]
    assert torch.equal(found, torch.cat(alone))
    maps[1][1, 3, 2, 4] = torch.nan  # of damaged weights: it must be seen, and end nothing
    assert kernel.dense_residual_sums(maps, words, size).isnan().any()


@pytest.mark.parametrize(
    ("values", "fewest_words", "threads"),
    [(1, 1, 1), (1, 100, 6), (600, 1, 6), (600, 2, 2), (1 << 30, 1, 2), (1 << 30, 100, 6)],
)
def test_chunks_of_images_and_codewords_do_not_matter(
    values: int, fewest_words: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps, words = random_maps(3, (13, 9, 2), (7, 5, 2), (2, 9, 2)), random_words(6, 6)
    expected = vlad.dense_residual_sums(maps, words, (13, 9))
    monkeypatch.setattr(vlad, "_VALUES_IN_FLIGHT", values)
    monkeypatch.setattr(vlad, "_MIN_CODEWORDS", fewest_words)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    torch.testing.assert_close(vlad.dense_residual_sums(maps, words, (13, 9)), expected)


def test_images_of_a_batch_are_independent() -> None:
    maps, words = random_maps(4, (6, 6, 3)), random_words(4, 3)
    together = vlad.dense_residual_sums(maps, words, (9, 9))
    alone = [vlad.dense_residual_sums([maps[0][i : i + 1]], words, (9, 9)) for i in range(4)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_points_on_the_whole_grid_are_the_dense_sums() -> None:
    maps, words = random_maps(1, (6, 5, 3)), random_words(4, 3)
    columns = maps[0].reshape(-1, 3)
    sums = vlad.residual_sums(columns, vlad.assign(columns, words), words)
    torch.testing.assert_close(sums, vlad.dense_residual_sums(maps, words, (6, 5))[0])


def test_each_codeword_then_all_codebooks_together_are_normalised() -> None:
    rng = np.random.default_rng(0)
    sums = [rng.standard_normal((2, 3, 4)), 5 * rng.standard_normal((2, 2, 6))]
    sums[0][:, 1] = 0
    ours = vlad.normalize([torch.from_numpy(each) for each in sums]).numpy()
    for image in range(2):
        rows = [row / max(np.linalg.norm(row), 1e-12) for each in sums for row in each[image]]
        joined = np.concatenate(rows)
        np.testing.assert_allclose(ours[image], joined / np.linalg.norm(joined), atol=1e-12)


def test_unfitting_codewords_are_errors() -> None:
    with pytest.raises(ValueError, match="7 dimensions do not fit maps of 3"):
        vlad.dense_assign([torch.ones(1, 2, 2, 3)], torch.ones(2, 7), (2, 2))


def test_a_codeword_of_one_position_is_exact() -> None:
    """Intra-normalisation gives a rare codeword full weight; its residual must not be noise."""
    maps = [torch.zeros(1, 4, 4, 2)]
    maps[0][0, 2, 1] = torch.tensor([3.0, -1.0])
    words = torch.tensor([[0.0, 0.0], [2.0, -1.0]])
    sums = vlad.dense_residual_sums(maps, words, (4, 4))
    torch.testing.assert_close(sums[0, 1], torch.tensor([1.0, 0.0]))


# --- hypercolumns ---------------------------------------------------------------------------------


@given(n_in=st.integers(1, 20), factor=st.integers(1, 5), extra=st.integers(0, 3))
def test_axis_interpolation_is_torchs(n_in: int, factor: int, extra: int) -> None:
    n_out = n_in * factor + extra
    signal = torch.rand(n_in, generator=torch.Generator().manual_seed(n_in))
    low, high, weight = hypercolumns.axis_interpolation(n_in, n_out)
    ours = torch.lerp(signal[low], signal[high], weight)
    theirs = functional.interpolate(signal[None, None], n_out, mode="linear")[0, 0]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@settings(deadline=None)
@given(
    height=st.integers(1, 9), width=st.integers(1, 9), up=st.integers(1, 4), seed=st.integers(0, 99)
)
def test_points_agree_with_the_dense_form(height: int, width: int, up: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    size = (height * up + 1, width * up)
    maps = [torch.rand(1, height, width, 3, generator=generator)]
    maps.append(torch.rand(1, size[0], size[1], 2, generator=generator))
    points = np.random.default_rng(seed).integers(0, size[0] * size[1], 10)
    blocks = hypercolumns.hypercolumns_at([layer[0] for layer in maps], points, size)
    dense = hypercolumns.dense_hypercolumns(maps, size).reshape(-1, 5)
    torch.testing.assert_close(torch.cat(blocks, 1), dense[points], atol=1e-6, rtol=0)


def test_enlarging_keeps_constants_and_leaves_equal_sizes_alone() -> None:
    maps = torch.full((1, 3, 4, 2), 7.0)
    torch.testing.assert_close(hypercolumns.enlarge(maps, (9, 5)), torch.full((1, 9, 5, 2), 7.0))
    assert hypercolumns.enlarge(maps, (3, 4)) is maps


def test_feature_maps_are_channels_last_and_as_deep_as_the_taps() -> None:
    network = build_network("tiny", "random")
    maps = hypercolumns.feature_maps(network, torch.rand(2, 3, 12, 20))
    assert [tuple(layer.shape) for layer in maps] == [(2, 12, 20, 6), (2, 6, 10, 8), (2, 3, 5, 10)]
