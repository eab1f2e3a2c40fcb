"""Evidence by place adds up to the margins, and lies where the texture is."""

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from support.surfaces import texture_patterns

from hypervlad import BoostedSoftmaxClassifier, HypercolumnVLAD, MicrographClassifier

SIZE = 16
JOINT, PER_LAYER = ("joint",), ("per_layer",)
BOTH = JOINT + PER_LAYER
FAST = {"n_estimators": 0, "Cs": 1.0}
TINY = {
    "weights": "random",
    "image_size": SIZE,
    "n_codewords": 4,
    "sampling": 400,
    "random_state": 0,
}


@cache
def textures(n_classes, shape=(20, 24)):
    """Noisy stripes, rings and flat grey, six images of each."""
    rng, patterns = np.random.default_rng(0), texture_patterns(shape, stripes=9)
    names = sorted(patterns)[-n_classes:]
    labels = np.array(names * 6)
    noise = 0.05 * rng.standard_normal((len(labels), *shape))
    images = [
        np.clip(0.5 + 0.3 * patterns[name] + added, 0, 1).astype(np.float32)
        for name, added in zip(labels, noise, strict=True)
    ]
    return images, labels


def fitted(n_classes=3, learner=FAST, **encoder):
    images, labels = textures(n_classes)
    model = MicrographClassifier(
        HypercolumnVLAD("tiny", **{**TINY, **encoder}),
        boosting=BoostedSoftmaxClassifier(**learner),
        calibrate=False,
        random_state=0,
    )
    return model.fit(images, labels)


@cache
def model_of_all():
    """A model of three classes that tests leave as it is."""
    return fitted(on_error="skip")


