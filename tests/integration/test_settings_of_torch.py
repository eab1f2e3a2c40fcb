"""Other libraries of the process may change torch's defaults; answers stay the same."""

import contextlib

import numpy as np
import pytest
import torch
from support.tiny import make_tiny_encoder

from hypervlad import (
    AlignmentClassifier,
    BoostedSoftmaxClassifier,
    HypercolumnVLAD,
    MicrographClassifier,
    PatchDefectScorer,
    extract_features,
    load_features,
)
from hypervlad.features import tap_names
from hypervlad.models import PatchCNNClassifier, TransferClassifier

WINDOWS = HypercolumnVLAD("tiny", weights="random", taps=["1"], image_size=None, n_codewords=2)


def encoder(images, labels, folder):
    model = make_tiny_encoder().fit(images)
    done = extract_features(images, model, out=folder / "features.parquet")
    assert tap_names("tiny")
    return [load_features(done.path)[0], model.codeword_maps(images[0])]


def classifier(images, labels, folder):
    model = MicrographClassifier(make_tiny_encoder(), random_state=0).fit(images, labels)
    return [model.predict_proba(images), model.explain(images[0]).maps]


def scorer(images, labels, folder):
    boosting = BoostedSoftmaxClassifier(n_estimators=2, Cs=1.0)
    model = PatchDefectScorer(WINDOWS, patch=4, boosting=boosting, random_state=0)
    masks = [np.arange(24)[None, :] < 6 + np.zeros((20, 1)) for _ in range(8)]
    return [model.fit(images[:8], masks=masks).score_map(images[9])]


def alignment(images, labels, folder):
    model = AlignmentClassifier(WINDOWS, window=8, random_state=0)
    model.fit(images[:12], [label == "stripes" for label in labels[:12]])
    edges = np.array([0, 8, 20]), np.array([0, 8, 16, 24])
    return [model.aligned_proba(image, *edges) for image in images[12:16]]


def transfer(images, labels, folder):
    model = TransferClassifier("tiny", "random", mode="finetune", image_size=16, max_epochs=2)
    return [model.set_params(random_state=0).fit(images, labels).predict_proba(images)]


def patches(images, labels, folder):
    cut = [np.tile(image, (2, 2))[:28, :28] for image in images[:9]]
    model = PatchCNNClassifier(max_epochs=1, batch_size=16, random_state=0)
    model.fit(cut, [label == "flat" for label in labels[:9]])
    return [model.predict_proba(cut), model.score_map(cut[0])]


@contextlib.contextmanager
def other_defaults():
    """Double precision, fast products and half-precision autocast, without gradients."""
    torch.set_default_dtype(torch.float64)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            yield
            assert torch.get_default_dtype() == torch.float64
            assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_float32_matmul_precision("highest")


@contextlib.contextmanager
def other_device():
    """Another default device, in inference mode."""
    torch.set_default_device("meta")
    try:
        with torch.inference_mode(), torch.device("meta"):
            yield
            assert torch.get_default_device().type == "meta"
    finally:
        torch.set_default_device(None)


USES = [
    encoder,
    classifier,
    scorer,
    alignment,
    transfer,
    pytest.param(patches, marks=pytest.mark.full),  # it pads batches to many patches
]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("use", USES)
def test_answers_do_not_depend_on_the_settings_of_torch(use, texture_images, tmp_path):
    expected = use(*texture_images, tmp_path)
    for changed in (other_defaults, other_device):
        with changed():
            found = use(*texture_images, tmp_path)
        for one, other in zip(found, expected, strict=True):
            assert not np.isnan(np.asarray(one)).any()
            np.testing.assert_array_equal(one, other, err_msg=changed.__name__)
