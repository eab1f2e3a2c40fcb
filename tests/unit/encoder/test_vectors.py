"""Vectors: what they are where anybody can say it, a slow oracle, and what must not change them."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from support.oracle import maps_of, normalised, residual_sums, threads, vector_of

from hypervlad import HypercolumnVLAD, register_backbone
from hypervlad.features import Preprocessing

JOINT, PER_LAYER = ("joint",), ("per_layer",)
BOTH = JOINT + PER_LAYER
BLACK_AND_WHITE = np.repeat(np.array([[0.0, 1.0]], np.float32), 4, axis=0).repeat(2, axis=1)


# --- what anybody can say -------------------------------------------------------------------------


def by_word(encoder, image):
    """Return the parts of an image's vector for the darker and for the lighter codeword."""
    dark, light = np.argsort(encoder.codebook_.joint[:, 0])
    parts = encoder.transform([image])[0].reshape(2, -1)
    return parts[dark], parts[light]


def test_residuals_are_added_up_by_codeword_and_normalised_twice(levels):
    encoder = levels().fit([BLACK_AND_WHITE])
    np.testing.assert_array_equal(np.sort(encoder.codebook_.joint[:, 0]), [-0.5, 0.5])
    # Black is off by 0.1 + 0.2, white by -0.1 - 0.3, in each of three equal channels.
    image = np.array([[0.1, 0.2], [0.9, 0.7]], np.float32)
    dark, light = by_word(encoder, image)
    np.testing.assert_allclose(dark, [1 / 6**0.5] * 3, rtol=1e-5)
    np.testing.assert_allclose(light, [-1 / 6**0.5] * 3, rtol=1e-5)
    (words,) = encoder.codeword_maps(image)
    assert (words == np.argsort(encoder.codebook_.joint[:, 0])[[[0, 0], [1, 1]]]).all()
    assert encoder.transform([image]).dtype == np.float32


def test_pixels_that_are_codewords_have_no_residual(levels):
    encoder = levels(blocks=("joint", "pooled")).fit([BLACK_AND_WHITE])
    np.testing.assert_array_equal(encoder.transform([BLACK_AND_WHITE]), np.zeros((1, 9)))
    # Averages are in deviations of a channel, 0.5, divided by the root of the number of channels.
    white = encoder.encode([np.ones((2, 2), np.float32)]).vectors[0]
    np.testing.assert_allclose(white, [0] * 6 + [0.5 / 0.5 / 3**0.5] * 3, rtol=1e-5)
    unit = levels(blocks=("joint", "pooled_unit")).fit([BLACK_AND_WHITE])
    grey = unit.transform([np.array([[0.25, 0.26]] * 2)])[0]
    np.testing.assert_allclose(grey[6:], [-(3**-0.5)] * 3, rtol=1e-5)


def test_a_codeword_of_one_position_is_exact(levels):
    """It gets full weight, so its residual must not be noise, however many others there are."""
    encoder, image = levels().fit([BLACK_AND_WHITE]), np.zeros((40, 40, 3), np.float32)
    image[20, 10] = 1.0, 0.75, 1.0
    dark, light = by_word(encoder, image)
    np.testing.assert_array_equal(dark, 0)
    np.testing.assert_allclose(light, [0, -1, 0], atol=1e-6)


def test_a_coarse_layer_is_enlarged_between_the_centres_of_its_cells(levels):
    encoder = levels(1, taps=["0", "1"], blocks="per_layer").fit([BLACK_AND_WHITE])
    step = np.array([[0, 0, 0.5, 0.5]] * 2, np.float32)
    weights = np.repeat([[0.0], [1.0]], 3, axis=0)  # of the coarse layer
    evidence = encoder.explain_vector(step, weights).blocks["per_layer.1"][0]
    # Its cells, 0 and 1/2, become 0, 1/8, 3/8 and 1/2; the codeword is 1/2.
    np.testing.assert_allclose(evidence / evidence[0, 0], [[1, 0.75, 0.25, 0]] * 2, atol=1e-6)


