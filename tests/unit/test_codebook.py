"""Projections, the pool and K-means."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervlad.features.codebook import Codebook, HypercolumnPool, learn_codebook

BOTH = ["joint", "per_layer"]


@pytest.fixture
def layers() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((6, 6))
    return [
        (rng.standard_normal((500, 6)) @ mixing + 5).astype(np.float32),
        (100 * rng.standard_normal((500, 3))).astype(np.float32),
    ]


def test_layers_are_centred_and_scaled_to_unit_total_variance(layers: list[np.ndarray]) -> None:
    codebook = learn_codebook(layers, 4, blocks=["joint"], n_components=None)
    for projection, layer in zip(codebook.projections, layers, strict=True):
        projected = projection.apply(layer)
        np.testing.assert_allclose(projected.mean(0), 0, atol=1e-4)
        assert projected.var(0).sum() == pytest.approx(1, rel=1e-4)


def test_components_are_the_covariances_eigenvectors(layers: list[np.ndarray]) -> None:
    codebook = learn_codebook(layers, 4, n_components=2)
    values, vectors = np.linalg.eigh(np.cov(layers[0].T.astype(float), ddof=0))
    components = codebook.projections[0].components
    assert components is not None
    expected = vectors[:, ::-1][:, :2].T / np.sqrt(values.sum())
    np.testing.assert_allclose(np.abs(components), np.abs(expected), atol=1e-4)


def test_unscaled_layers_are_only_centred(layers: list[np.ndarray]) -> None:
    codebook = learn_codebook(layers, 4, n_components=None, is_scaled=False)
    np.testing.assert_allclose(
        codebook.projections[1].apply(layers[1]), layers[1] - layers[1].mean(0), atol=1e-4
    )


def test_kinds_of_codebook(layers: list[np.ndarray]) -> None:
    joint = learn_codebook(layers, 5, blocks=["joint"])
    assert [words.shape for words in joint.codewords] == [(5, 9)]
    per_layer = learn_codebook(layers, 5, blocks=["per_layer"], n_components=4)
    assert [words.shape for words in per_layer.codewords] == [(5, 4), (5, 3)]
    both = learn_codebook(layers, 5, blocks=BOTH)
    np.testing.assert_array_equal(both.joint, joint.joint)
    assert [words.shape for words in both.per_layer] == [(5, 6), (5, 3)]
    assert both.spans == (slice(None), slice(0, 1), slice(1, 2))


def test_codewords_are_cluster_means(layers: list[np.ndarray]) -> None:
    codebook = learn_codebook(layers[:1], 3)
    projected = codebook.projections[0].apply(layers[0])
    nearest = ((projected[:, None] - codebook.codewords[0]) ** 2).sum(2).argmin(1)
    means = np.stack([projected[nearest == k].mean(0) for k in range(3)])
    np.testing.assert_allclose(means, codebook.codewords[0], atol=0.02)


def test_arrays_round_trip(layers: list[np.ndarray]) -> None:
    for blocks, n_components in ((["joint"], None), (["per_layer"], 2), (BOTH, 2)):
        codebook = learn_codebook(layers, 4, blocks=blocks, n_components=n_components)
        back = Codebook.from_arrays(codebook.to_arrays())
        assert back.to_arrays().keys() == codebook.to_arrays().keys()
        for name, array in codebook.to_arrays().items():
            np.testing.assert_array_equal(back.to_arrays()[name], array)


def test_flat_images_give_a_codebook_all_the_same() -> None:
    flat = [np.ones((50, 3), dtype=np.float32)]
    codebook = learn_codebook(flat, 4)
    assert all(np.isfinite(array).all() for array in codebook.to_arrays().values())
    assert codebook.codewords[0].shape == (4, 3)


@pytest.mark.slow  # K-means of a large sample, twice
def test_last_digits_do_not_change_the_codewords() -> None:
    rng = np.random.default_rng(0)
    # Without clusters, many sets of codewords fit almost equally well.
    layers = [rng.standard_normal((20_000, n)).astype("f4") for n in (12, 20)]
    stirred = [(x * (1 + 1e-7 * rng.standard_normal(x.shape))).astype("f4") for x in layers]
    for start_only in (False, True):
        words, others = (
            learn_codebook(x, 48, blocks=BOTH, start_only=start_only).codewords
            for x in (layers, stirred)
        )
        for a, b in zip(words, others, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)


def test_fewer_samples_than_codewords_is_an_error(layers: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="501 codewords cannot be learnt from 500 hypercolumns"):
        learn_codebook(layers, 501)


@given(
    n_images=st.integers(1, 30),
    capacity=st.integers(1, 40),
    n_each=st.integers(1, 10),
    seed=st.integers(0, 99),
)
def test_the_pool_is_bounded_and_does_not_depend_on_order(
    n_images: int, capacity: int, n_each: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    images = {f"{rng.integers(2**62):016x}": rng.random((n_each, 2)) for _ in range(n_images)}
    pools = [HypercolumnPool(capacity), HypercolumnPool(capacity)]
    for pool, order in zip(pools, (sorted(images), rng.permutation(list(images))), strict=True):
        for digest in order:
            pool.add(str(digest), [images[digest], 2 * images[digest]])
    first, second = (pool.layers() for pool in pools)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    n_all = n_images * n_each
    if n_all <= capacity:
        assert len(first[0]) == n_all
    else:
        assert capacity <= len(first[0]) <= capacity + n_each
    np.testing.assert_array_equal(first[1], 2 * first[0])
