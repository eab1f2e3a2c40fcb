"""What a codebook is learnt from, and what it must then be."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from support.counting import CountingImage


def arrays(encoder):
    """Return all numbers of a codebook by name."""
    book = encoder.codebook_
    found = {f"codewords {number}": words for number, words in enumerate(book.codewords)}
    for tap, projection in zip(encoder.taps_, book.projections, strict=True):
        named = vars(projection).items()
        found |= {f"{tap} {name}": value for name, value in named if value is not None}
    return found


def assert_close(one, other):
    first, second = arrays(one), arrays(other)
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_allclose(second[name], array, atol=1e-5, err_msg=name)


def colours(n_pixels=500):
    """Return an image of correlated colours."""
    rng = np.random.default_rng(0)
    mixing = np.array([[1, 0.8, 0.2], [0, 0.5, -0.3], [0, 0, 0.1]])
    pixels = 0.5 + 0.1 * rng.standard_normal((n_pixels, 3)) @ mixing
    return pixels.reshape(20, -1, 3).clip(0, 1).astype(np.float32)


# --- projections ----------------------------------------------------------------------------------


def test_layers_are_centred_and_reduced_to_components_of_unit_total_variance(levels):
    image = colours()
    encoder = levels(4, taps=["0"], sampling=20_000).fit([image])
    pixels = image.reshape(-1, 3).astype(np.float64)
    (projection,) = encoder.codebook_.projections
    np.testing.assert_allclose(projection.mean, pixels.mean(0), rtol=1e-5)
    np.testing.assert_allclose(projection.std, pixels.std(0), rtol=1e-5)
    values, vectors = np.linalg.eigh(np.cov(pixels.T, ddof=0))
    expected = vectors[:, ::-1].T / np.sqrt(values.sum())
    np.testing.assert_allclose(np.abs(projection.components), np.abs(expected), atol=1e-4)


# --- codewords ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", ["anyloc", "luo2021"])
def test_codewords_are_the_means_of_clusters(sampling, levels):
    rng = np.random.default_rng(0)
    centres = np.array([[0.1, 0.1, 0.1], [0.9, 0.1, 0.5], [0.5, 0.9, 0.9]])
    numbers = rng.integers(0, 3, (4, 40, 40))
    images = (centres[numbers] + 0.02 * rng.standard_normal((4, 40, 40, 3))).astype(np.float32)
    encoder = levels(3, sampling=sampling).fit(list(images))
    found = encoder.codebook_.joint + encoder.codebook_.projections[0].mean
    expected = np.stack([images[numbers == k].mean(axis=0) for k in range(3)])
    order = [np.abs(found - each).sum(axis=1).argmin() for each in expected]
    np.testing.assert_allclose(found[order], expected, atol=1e-5)


def test_flat_images_give_a_codebook_all_the_same(levels):
    for sampling in (20_000, "anyloc", "luo2021"):
        encoder = levels(4, sampling=sampling).fit([np.full((9, 9), 0.5)])
        assert all(np.isfinite(array).all() for array in arrays(encoder).values())
        np.testing.assert_array_equal(encoder.codebook_.projections[0].std, 1)
        np.testing.assert_array_equal(encoder.codebook_.joint, 0)


@pytest.mark.parametrize("sampling", [20_000, "luo2021"])
def test_fewer_pixels_than_codewords_are_an_error(sampling, levels):
    with pytest.raises(ValueError, match="82 codewords cannot be learnt from 81 hypercolumns"):
        levels(82, sampling=sampling).fit([np.random.default_rng(0).random((9, 9))])
    # A number of pixels is used of each image, too.
    assert levels(81, sampling="anyloc").fit([np.random.default_rng(0).random((9, 9))]).n_images_


def test_last_digits_do_not_change_the_codewords(levels, tmp_path):
    """Without clusters, many sets of codewords fit almost equally well."""
    image = np.random.default_rng(0).uniform(0.2, 0.8, (70, 70, 3)).astype(np.float32)
    fits = []
    for last_digit in (0, 1e-7):
        weights = (1 + last_digit) * torch.eye(3)[:, :, None, None]
        torch.save({"0.weight": weights}, tmp_path / "w.pth")
        fits.append(levels(24, weights=tmp_path / "w.pth").fit([image]))
    assert fits[0].weights_digest_ != fits[1].weights_digest_
    assert_close(*fits)


# --- images, their order and copies ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampling", "blocks", "grid"),
    [("luo2021", "joint", "finest"), ("luo2021", "per_layer", 100), (400, "joint", "finest")],
)
def test_order_and_copies_do_not_matter_but_seeds_do(sampling, blocks, grid, tiny_encoder, images):
    tiny_encoder.set_params(sampling=sampling, blocks=blocks, grid=grid)
    expected = clone(tiny_encoder).fit(images)
    order = np.random.default_rng(1).permutation(len(images))
    assert_close(clone(tiny_encoder).fit([images[i] for i in order]), expected)
    if sampling == "luo2021":  # copies change how many pixels of each image a pool of 400 has
        copies = clone(tiny_encoder).fit([*images, images[3], images[5]])
        assert copies.n_images_ == 26
        assert_close(copies, expected)
    other = clone(tiny_encoder).set_params(random_state=1).fit(images)
    words = expected.codebook_.codewords[0]
    assert np.abs(np.sort(other.codebook_.codewords[0], 0) - np.sort(words, 0)).max() > 1e-3


@pytest.mark.parametrize(
    ("method", "change", "n_reads", "n_passes"),
    [
        ("fit_transform", {"turns": 2}, 2, 1 + 2),  # for the codebook, and for each turn
        ("fit", {"sampling": "luo2021"}, 2, 2),  # for the first codewords, and for the final ones
        ("fit", {}, 1, 1),
    ],
)
def test_how_often_an_image_is_read_and_passes_the_network(
    method, change, n_reads, n_passes, tiny_encoder, images, passes
):
    counted = [CountingImage(image) for image in images]
    getattr(tiny_encoder.set_params(**change), method)(counted)
    assert {image.n_reads for image in counted} == {n_reads}
    assert sum(n for n, *_ in passes) == n_passes * 24


# --- more than a thousand images ------------------------------------------------------------------


@pytest.mark.full  # 1,100 images, four times
def test_of_more_than_a_thousand_images_about_a_thousand_are_sampled(levels):
    many = list(np.random.default_rng(0).random((1100, 4, 4), dtype=np.float32))
    first = levels(4).fit(many)
    assert first.n_images_ == 1100
    assert_close(levels(4).fit(many[::-1]), first)
    # The only codeword of "luo2021" ends at the mean of all, whatever the sample that it starts at.
    every = levels(1, sampling="luo2021").fit(many).codebook_
    start = every.projections[0].mean
    np.testing.assert_array_equal(start, first.codebook_.projections[0].mean)
    np.testing.assert_allclose(start + every.joint[0], np.mean(many), atol=1e-6)
    assert np.abs(every.joint).min() > 1e-5