# --- a slow oracle --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("blocks", "grid", "sampling", "turns"),
    [
        ((*JOINT, "pooled"), "finest", "anyloc", 1),
        ((*JOINT, "pooled_unit"), "image", 300, 8),
        ((*JOINT, "pooled"), 10_000, "anyloc", 8),  # all pixels, in another order
        ((*PER_LAYER, "pooled_unit"), "finest", 300, 8),
        ((*PER_LAYER, "pooled"), 10_000, 300, 1),
        ((*BOTH, "pooled"), "finest", "anyloc", 8),
        ((*BOTH, "pooled_unit"), "image", 300, 2),
    ],
)
def test_every_grid_and_codebook_is_the_sum_over_explicit_hypercolumns(
    blocks, grid, sampling, turns, tiny_encoder, tiny_module, tiny_weights, images
):
    encoder = tiny_encoder.set_params(blocks=blocks, grid=grid, turns=turns, sampling=sampling)
    # Taps that are not those of the finest map, and one that a later layer changes in place.
    encoder.set_params(weights=tiny_weights, taps=["4", "0", "3"]).fit(images[:6])
    found = encoder.transform(images[:1])[0]
    np.testing.assert_allclose(
        found, vector_of(encoder, images[0], maps_of(tiny_module)), atol=1e-5
    )
    assert len(found) == sum(encoder.feature_blocks.values())


def test_a_number_of_pixels_is_a_random_sample_of_each_image(tiny_encoder, images):
    whole, few, many = (
        clone(tiny_encoder).set_params(grid=grid).fit(images[:6]).transform(images[:4])
        for grid in ("image", 20, 200)
    )
    away = [np.linalg.norm(found - whole, axis=1) for found in (few, many)]
    assert (away[0] > away[1]).all()
    assert (away[1] > 0).all()


class Pooled(torch.nn.Module):
    """Maps of any sizes: the image, averaged over as many cells."""

    def __init__(self, sizes):
        super().__init__()
        self.start = torch.nn.Conv2d(3, 3, 1, bias=False)
        torch.nn.init.dirac_(self.start.weight)
        for number, size in enumerate(sizes):
            self.add_module(f"map{number}", torch.nn.AdaptiveAvgPool2d(size))

    def forward(self, images):
        seen = self.start(images)
        for layer in list(self.children())[1:]:
            layer(seen)


def pooled_encoder(sizes, n_words, seed):
    """Return an encoder with codewords learnt from noise."""
    taps = [f"map{number}" for number in range(len(sizes))]
    plain = Preprocessing((0.0,) * 3, (1.0,) * 3, minimum_size=1)
    register_backbone("pooled", lambda: Pooled(sizes), taps, plain)
    encoder = HypercolumnVLAD(
        "pooled",
        weights="random",
        image_size=None,
        n_codewords=n_words,
        sampling="anyloc",
        read_options={"scaling": "dtype"},
        random_state=0,
    )
    return encoder.fit(list(np.random.default_rng(seed).random((2, 11, 13, 3))))


sizes_of_maps = st.lists(st.tuples(st.integers(1, 11), st.integers(1, 13)), min_size=2, max_size=2)


@settings(deadline=None, max_examples=20)
@given(sizes=sizes_of_maps, n_words=st.integers(1, 6), seed=st.integers(0, 2**16))
@example(sizes=[(1, 1), (1, 1)], n_words=1, seed=0)
@example(sizes=[(11, 2), (3, 13)], n_words=6, seed=1)  # the grid is of no layer
def test_maps_of_any_sizes_are_summed_as_the_definition_says(sizes, n_words, seed):
    encoder = pooled_encoder(sizes, n_words, seed)
    images = list(np.random.default_rng(seed + 1).random((2, 11, 13, 3), dtype=np.float32))
    module = Pooled(sizes)
    expected = [vector_of(encoder, image, maps_of(module)) for image in images]
    np.testing.assert_allclose(encoder.transform(images), expected, atol=2e-3)


def test_more_scores_than_fit_in_memory_are_computed_in_parts(levels):
    n_words, n_threads = 37, 4
    rng = np.random.default_rng(0)
    encoder = levels(n_words).fit([rng.random((40, 60, 3), dtype=np.float32)])
    image = rng.random((512, 512, 3), dtype=np.float32)  # times 40 codewords: ten million
    with threads(n_threads):
        words, found = encoder.codeword_maps(image), encoder.transform([image])[0]
    columns = (image.reshape(-1, 3) - encoder.codebook_.projections[0].mean).astype(np.float64)
    joint = encoder.codebook_.joint.astype(np.float64)
    sums = residual_sums(columns, joint, words.ravel())
    np.testing.assert_allclose(found, normalised([sums]), atol=1e-4)


