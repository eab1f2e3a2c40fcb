"""`PatchCNNClassifier`: training, maps, and what it refuses."""

import copy

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from support.damage import damaged

from hypervlad import ModelFileError
from hypervlad.images import ImageReadError
from hypervlad.models import PatchCNNClassifier

SIDE = 28


def small(**parameters):
    """A classifier that learns in a second."""
    usual = {"learning_rate": 0.003, "batch_size": 20, "max_epochs": 12, "random_state": 0}
    return PatchCNNClassifier(**usual | parameters)


def make_patches(n, seed=0, side=SIDE):
    """Noise, and noise with a bright spot as the defect."""
    rng = np.random.default_rng(seed)
    patches = rng.uniform(0.2, 0.4, (n, side, side)).astype(np.float32)
    labels = np.where(np.arange(n) % 2, "anomalous", "normal")
    for i in np.flatnonzero(labels == "anomalous"):
        row, column = rng.integers(4, side - 14, 2)
        patches[i, row : row + 10, column : column + 10] += 0.5
    return patches, labels


@pytest.fixture(scope="module")
def fitted():
    patches, labels = make_patches(120)
    return small().fit(patches, labels)


def test_it_learns(fitted):
    patches, labels = make_patches(100, seed=1)
    proba, margins = fitted.predict_proba(patches), fitted.decision_function(patches)
    assert ((margins > 0) == (labels == "normal")).mean() > 0.95
    np.testing.assert_allclose(np.log(proba[:, 1] / proba[:, 0]), margins, atol=1e-6)
    assert fitted.classes_.tolist() == ["anomalous", "normal"]
    assert (fitted.patch_, fitted.n_channels_) == (SIDE, 1)


def test_scores_are_those_of_the_network_of_the_report(fitted):
    weights = list(fitted.weights_.values())
    patches = make_patches(4, seed=2)[0]
    for signal, found in zip(
        patches[:, None].astype(float), fitted.decision_function(patches), strict=True
    ):
        for kernel, bias in zip(weights[:6:2], weights[1:6:2], strict=True):
            windows = sliding_window_view(signal, kernel.shape[2:], axis=(1, 2))
            signal = np.einsum("chwij,ocij->ohw", windows, kernel) + bias[:, None, None]
            n_filters, side = len(signal), signal.shape[1] // 2
            cells = signal[:, : 2 * side, : 2 * side].reshape(n_filters, side, 2, side, 2)
            signal = np.maximum(cells.max(axis=(2, 4)), 0)
        hidden = np.maximum(weights[6] @ signal.ravel() + weights[7], 0)
        np.testing.assert_allclose(found, weights[8] @ hidden + weights[9], rtol=1e-4, atol=1e-5)


def test_the_best_weights_are_kept_and_patience_ends_it():
    """Of noise: the more is learnt of it, the worse the answers on other noise."""
    rng = np.random.default_rng(0)
    patches = rng.random((30, SIDE, SIDE)).astype(np.float32)
    labels = np.array(["anomalous", "normal"] * 15)
    model = small(max_epochs=100, patience=5).fit(patches, labels)
    losses = model.curves_.validation_loss
    assert len(losses) < 100
    assert len(losses) - 1 - model.curves_.best_epoch == 5
    assert losses[-1] > min(losses) == losses[model.curves_.best_epoch]
    short = small(max_epochs=model.curves_.best_epoch + 1).fit(patches, labels)
    np.testing.assert_array_equal(
        short.decision_function(patches), model.decision_function(patches)
    )
    assert {len(each) for each in vars(model.curves_).values()} == {len(losses)}


def test_patches_and_images_are_scaled_alike():
    """Whatever greys a patch of many bits happens to have."""
    patches, labels = make_patches(40)
    wide = np.round(patches * 65535).astype(np.uint16)
    model = small(max_epochs=1).fit(wide, labels)
    image = np.full((2 * SIDE, 2 * SIDE), wide[0].min(), dtype=np.uint16)
    image[:SIDE, :SIDE] = wide[1]
    np.testing.assert_allclose(model.score_map(image)[0, 0], -model.decision_function(wide[1:2]))
    with pytest.raises(ImageReadError):
        small().fit(255 * patches, labels)


@pytest.mark.parametrize("stride", [9, 40])
def test_a_pixel_has_the_mean_score_of_its_patches(fitted, stride):
    """Of an image that is mirrored at its edges; NaN between patches."""
    image = np.random.default_rng(3).random((50, 61)).astype(np.float32)
    mirrored = np.pad(image, ((0, SIDE), (0, SIDE)), mode="symmetric")
    total, n = np.zeros((2, *mirrored.shape))
    for top, left in np.ndindex(image.shape):
        covered = [top - stride + SIDE < len(image), left - stride + SIDE < image.shape[1]]
        if top % stride == left % stride == 0 and all(covered):
            patch = np.s_[top : top + SIDE, left : left + SIDE]
            total[patch] -= fitted.decision_function([mirrored[patch]])
            n[patch] += 1
    with np.errstate(invalid="ignore"):
        expected = (total / n)[: image.shape[0], : image.shape[1]]
    np.testing.assert_allclose(fitted.score_map(image, stride=stride), expected, atol=1e-5)


PATCHES, LABELS = make_patches(20)
MIXED = [*PATCHES[:-1], np.zeros((SIDE, SIDE + 1))]
MINMAX = {"read_options": {"scaling": "minmax"}}


@pytest.mark.parametrize(
    ("parameters", "given", "words"),
    [
        ({"learning_rate": 0}, {}, "learning_rate must be a number above 0, not 0"),
        (MINMAX, {}, "would scale each patch by its own greys"),
        ({}, {"y": ["normal"] * 20}, r"of one class, \['normal'\]; expected two"),
        ({}, {"y": [*LABELS[:-1], "other"]}, "of 3 classes"),
        ({}, {"groups": LABELS}, "no group can be held out"),
        ({}, {"X": MIXED}, r"19.*28 x 29 pixels.*28 x 28, as the others"),
        ({}, {"X": PATCHES[:, :27, :27]}, r"needs at least 28 x 28 and takes at most 2048"),
    ],
)
def test_what_cannot_be_learnt(fitted, parameters, given, words):
    model = copy.copy(fitted).set_params(**parameters)
    with pytest.raises(ValueError, match=words):  # an ImageReadError is one
        model.fit(**{"X": PATCHES, "y": LABELS} | given)
    assert model.weights_ is fitted.weights_


def test_a_damaged_state_is_an_error(fitted):
    header, arrays = fitted.to_state()
    wide = {name: each.astype(np.float64) for name, each in arrays.items()}
    for other in (wide, *damaged(arrays, finite=False)):
        with pytest.raises(ModelFileError):
            PatchCNNClassifier.from_state(header, other)
