"""Other libraries of the process may change torch's defaults; answers stay the same."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from support.small_images import small_images
from support.tiny import make_tiny_encoder

import hypervlad
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
from hypervlad.features.backbones import build_network
from hypervlad.features.lazy_torch import usual_torch
from hypervlad.models import PatchCNNClassifier, TransferClassifier

WINDOWS = HypercolumnVLAD("tiny", weights="random", taps=["1"], image_size=None, n_codewords=2)


def classifier(images: list[Any], labels: Any, folder: Path) -> list[Any]:
    model = MicrographClassifier(make_tiny_encoder(), random_state=0).fit(images, labels)
    model.save(folder / "model.hvlad")
    loaded = hypervlad.load(folder / "model.hvlad")
    evidence = loaded.explain(images[0]).maps
    maps = model.encoder_.codeword_maps(images[0])
    judged = loaded.judge(images, max_error=0.5).proba
    return [model.predict_proba(images), loaded.predict_proba(images), evidence, maps, judged]


def scorer(images: list[Any], labels: Any, folder: Path) -> list[Any]:
    boosting = BoostedSoftmaxClassifier(n_estimators=2, Cs=1.0)
    usual = PatchDefectScorer(WINDOWS, patch=4, boosting=boosting, random_state=0)
    model = clone(usual).set_params(n_codewords=2).fit(images[:8])
    masks = [np.arange(24)[None, :] < 6 + np.zeros((20, 1)) for _ in range(8)]
    labelled = clone(usual).fit(images[:8], masks=masks)
    maps = [each.score_map(images[9]) for each in (model, labelled)]
    few = images[8:12]
    return [model.score_samples(few), labelled.score_samples(few), *maps]


def alignment(images: list[Any], labels: Any, folder: Path) -> list[Any]:
    model = AlignmentClassifier(WINDOWS, window=8, random_state=0)
    model.fit(images[:12], [label == "stripes" for label in labels[:12]])
    edges = np.array([0, 8, 20]), np.array([0, 8, 16, 24])
    return [model.aligned_proba(image, *edges) for image in images[12:16]]


def transfer(images: list[Any], labels: Any, folder: Path) -> list[Any]:
    found = []
    for mode in ("features", "finetune"):
        model = TransferClassifier(
            "tiny", mode=mode, weights="random", image_size=16, max_epochs=2, random_state=0
        )
        found.append(model.fit(images, labels).predict_proba(images))
    return found


def patches(images: list[Any], labels: Any, folder: Path) -> list[Any]:
    model = PatchCNNClassifier(max_epochs=2, random_state=0)
    cut = [np.tile(image, (2, 2))[:28, :28] for image in images[:9]]
    model.fit(cut, [label == "flat" for label in labels[:9]])
    return [model.predict_proba(cut), *model.activations(cut[0]), model.score_map(cut[0])]


def features(images: list[Any], labels: Any, folder: Path) -> list[Any]:
    encoder = make_tiny_encoder().fit(images)
    done = extract_features(images, encoder, out=folder / "features.parquet")
    vectors, _ = load_features(done.path)
    network = build_network("tiny", "random")
    assert tap_names("tiny")
    reach = network.reach()
    assert reach is not None
    batch = torch.ones(2, 3, 16, 16, dtype=torch.float32, device="cpu")
    return [vectors, *network(batch), [reach.stride]]


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def default_device(device: str) -> Iterator[None]:
    torch.set_default_device(device)
    try:
        yield
        assert torch.get_default_device().type == device
    finally:
        torch.set_default_device(None)


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    torch.set_float32_matmul_precision(name)
    try:
        yield
        assert torch.get_float32_matmul_precision() == name
    finally:
        torch.set_float32_matmul_precision("highest")


SETTINGS: dict[str, Callable[[], Any]] = {
    "double": lambda: default_dtype(torch.float64),
    "precision of products": lambda: precision("medium"),
    "device": lambda: default_device("meta"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "no gradients": torch.no_grad,
    "inference": torch.inference_mode,
    "device of a block": lambda: torch.device("meta"),
}
USES = [classifier, scorer, alignment, transfer, patches, features]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("use", USES)
def test_answers_do_not_depend_on_the_settings_of_torch(
    use: Callable[..., list[Any]], texture_images: Any, tmp_path: Path
) -> None:
    with small_images():
        expected = use(*texture_images, tmp_path)
    for setting, changed in SETTINGS.items():
        with small_images(), changed():
            found = use(*texture_images, tmp_path)
        for one, other in zip(found, expected, strict=True):
            assert not np.isnan(np.asarray(one)).any()
            np.testing.assert_array_equal(one, other, err_msg=setting)


def test_calls_that_overlap_leave_the_defaults_as_they_were() -> None:
    with default_dtype(torch.float64):
        first, second = usual_torch(), usual_torch()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert torch.get_default_dtype() == torch.float32
        second.__exit__(None, None, None)
        assert torch.get_default_dtype() == torch.float64
