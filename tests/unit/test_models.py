"""Forged files of whole models: refused when they are loaded, whatever their digest says."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone

import hypervlad
from hypervlad import (
    BoostedSoftmaxClassifier,
    HypercolumnVLAD,
    MicrographClassifier,
    ModelFileError,
)
from hypervlad.common.base import Estimator
from hypervlad.common.modelfile import read_model, write_model
from hypervlad.features import WeightsNotFoundError
from hypervlad.features.backbones import build_network
from hypervlad.images import ImageReadError
from hypervlad.images.options import MAX_PIXELS
from hypervlad.models import PatchCNNClassifier, TransferClassifier

Change = Callable[[dict[str, Any], dict[str, Any]], None]


@pytest.fixture(scope="module")
def trees() -> BoostedSoftmaxClassifier:
    X = np.random.default_rng(0).normal(size=(90, 4))
    options = {"init": None, "n_iter_no_change": None, "n_estimators": 3, "n_jobs": 3}
    return BoostedSoftmaxClassifier(**options).fit(X, X[:, 0] * X[:, 1] > 0)


@pytest.fixture(scope="module")
def patch_network() -> PatchCNNClassifier:
    patches = np.random.default_rng(0).random((20, 28, 28)).astype(np.float32)
    return PatchCNNClassifier(max_epochs=1).fit(list(patches), ["a", "b"] * 10)


@pytest.fixture
def transfer(tiny_encoder: HypercolumnVLAD, texture_images: Any) -> TransferClassifier:
    model = TransferClassifier("tiny", weights="random", image_size=16, random_state=0)
    return model.fit(*texture_images)


@pytest.fixture
def encoder(tiny_encoder: HypercolumnVLAD, texture_images: Any) -> HypercolumnVLAD:
    return tiny_encoder.fit(texture_images[0])


def forged(model: Estimator, path: Path, change: Change) -> Path:
    """Save a model with its network, change what the file holds, and renew the digest."""
    model.save(path, include_backbone=True)
    content = read_model(path)
    header, arrays = copy.deepcopy(content.header), dict(content.arrays)
    change(header, arrays)
    write_model(path, content.kind, header, arrays)
    return path


def parameter(name: str, value: Any) -> Change:
    def change(header: dict[str, Any], _arrays: dict[str, Any]) -> None:
        header["parameters"][name] = value

    return change


def test_trees_that_could_harm(trees: BoostedSoftmaxClassifier, tmp_path: Path) -> None:
    def cycle(_header: dict[str, Any], arrays: dict[str, Any]) -> None:
        arrays["booster_.right"][0] = 0

    with pytest.raises(ModelFileError, match=r"m\.hvlad: .*not later nodes of the same tree"):
        hypervlad.load(forged(trees, tmp_path / "m.hvlad", cycle))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("patch_", 16384, "a value must be a whole number of at least 28 and at most 2048"),
        ("patch_", 27, "a value must be a whole number of at least 28"),
        ("n_channels_", 2, "a value must be one of 1, 3"),
        ("patch_", 2048, "size mismatch for 10.weight"),
    ],
)
def test_patch_networks_that_need_too_much(
    patch_network: PatchCNNClassifier, tmp_path: Path, name: str, value: int, message: str
) -> None:
    def change(header: dict[str, Any], _arrays: dict[str, Any]) -> None:
        header["fitted"][name] = value

    with pytest.raises(ModelFileError, match=message):
        hypervlad.load(forged(patch_network, tmp_path / "m.hvlad", change))


def test_a_network_head_of_another_width(transfer: TransferClassifier, tmp_path: Path) -> None:
    def shorten(_header: dict[str, Any], arrays: dict[str, Any]) -> None:
        for name in ("mean", "scale", "coef"):
            arrays[f"head_.{name}"] = arrays[f"head_.{name}"][:7]

    with pytest.raises(ModelFileError, match="a head of 7 features for a network of 10 channels"):
        hypervlad.load(forged(transfer, tmp_path / "m.hvlad", shorten))


def test_images_that_are_too_small_for_the_network(
    transfer: TransferClassifier, tmp_path: Path
) -> None:
    def change(header: dict[str, Any], _arrays: dict[str, Any]) -> None:
        header["fitted"]["image_size_"] = 3

    with pytest.raises(ModelFileError, match="image_size_ must be a whole number of at least 4"):
        hypervlad.load(forged(transfer, tmp_path / "m.hvlad", change))


def test_tensors_of_another_network(
    transfer: TransferClassifier, encoder: HypercolumnVLAD, tmp_path: Path
) -> None:
    def narrow(header: dict[str, Any], arrays: dict[str, Any]) -> None:
        (name,) = [name for name in arrays if name.endswith("2.weight")]
        arrays[name] = arrays[name][:5]
        if "network_state_" in header["fitted"]:
            header["fitted"]["network_state_"]["2.weight"][0] = 5

    def not_finite(_header: dict[str, Any], arrays: dict[str, Any]) -> None:
        arrays["backbone.2.weight"][0] = np.nan

    def other(_header: dict[str, Any], arrays: dict[str, Any]) -> None:
        arrays["backbone.2.weight"] *= 2

    path = tmp_path / "m.hvlad"
    for model in (transfer, encoder):
        with pytest.raises(ModelFileError, match=r"not weights of 'tiny': 1 of another shape"):
            hypervlad.load(forged(model, path, narrow))
    with pytest.raises(ModelFileError, match=r"tensor '2\.weight' are not finite"):
        hypervlad.load(forged(encoder, path, not_finite))
    model = hypervlad.load(forged(encoder, path, other))
    with pytest.raises(ModelFileError, match="not those that the model was trained with"):
        model.transform([np.zeros((16, 16))])


@pytest.mark.parametrize("weights", [{"pairs": [["a", 1]]}, 3, ["imagenet"]])
def test_weights_are_a_name(encoder: HypercolumnVLAD, tmp_path: Path, weights: Any) -> None:
    expected = 'weights must be "pretrained", "micronet", "random" or a path'
    with pytest.raises(ModelFileError, match=expected):
        hypervlad.load(forged(encoder, tmp_path / "m.hvlad", parameter("weights", weights)))


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../weights.pth",
        "weights.pth",
        "//server/share/weights.pth",
        r"\\server\share\weights.pth",
        r"\\.\pipe\x",
        "CON",
        "/dev/zero",
        "",
    ],
)
def test_a_path_in_a_file_is_refused_by_name(
    encoder: HypercolumnVLAD, transfer: TransferClassifier, tmp_path: Path, path: str
) -> None:
    """Looked for, it could be a device, or, on Windows, log in on another computer."""
    for model in (encoder, transfer):
        with pytest.raises(ModelFileError, match=re.escape(f"names the weights {path!r}, a path")):
            hypervlad.load(forged(model, tmp_path / "m.hvlad", parameter("weights", path)))


def test_weights_that_are_given_are_those_of_a_new_fit(
    tiny_encoder: HypercolumnVLAD, texture_images: Any, tmp_path: Path
) -> None:
    images, own, path = texture_images[0], tmp_path / "own.pth", tmp_path / "m.hvlad"
    torch.save(build_network("tiny", "random").original.state_dict(), own)
    tiny_encoder.set_params(weights=own).fit(images).save(path)
    with pytest.raises(WeightsNotFoundError, match=r"'own\.pth', which is not looked for"):
        clone(hypervlad.load(path)).fit(images)
    model = MicrographClassifier(tiny_encoder, calibration_size=0).fit(*texture_images)
    model.save(path)
    clone(hypervlad.load(path, weights=own)).fit(*texture_images)


def test_scaling_that_depends_on_each_patch(
    patch_network: PatchCNNClassifier, tmp_path: Path
) -> None:
    change = parameter("read_options", {"pairs": [["scaling", "minmax"]]})
    with pytest.raises(ModelFileError, match="would scale each patch by its own greys"):
        hypervlad.load(forged(patch_network, tmp_path / "m.hvlad", change))


def test_the_file_does_not_decide_how_large_images_may_be(
    transfer: TransferClassifier,
    encoder: HypercolumnVLAD,
    patch_network: PatchCNNClassifier,
    tmp_path: Path,
) -> None:
    no_limit = parameter("read_options", {"pairs": [["max_pixels", None], ["banner", "keep"]]})

    def change(header: dict[str, Any], arrays: dict[str, Any]) -> None:
        no_limit(header, arrays)
        if "read_options_" in header["fitted"]:
            header["fitted"]["read_options_"]["max_pixels"] = None

    image = np.arange(784, dtype=np.uint16).reshape(28, 28)
    for model in (transfer, encoder, patch_network):
        path = forged(model, tmp_path / "m.hvlad", change)
        predict = "transform" if model is encoder else "predict_proba"
        loaded = hypervlad.load(path)
        assert loaded.read_options.max_pixels == MAX_PIXELS
        assert np.isfinite(getattr(loaded, predict)([image])).all()
        loaded = hypervlad.load(path, max_pixels=783)
        with pytest.raises(ImageReadError, match=r"max_pixels=783.*or of hypervlad\.load"):
            getattr(loaded, predict)([image])
        assert hypervlad.load(path, max_pixels=None).read_options["max_pixels"] is None
    with pytest.raises(ValueError, match="max_pixels must be a whole number"):
        hypervlad.load(path, max_pixels=0)


def test_the_file_does_not_decide_what_the_machine_does(
    trees: BoostedSoftmaxClassifier, tmp_path: Path
) -> None:
    path = tmp_path / "m.hvlad"
    trees.save(path)
    assert hypervlad.load(path).n_jobs is None
    with pytest.raises(ModelFileError, match=r"unknown parameters \['n_jobs'\]"):
        hypervlad.load(forged(trees, path, parameter("n_jobs", 1024)))


def test_a_file_cannot_choose_the_code_that_opens_it(tmp_path: Path) -> None:
    write_model(tmp_path / "m.hvlad", "os:system", {}, {})
    with pytest.raises(ModelFileError, match=r"m\.hvlad holds .*'os:system'.*known: alignment_cl"):
        hypervlad.load(tmp_path / "m.hvlad")
