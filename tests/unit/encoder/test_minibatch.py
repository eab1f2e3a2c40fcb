"""Minibatch K-means over every image: order, bounds, copies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.cluster import MiniBatchKMeans

from hypervlad import HypercolumnVLAD
from hypervlad.features.codebook import Codebook, LayerProjection, StreamedCodewords, learn_codebook
from hypervlad.features.encoder import codebook_fit
from hypervlad.images import SkippedImagesWarning

Images = list[np.ndarray]


@pytest.fixture
def encoder(tiny_encoder: HypercolumnVLAD) -> HypercolumnVLAD:
    return tiny_encoder.set_params(sampling="luo2021")


def learnt(encoder: HypercolumnVLAD, images: list[Any], **change: Any) -> dict[str, np.ndarray]:
    return clone(encoder).set_params(**change).fit(images).codebook_.to_arrays()


def assert_close(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_allclose(second[name], array, atol=1e-5)


# --- the learner ------------------------------------------------------------------------------


def in_the_plane(words: list[list[float]]) -> Codebook:
    """Codewords of two layers of one channel each, with other centres."""
    five, one = np.full(1, 5, np.float32), np.ones(1, np.float32)
    projections = (LayerProjection(five, one, 1.0, None), LayerProjection(five, one, 1.0, None))
    return Codebook(projections, np.array(words, np.float32))


def test_an_image_is_a_step_of_scikit_learns_minibatch_kmeans() -> None:
    rng = np.random.default_rng(0)
    words = rng.standard_normal((3, 2)).astype(np.float32)
    images = [rng.standard_normal((1100, 2)).astype(np.float32) for _ in range(4)]
    streamed = StreamedCodewords(in_the_plane(words.tolist()), random_state=7)
    oracle = MiniBatchKMeans(3, init=words, n_init=1, random_state=7)
    for image in images:
        streamed.add([image[:, :1] + 5, image[:, 1:] + 5])
        oracle.partial_fit(image)
    np.testing.assert_allclose(streamed.codebook().codewords[0], oracle.cluster_centers_, atol=1e-5)


def test_few_samples_wait_for_each_other_and_no_others_are_kept() -> None:
    rng = np.random.default_rng(0)
    streamed = StreamedCodewords(in_the_plane([[0, 0], [1, 1]]), random_state=0)
    most = 0
    for _ in range(300):
        streamed.add([rng.random((30, 1)), rng.random((30, 1))])
        most = max(most, sum(len(blocks[0]) for blocks in streamed._waiting))
    assert most < 1024 + 30
    streamed.codebook()
    assert streamed.n_samples == 9000
    few = StreamedCodewords(in_the_plane([[0, 0], [1, 1], [2, 2]]), random_state=0)
    few.add([np.ones((2, 1)), np.ones((2, 1))])
    with pytest.raises(ValueError, match="3 codewords cannot be learnt from 2 hypercolumns"):
        few.codebook()


def test_the_start_is_of_the_samples_and_repeatable() -> None:
    layer = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)
    options: dict[str, Any] = {"n_components": None, "is_scaled": False}
    start = learn_codebook([layer], 5, start_only=True, **options)
    (words,) = start.codewords
    projected = start.projections[0].apply(layer)
    assert all((np.abs(projected - word).sum(axis=1) < 1e-6).any() for word in words)
    again = learn_codebook([layer], 5, start_only=True, **options)
    np.testing.assert_array_equal(again.codewords[0], words)


# --- in the encoder ---------------------------------------------------------------------------


@pytest.mark.parametrize(("blocks", "grid"), [("joint", "finest"), ("per_layer", 100)])
def test_order_and_copies_do_not_matter(
    blocks: str, grid: Any, encoder: HypercolumnVLAD, images: Images
) -> None:
    encoder.set_params(blocks=blocks, grid=grid)
    expected = learnt(encoder, images)
    order = np.random.default_rng(1).permutation(len(images))
    assert_close(learnt(encoder, [images[i] for i in order]), expected)
    assert_close(learnt(encoder, [*images, images[3], images[5]]), expected)
    other = learnt(encoder, images, random_state=1)
    name = "codewords.joint" if blocks == "joint" else "codewords.0"
    assert np.abs(other[name] - expected[name]).max() > 1e-3


@pytest.mark.parametrize(("grid", "n_each"), [(37, 37), ("image", 100)])
def test_every_different_image_is_used_once(
    grid: Any,
    n_each: int,
    encoder: HypercolumnVLAD,
    images: Images,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(codebook_fit, "MAX_SAMPLED_IMAGES", 4)
    monkeypatch.setattr(codebook_fit, "MAX_SAMPLES_PER_IMAGE", 100)
    n_samples: list[int] = []

    class Spied(StreamedCodewords):
        def add(self, blocks: list[np.ndarray]) -> None:
            n_samples.append(len(blocks[0]))
            super().add(blocks)

    monkeypatch.setattr(codebook_fit, "StreamedCodewords", Spied)
    encoder.set_params(grid=grid).fit([*images, images[0]])
    assert n_samples == [n_each] * 24
    assert encoder.n_images_ == 25


def test_images_beyond_the_pool_change_the_codewords(
    encoder: HypercolumnVLAD, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few images are sampled at first; but one codeword is the mean of the channels of all."""
    monkeypatch.setattr(codebook_fit, "MAX_SAMPLED_IMAGES", 4)
    encoder.set_params(n_codewords=1, grid="finest")
    means = np.mean([mean_of(encoder, [image])[0] for image in images], axis=0)
    start, residual = mean_of(encoder, images)
    assert np.abs(residual).max() < 1e-4
    codeword = learnt(encoder, images)["codewords.joint"][0]
    np.testing.assert_allclose(start + codeword, means, atol=1e-4)
    assert np.abs(codeword).max() > 1e-2


def mean_of(encoder: HypercolumnVLAD, images: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """The mean of the channels over a sample, and the only codeword relative to it."""
    found = learnt(encoder, images, sampling="anyloc")
    means = [found[name] for name in sorted(found) if name.endswith(".mean")]
    return np.concatenate(means), found["codewords.joint"][0]


def test_fit_warns_once_of_skipped_images(
    encoder: HypercolumnVLAD, images: Images, tmp_path: Any
) -> None:
    bad = tmp_path / "broken.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    images = images[:6]
    encoder.set_params(on_error="skip")
    with pytest.warns(SkippedImagesWarning, match=r"broken\.png") as record:
        skipped = learnt(encoder, [bad, *images])
    assert len(record) == 1
    assert_close(skipped, learnt(encoder, images))
