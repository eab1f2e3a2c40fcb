"""Minibatch K-means over every image: order, batches, bounds, copies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.cluster import MiniBatchKMeans

from hypervlad import HypercolumnVLAD
from hypervlad.codebook import Codebook, LayerProjection, StreamedCodewords, learn_codebook
from hypervlad.encoder import codebook_fit
from hypervlad.images import SkippedImagesWarning

Images = tuple[list[np.ndarray], np.ndarray]


@pytest.fixture
def encoder(tiny_encoder: HypercolumnVLAD) -> HypercolumnVLAD:
    # The start sees all pixels: how many it takes of an image would depend on the number of images.
    return tiny_encoder.set_params(kmeans="minibatch", n_samples=10_000)


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
    for i, image in enumerate(images):
        streamed.add(str(i), [image[:, :1] + 5, image[:, 1:] + 5])
        oracle.partial_fit(image)
    np.testing.assert_allclose(streamed.codebook().codewords[0], oracle.cluster_centers_, atol=1e-5)


def test_all_images_have_equal_weight_whatever_their_position() -> None:
    """A codeword is the mean of all that it was nearest to; so a single one is the mean of all."""
    rng = np.random.default_rng(0)
    images = [i + rng.standard_normal((1100, 2)).astype(np.float32) for i in range(20)]
    streamed = StreamedCodewords(in_the_plane([[-99, 99]]), random_state=0)
    for i, image in enumerate(images):
        streamed.add(str(i), [image[:, :1] + 5, image[:, 1:] + 5])
    mean = np.mean(images, axis=(0, 1))
    np.testing.assert_allclose(streamed.codebook().codewords[0][0], mean, rtol=1e-4)


def test_few_samples_wait_for_each_other_and_no_others_are_kept() -> None:
    rng = np.random.default_rng(0)
    streamed = StreamedCodewords(in_the_plane([[0, 0], [1, 1]]), random_state=0)
    most = 0
    for i in range(300):
        streamed.add(str(i), [rng.random((30, 1)), rng.random((30, 1))])
        most = max(most, sum(len(blocks[0]) for blocks in streamed._waiting))
    assert most < 1024 + 30
    streamed.codebook()
    assert streamed.n_samples == 9000


def test_too_few_samples_are_an_error() -> None:
    streamed = StreamedCodewords(in_the_plane([[0, 0], [1, 1], [2, 2]]), random_state=0)
    streamed.add("one", [np.ones((2, 1)), np.ones((2, 1))])
    with pytest.raises(ValueError, match="3 codewords cannot be learnt from 2 hypercolumns"):
        streamed.codebook()


def test_the_start_is_of_the_samples_and_repeatable() -> None:
    layer = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)
    options: dict[str, Any] = {"layer_components": None, "scale_layers": False}
    start = learn_codebook([layer], 5, start_only=True, **options)
    (words,) = start.codewords
    projected = start.projections[0].apply(layer)
    assert all((np.abs(projected - word).sum(axis=1) < 1e-6).any() for word in words)
    again = learn_codebook([layer], 5, start_only=True, **options)
    np.testing.assert_array_equal(again.codewords[0], words)


# --- in the encoder ---------------------------------------------------------------------------


@pytest.mark.parametrize("codebook", ["joint", "per_layer"])
@pytest.mark.parametrize("grid", ["finest", 100])
def test_order_batches_and_copies_do_not_matter(
    codebook: str, grid: Any, encoder: HypercolumnVLAD, texture_images: Images
) -> None:
    images, _ = texture_images
    encoder.set_params(codebook=codebook, grid=grid)
    expected = learnt(encoder, images, batch_size=4)
    assert_close(learnt(encoder, images, batch_size=4), expected)
    order = np.random.default_rng(1).permutation(len(images))
    assert_close(learnt(encoder, [images[i] for i in order], batch_size=7), expected)
    assert_close(learnt(encoder, [*images, images[3], images[5]], batch_size=1), expected)
    other = learnt(encoder, images, random_state=1)
    name = "codewords.joint" if codebook == "joint" else "codewords.0"
    assert np.abs(other[name] - expected[name]).max() > 1e-3


def test_batches_of_several_sizes_do_not_matter(
    encoder: HypercolumnVLAD, texture_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hypervlad.codebook._MIN_ROWS_PER_STEP", 100)
    mixed = [image if i % 2 else image[:, :12] for i, image in enumerate(texture_images[0])]
    encoder.set_params(aspect="own")
    assert_close(learnt(encoder, mixed, batch_size=8), learnt(encoder, mixed, batch_size=1))


@pytest.mark.parametrize(("grid", "n_each"), [(37, 37), ("image", 100), ("finest", 100)])
def test_every_image_is_used_once_in_the_order_of_digests(
    grid: Any,
    n_each: int,
    encoder: HypercolumnVLAD,
    texture_images: Images,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images, _ = texture_images
    monkeypatch.setattr(codebook_fit, "MAX_SAMPLED_IMAGES", 4)
    monkeypatch.setattr(codebook_fit, "MAX_SAMPLES_PER_IMAGE", 100)
    seen: list[tuple[str, int]] = []

    class Spied(StreamedCodewords):
        def add(self, digest: str, blocks: list[np.ndarray]) -> None:
            seen.append((digest, len(blocks[0])))
            super().add(digest, blocks)

    monkeypatch.setattr(codebook_fit, "StreamedCodewords", Spied)
    encoder.set_params(grid=grid).fit([*images, images[0]])
    assert [n for _, n in seen] == [n_each] * 24
    assert [digest for digest, _ in seen] == sorted({digest for digest, _ in seen})
    assert encoder.n_images_ == 25


def test_images_beyond_the_pool_change_the_codewords(
    encoder: HypercolumnVLAD, texture_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few images are sampled at first; but one codeword is the mean of all: residuals vanish."""
    images, _ = texture_images
    monkeypatch.setattr(codebook_fit, "MAX_SAMPLED_IMAGES", 4)
    encoder.set_params(n_codewords=1, grid="image", normalize=None, n_samples=1000)
    residuals = encoder.fit(images).transform(images)
    scale = np.abs(residuals).max()
    assert np.abs(residuals.mean(axis=0)).max() < 1e-4 * scale
    ordinary = clone(encoder).set_params(kmeans="lloyd").fit(images).transform(images)
    assert np.abs(ordinary.mean(axis=0)).max() > 1e-2 * scale


def test_fit_warns_once_of_skipped_images(
    encoder: HypercolumnVLAD, texture_images: Images, tmp_path: Any
) -> None:
    bad = tmp_path / "broken.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    images = texture_images[0][:6]
    encoder.set_params(on_error="skip")
    with pytest.warns(SkippedImagesWarning, match=r"broken\.png") as record:
        skipped = learnt(encoder, [bad, *images])
    assert len(record) == 1
    assert_close(skipped, learnt(encoder, images))


def test_it_is_saved_and_loaded(
    encoder: HypercolumnVLAD, texture_images: Images, tmp_path: Any
) -> None:
    import hypervlad

    vectors = encoder.fit_transform(texture_images[0])
    encoder.save(tmp_path / "words.hvlad")
    loaded = hypervlad.load(tmp_path / "words.hvlad")
    assert loaded.kmeans == "minibatch"
    np.testing.assert_array_equal(loaded.transform(texture_images[0]), vectors)