def check_sum(found, model, image):
    n_classes = len(model.classes_)
    total = found.baseline + found.maps.sum(axis=(1, 2), dtype=np.float64) + found.trees
    np.testing.assert_allclose(total, found.margins, rtol=1e-6, atol=1e-6)
    expected = model.decision_function([image])[0]
    if n_classes == 2:  # the margin of the second class over the first
        expected = np.array([0.0, expected])
    np.testing.assert_allclose(found.margins, expected - expected.mean(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.probabilities, model.predict_proba([image])[0], atol=1e-4)
    assert found.label == model.predict([image])[0]
    assert (found.maps.shape[0], found.maps.dtype) == (n_classes, np.float32)
    np.testing.assert_allclose(found.maps.sum(axis=0), 0, atol=1e-5)
    for name, words in found.words.items():
        np.testing.assert_allclose(words.sum(axis=1), found.totals[name], rtol=1e-6, atol=1e-6)


@settings(max_examples=8)  # a model is fitted for each
@given(data=st.data())
def test_the_evidence_adds_up_to_the_margins(data):
    codebooks = data.draw(st.sampled_from([JOINT, PER_LAYER, BOTH]), "codebooks")
    pooled = data.draw(st.sampled_from([(), ("pooled",), ("pooled_unit",)]), "pooled")
    model = fitted(
        n_classes=data.draw(st.sampled_from([2, 3]), "n_classes"),
        blocks=codebooks + pooled,
        grid=data.draw(st.sampled_from(["finest", "image"]), "grid"),
        turns=data.draw(st.sampled_from([1, 2, 8]), "turns"),
        image_size=data.draw(st.sampled_from([SIZE, None]), "image_size"),
        sampling=data.draw(st.sampled_from(["anyloc", 400]), "sampling"),
    )
    image = textures(3)[0][data.draw(st.integers(0, 17), "image")]
    found = model.explain(image)
    check_sum(found, model, image)
    assert {name.split(".")[0] for name in found.blocks} == set(model.encoder_.feature_blocks)
    assert found.codeword_maps.shape == (len(found.words), *found.maps.shape[1:])
    np.testing.assert_array_equal(found.codeword_maps, model.encoder_.codeword_maps(image))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_trees_have_a_share_but_no_place(n_classes):
    kept = {"n_estimators": 3, "Cs": 1.0, "n_iter_no_change": None}
    model = fitted(n_classes, kept)
    assert model.boosting_.n_estimators_ == 3
    image = textures(n_classes)[0][0]
    found = model.explain(image)
    check_sum(found, model, image)
    assert np.abs(found.trees).max() > 1e-3
    np.testing.assert_allclose(found.trees.sum(), 0, atol=1e-6)
    assert not model_of_all().explain(image).trees.any()


def enlarged(layer, size):
    """A layer (h, w, C) at every position of a grid, by torch's own enlargement."""
    tensor = torch.from_numpy(layer).permute(2, 0, 1)[None]
    out = torch.nn.functional.interpolate(tensor, size, mode="bilinear", align_corners=False)
    return out[0].permute(1, 2, 0).numpy()


def residual_evidence(columns, words, nearest, weights):
    """Loop over positions: e(p) = sum_d w_kd g_kd (x_pd - c_kd), with intra-normalisation."""
    sums = np.zeros_like(words)
    for p in np.ndindex(nearest.shape):
        sums[nearest[p]] += columns[p] - words[nearest[p]]
    lengths = np.sqrt((sums**2).sum(axis=1))
    # All codewords that occur have the same length: l2 divides by the root of their number.
    n_seen, evidence = (lengths > 0).sum(), np.zeros(nearest.shape)
    for p in np.ndindex(nearest.shape):
        k = nearest[p]
        residual = (columns[p] - words[k]) / lengths[k] / np.sqrt(n_seen)
        evidence[p] = weights[k] @ residual
    return evidence


def test_every_place_against_loops():
    images, _ = textures(3)
    encoder = HypercolumnVLAD("tiny", **TINY | {"image_size": None}, blocks=(*BOTH, "pooled_unit"))
    encoder.fit(images)
    image, rng = images[4], np.random.default_rng(1)
    vector = encoder.transform([image])[0]
    weights = rng.standard_normal(len(vector))
    found = encoder.explain_vector(image, weights[:, None])
    np.testing.assert_allclose(found.vector, vector, atol=1e-5)

    maps = encoder.network()(encoder.loader().load_batch(image).tensors)
    raw = [layer[0].permute(1, 2, 0).double().numpy() for layer in maps]
    projections = encoder.codebook_.projections
    layers = [p.apply(layer).astype(np.float64) for p, layer in zip(projections, raw, strict=True)]
    grid = layers[0].shape[:2]
    (joint, *own), first = encoder.codebook_.codewords, 0

    columns = np.concatenate([enlarged(layer, grid) for layer in layers], axis=2)
    block = weights[: joint.size].reshape(joint.shape)
    nearest = encoder.codeword_maps(image)[0]
    expected = residual_evidence(columns, joint.astype(float), nearest, block)
    np.testing.assert_allclose(found.blocks["joint"][0], expected, atol=1e-5)
    for k in range(len(joint)):
        in_word = expected[nearest == k].sum()
        np.testing.assert_allclose(found.words["joint"][0, k], in_word, atol=1e-5)

    # A layer's codewords beside joint ones are on the layer's own cells, all normalised as one.
    first = joint.size
    sums, nearest_own = [], []
    for layer, words in zip(layers, own, strict=True):
        distances = ((layer[:, :, None] - words) ** 2).sum(-1)
        nearest_own.append(distances.argmin(-1))
        residuals = layer - words[nearest_own[-1]]
        sums.append([residuals[nearest_own[-1] == k].sum(axis=0) for k in range(len(words))])
    lengths = [np.linalg.norm(each, axis=1) for each in sums]
    n_seen = sum((length > 0).sum() for length in lengths)
    for tap, layer, words, near, length in zip(
        encoder.taps_, layers, own, nearest_own, lengths, strict=True
    ):
        block = weights[first : first + words.size].reshape(words.shape)
        first += words.size
        residuals = (layer - words[near]) / length[near][..., None] / np.sqrt(n_seen)
        cells = (residuals * block[near]).sum(-1)
        expected = spread_by_loops(cells, grid)
        np.testing.assert_allclose(found.blocks[f"per_layer.{tap}"][0], expected, atol=1e-5)

    pairs = list(zip(projections, raw, strict=True))
    means = [((layer - p.mean) / p.std).mean(axis=(0, 1)) for p, layer in pairs]
    length, expected = np.linalg.norm(np.concatenate(means)), np.zeros(grid)
    for p, layer in pairs:
        channels = weights[first : first + layer.shape[2]]
        first += layer.shape[2]
        cells = ((layer - p.mean) / p.std) @ channels / length
        expected += spread_by_loops(cells / cells.size, grid)
    assert first == len(weights)
    np.testing.assert_allclose(found.blocks["pooled"][0], expected, atol=1e-5)


def spread_by_loops(cells, grid):
    """Give each cell's value to the positions in the shares of its bilinear tent."""
    result = np.zeros(grid)
    for y, x in np.ndindex(cells.shape):
        one = np.zeros((*cells.shape, 1))
        one[y, x] = 1
        tent = enlarged(one, grid)[:, :, 0]
        result += cells[y, x] * tent / tent.sum()
    return result


@pytest.mark.parametrize("flips", [False, True])
def test_a_turned_image_has_turned_evidence(flips):
    model, image = fitted(blocks=(*BOTH, "pooled"), turns=8), textures(3)[0][1]
    maps = model.explain(image).maps
    tolerance = 1e-4 * float(np.abs(maps).max())
    for turn in range(4):

        def turned(array, turn=turn):
            array = array[..., ::-1] if flips else array
            return np.ascontiguousarray(np.rot90(array, turn, axes=(-2, -1)))

        np.testing.assert_allclose(model.explain(turned(image)).maps, turned(maps), atol=tolerance)


def test_what_cannot_be_explained_is_reported(tmp_path):
    images, labels = textures(3)
    model, learner = model_of_all(), LogisticRegression()
    foreign = MicrographClassifier(model.encoder, boosting=learner, calibrate=False)
    for each, image, words in (
        (model, images[:2], "one image, a path or an array, not a list"),
        (model, tmp_path / "absent.png", r"absent\.png"),
        (foreign.fit(images, labels), images[0], "the learner is a LogisticRegression; only"),
        (fitted(learner={"init": None, "n_estimators": 2}), images[0], "no linear part"),
        (fitted(grid=50), images[0], "grid=50 takes random pixels"),
    ):
        with pytest.raises(ValueError, match=words):
            each.explain(image)
