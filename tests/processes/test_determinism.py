"""One folder and one seed give one model, however its images are read and encoded.

The last digits of a network's output depend on the other images of its batch and on the number of
threads. Nothing that follows may magnify them: not K-means, and not the folds of the classifier.
"""

import numpy as np
import pytest
import torch
from PIL import Image

from hypervlad import HypercolumnVLAD, MicrographClassifier

ROUNDING = 1e-5  # of a probability, over batches
THREADS = 1e-3


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Images of three classes that overlap, so that probabilities are not all 0 or 1."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    x = np.mgrid[:60, :72][1]
    found = []
    for number in range(36):
        wave = np.sin(x / (3 + 2 * (number % 3)) + rng.normal()) * rng.normal(1, 0.3)
        pixels = 128 + 40 * wave + 40 * rng.normal(size=x.shape)
        path = root / "abc"[number % 3] / f"{number:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)
        found.append(path)
    return found


def probabilities(files, *, reverse=False, **parameters):
    """Train on two thirds of the files; return the probabilities of all, in their order."""
    encoder = HypercolumnVLAD(weights="random", image_size=64, n_codewords=4, sampling=2000)
    model = MicrographClassifier(encoder.set_params(**parameters), random_state=0)
    train = [file for number, file in enumerate(files) if number % 9 < 6]
    train, tested = (train[::-1], files[::-1]) if reverse else (train, files)
    proba = model.fit(train, [file.parent.name for file in train]).predict_proba(tested)
    return proba[::-1] if reverse else proba


@pytest.fixture(scope="module")
def expected(files):
    return probabilities(files)


@pytest.mark.full  # trains several models
def test_the_probabilities_tell_models_apart(files, expected):
    """Otherwise all that follows would be trivial."""
    assert np.abs(probabilities(files, random_state=1) - expected).max() > 0.01


def test_batches_and_order(files, expected):
    found = probabilities(files, batch_size=16, reverse=True)
    np.testing.assert_allclose(found, expected, rtol=0, atol=ROUNDING)


@pytest.mark.full  # a model
def test_threads(files, expected):
    torch.set_num_threads(2)
    try:
        found = probabilities(files)
    finally:
        torch.set_num_threads(1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=THREADS)