# --- what must not change a vector ----------------------------------------------------------------


@pytest.mark.parametrize("grid", ["finest", 40])
def test_order_neighbours_and_batches_do_not_matter(grid, tiny_encoder, images):
    order = np.random.default_rng(1).permutation(len(images))
    tiny_encoder.set_params(grid=grid)
    expected = clone(tiny_encoder).fit(images).transform(images)
    shuffled = clone(tiny_encoder).set_params(batch_size=5)
    again = shuffled.fit([images[i] for i in order]).transform([images[i] for i in order])
    np.testing.assert_allclose(again, expected[order], atol=1e-5)
    np.testing.assert_allclose(shuffled.transform([images[3]])[0], expected[3], atol=1e-5)
    other = clone(tiny_encoder).set_params(random_state=1).fit(images).transform(images)
    assert np.abs(other - expected).max() > 0.01


@pytest.mark.parametrize("turns", [1, 2, 4, 8])
@pytest.mark.parametrize("shape", [(16, 16), (24, 16)])
def test_four_turns_are_invariant_to_rotation_and_eight_to_mirroring(turns, shape, tiny_encoder):
    image = np.random.default_rng(0).random(shape, dtype=np.float32)
    image[:6, :5] = 0  # a corner that tells sides and hands apart
    turned = [np.rot90(image[:, ::-1] if turn >= 4 else image, turn % 4) for turn in range(8)]
    tiny_encoder.set_params(image_size=None, turns=turns, blocks=(*BOTH, "pooled"))
    vectors = tiny_encoder.fit([image.T]).transform(turned)
    same = [bool(np.allclose(each, vectors[0], atol=1e-4)) for each in vectors]
    assert same == [turn == 0 or turns == 8 or (turns == 4 and turn < 4) for turn in range(8)]


# --- explanations, and numbers that are not finite ------------------------------------------------


@pytest.mark.parametrize(("grid", "turns"), [("finest", 1), ("image", 8)])
def test_evidence_adds_up_to_the_vector_times_the_weights(grid, turns, tiny_encoder, images):
    tiny_encoder.set_params(grid=grid, turns=turns, blocks=(*BOTH, "pooled")).fit(images[:6])
    vector = tiny_encoder.transform(images[:1])[0]
    weights = np.random.default_rng(0).normal(size=(len(vector), 2))
    found = tiny_encoder.explain_vector(images[0], weights)
    np.testing.assert_array_equal(found.row, vector)
    np.testing.assert_allclose(found.vector, vector, atol=1e-5)
    total = sum(block.sum(axis=(1, 2)) for block in found.blocks.values())
    np.testing.assert_allclose(total, vector @ weights, atol=1e-4)
    joint = tiny_encoder.feature_blocks["joint"]
    own = (vector[:joint, None] * weights[:joint]).reshape(4, -1, 2).sum(axis=1).T
    np.testing.assert_allclose(found.words["joint"], own, atol=1e-4)


class Reciprocal(torch.nn.Conv2d):
    def forward(self, x):
        return 0 / super().forward(x)


def test_numbers_that_are_not_finite_are_refused_with_the_image():
    def build():
        layer = Reciprocal(3, 4, 1)
        torch.nn.init.zeros_(layer.bias)
        return torch.nn.Sequential(layer)

    plain = Preprocessing((0.0,) * 3, (1.0,) * 3, minimum_size=1)
    register_backbone("reciprocal", build, ["0"], plain)
    encoder = HypercolumnVLAD("reciprocal", weights="random", image_size=None, n_codewords=1)
    encoder.set_params(read_options={"scaling": "dtype"}).fit([np.full((4, 4), 0.5)])
    black = np.full((3, 4, 4), 0.5)
    black[-1, 2, 2] = 0
    with pytest.raises(ValueError, match="not finite for 1 image, starting with image"):
        encoder.transform(list(black))
