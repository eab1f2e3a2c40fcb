"""Other libraries of the process may change torch's defaults; answers stay the same."""

import contextlib

import numpy as np
import pytest
import torch
from support.tiny import make_tiny_encoder

from hypervlad import (
    BoostedSoftmaxClassifier,
    HypercolumnVLAD,
    PatchDefectScorer,
    extract_features,
    load_features,
)
from hypervlad.models import TransferClassifier

WINDOWS = HypercolumnVLAD("tiny", weights="random", taps=["1"], image_size=None, n_codewords=2)


def encoder(images, labels, folder):
    model = make_tiny_encoder().fit(images)
    done = extract_features(images, model, out=folder / "features.parquet")
    return [load_features(done.path)[0], model.codeword_maps(images[0])]


def scorer(images, labels, folder):
    boosting = BoostedSoftmaxClassifier(n_estimators=2, Cs=1.0)
    model = PatchDefectScorer(WINDOWS, patch=4, boosting=boosting, random_state=0)
    masks = [np.arange(24)[None, :] < 6 + np.zeros((20, 1)) for _ in range(8)]
    return [model.fit(images[:8], masks=masks).score_map(images[9])]


def transfer(images, labels, folder):
    model = TransferClassifier("tiny", "random", mode="finetune", image_size=16, max_epochs=2)
    return [model.set_params(random_state=0).fit(images, labels).predict_proba(images)]


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


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("use", [encoder, scorer, transfer])
def test_answers_do_not_depend_on_the_settings_of_torch(use, texture_images, tmp_path):
    expected = use(*texture_images, tmp_path)
    for changed in (other_defaults, other_device):
        with changed():
            found = use(*texture_images, tmp_path)
        for one, other in zip(found, expected, strict=True):
            assert not np.isnan(np.asarray(one)).any()
            np.testing.assert_array_equal(one, other, err_msg=changed.__name__)
