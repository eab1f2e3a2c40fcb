"""Other libraries of the process may change torch's defaults; answers stay the same."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

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


def encoder(images: list[Any], labels: Any, folder: Path) -> list[Any]:
    model = make_tiny_encoder().fit(images)
    done = extract_features(images, model, out=folder / "features.parquet")
    assert tap_names("tiny")
    return [load_features(done.path)[0], model.codeword_maps(images[0])]


def classifier(images: list[Any], labels: Any, folder: Path) -> list[Any]:
    model = MicrographClassifier(make_tiny_encoder(), random_state=0).fit(images, labels)
    return [model.predict_proba(images), model.explain(images[0]).maps]


def scorer(images: list[Any], labels: Any, folder: Path) -> list[Any]:
    boosting = BoostedSoftmaxClassifier(n_estimators=2, Cs=1.0)
    model = PatchDefectScorer(WINDOWS, patch=4, boosting=boosting, random_state=0)
    masks = [np.arange(24)[None, :] < 6 + np.zeros((20, 1)) for _ in range(8)]
    return [model.fit(images[:8], masks=masks).score_map(images[9])]


def alignment(images: list[Any], labels: Any, folder: Path) -> list[Any]:
    model = AlignmentClassifier(WINDOWS, window=8, random_state=0)
    model.fit(images[:12], [label == "stripes" for label in labels[:12]])
    edges = np.array([0, 8, 20]), np.array([0, 8, 16, 24])
    return [model.aligned_proba(image, *edges) for image in images[12:16]]


def transfer(images: list[Any], labels: Any, folder: Path) -> list[Any]:
    model = TransferClassifier("tiny", "random", mode="finetune", image_size=16, max_epochs=2)
    return [model.set_params(random_state=0).fit(images, labels).predict_proba(images)]


def patches(images: list[Any], labels: Any, folder: Path) -> list[Any]:
    cut = [np.tile(image, (2, 2))[:28, :28] for image in images[:9]]
    model = PatchCNNClassifier(max_epochs=1, batch_size=16, random_state=0)
    model.fit(cut, [label == "flat" for label in labels[:9]])
    return [model.predict_proba(cut), model.score_map(cut[0])]


@contextlib.contextmanager
def other_defaults() -> Iterator[None]:
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
def other_device() -> Iterator[None]:
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
def test_answers_do_not_depend_on_the_settings_of_torch(
    use: Callable[..., list[Any]], texture_images: Any, tmp_path: Path
) -> None:
    expected = use(*texture_images, tmp_path)
    for changed in (other_defaults, other_device):
        with changed():
            found = use(*texture_images, tmp_path)
        for one, other in zip(found, expected, strict=True):
            assert not np.isnan(np.asarray(one)).any()
            np.testing.assert_array_equal(one, other, err_msg=changed.__name__)


class Waits:
    """An image that waits until it may be read."""

    def __init__(self) -> None:
        self.is_asked, self.may_be_read = threading.Event(), threading.Event()

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        self.is_asked.set()
        assert self.may_be_read.wait(300)
        return np.eye(20, 24, dtype=np.float32)


def test_calls_that_overlap_leave_the_defaults_as_they_were(texture_images: Any) -> None:
    model = make_tiny_encoder().fit(texture_images[0])
    expected = model.transform([np.eye(20, 24, dtype=np.float32)])
    with other_defaults(), ThreadPoolExecutor(2) as pool:
        first, second = Waits(), Waits()
        calls = [pool.submit(model.transform, [image]) for image in (first, second)]
        for image, call in zip((first, second), calls, strict=True):
            assert image.is_asked.wait(300)
            assert second.is_asked.wait(300)
            image.may_be_read.set()  # the second is still running when the first ends
            np.testing.assert_array_equal(call.result(), expected)
