"""`carrillo2020(weights=)`: files of Keras 1, against the network written out in NumPy."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

import hypervlad
from hypervlad.features import WeightsNotFoundError
from hypervlad.images import ImageReadError
from hypervlad.models.baselines import patch_cnn
from hypervlad.models.presets import carrillo2020
from hypervlad.results import TrainingCurvesDisplay, model_facts

SHAPES = {
    "convolution2d_1": (5, 5, 3, 16),
    "convolution2d_2": (5, 5, 16, 32),
    "convolution2d_3": (3, 3, 32, 64),
    "dense_1": (64, 64),
    "dense_2": (64, 1),
}
FIRST = "convolution2d_1/convolution2d_1_W:0"


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """All batches are padded to one size, which would take most of the time."""
    monkeypatch.setattr(patch_cnn, "_MAX_BATCH", 4)


@pytest.fixture(scope="module")
def numbers() -> dict[str, np.ndarray]:
    rng, found = np.random.default_rng(0), {}
    for layer, shape in SHAPES.items():
        scale = np.sqrt(2 / np.prod(shape[:-1]))
        found[f"{layer}_W"] = rng.normal(scale=scale, size=shape).astype(np.float32)
        found[f"{layer}_b"] = rng.normal(scale=0.1, size=shape[-1]).astype(np.float32)
    return found


def write(path: Path, numbers: dict[str, np.ndarray], group: str = "/", end: str = ":0") -> Path:
    """Write a file as Keras 1 does, with the layers that have no weights."""
    layers = ["activation_1", "maxpooling2d_1", *SHAPES, "flatten_1", "dropout_1"]
    with h5py.File(path, "w") as file:
        top = file.require_group(group)
        top.attrs["layer_names"] = [layer.encode() for layer in layers]
        for layer in layers:
            names = [f"{name}{end}" for name in numbers if name.startswith(layer)]
            top.create_group(layer).attrs["weight_names"] = [name.encode() for name in names]
            for name in names:
                top[layer].create_dataset(name, data=numbers[name.removesuffix(end)])
    return path


@pytest.fixture
def file(tmp_path: Path, numbers: dict[str, np.ndarray]) -> Path:
    return write(tmp_path / "weights.h5", numbers)


def log_odds(numbers: dict[str, np.ndarray], patch: np.ndarray) -> float:
    """The network of the report, channels last."""
    signal = patch.astype(np.float64)
    for layer in list(SHAPES)[:3]:
        kernel = numbers[f"{layer}_W"]
        windows = sliding_window_view(signal, kernel.shape[:2], axis=(0, 1))
        signal = np.einsum("hwirc,rcio->hwo", windows, kernel) + numbers[f"{layer}_b"]
        height, width = (n // 2 for n in signal.shape[:2])
        pooled = signal[: 2 * height, : 2 * width].reshape(height, 2, width, 2, -1)
        signal = np.maximum(pooled.max(axis=(1, 3)), 0)
    hidden = np.maximum(signal.ravel() @ numbers["dense_1_W"] + numbers["dense_1_b"], 0)
    return float((hidden @ numbers["dense_2_W"] + numbers["dense_2_b"]).item())


@pytest.mark.parametrize("kind", ["weights", "whole model", "Theano"])
def test_scores_are_those_of_the_network(
    kind: str, tmp_path: Path, numbers: dict[str, np.ndarray]
) -> None:
    group, end, stored = "/", ":0", numbers
    if kind == "whole model":
        group = "model_weights"
    if kind == "Theano":  # which turns kernels by 180 degrees
        end = ""
        stored = {name: a[::-1, ::-1] if a.ndim == 4 else a for name, a in numbers.items()}
    model = carrillo2020(weights=write(tmp_path / "weights.h5", stored, group, end), device="cpu")
    assert model.n_parameters_ == 36_769
    patches = np.random.default_rng(1).integers(0, 256, (5, 29, 29, 3), dtype=np.uint8)
    patches[::2] //= np.arange(1, 30, dtype=np.uint8)[:, None, None]  # darker from row to row
    expected = [log_odds(numbers, patch / 255) for patch in patches]
    assert min(expected) < 0 < max(expected)
    np.testing.assert_allclose(model.decision_function(patches), expected, rtol=1e-4, atol=1e-5)
    # Keras numbers the folders by name: 0 is "anomalous".
    assert model.predict(patches).tolist() == [
        "normal" if each > 0 else "anomalous" for each in expected
    ]


def test_grey_patches_and_maps_that_are_not_divided(
    file: Path, numbers: dict[str, np.ndarray]
) -> None:
    model = carrillo2020(weights=str(file), device="cpu")
    patch = np.random.default_rng(1).integers(0, 256, (29, 29), dtype=np.uint8)
    colour = np.repeat(patch[..., None], 3, axis=2)
    expected = log_odds(numbers, colour / 255)
    np.testing.assert_allclose(model.decision_function([patch]), expected, rtol=1e-4)
    np.testing.assert_allclose(model.score_map(patch)[0, 0], -expected, rtol=1e-4)
    undivided = model.set_params(rescale_maps=False).score_map(patch, stride=10, edges="drop")
    np.testing.assert_allclose(undivided[0, 0], -log_odds(numbers, colour), rtol=1e-4)


def test_the_model_is_saved_and_shown(file: Path, tmp_path: Path) -> None:
    model = carrillo2020(weights=file, device="cpu")
    file.unlink()
    model.save(tmp_path / "cnn.hvlad")
    loaded = hypervlad.load(tmp_path / "cnn.hvlad")
    patches = np.random.default_rng(1).random((3, 29, 29))
    np.testing.assert_array_equal(
        loaded.decision_function(patches), model.decision_function(patches)
    )
    facts = model_facts(loaded)
    assert facts["patches"] == "29 x 29 pixels, 3 channels"
    assert facts["trained for"] == "an unknown number of epochs"
    with pytest.raises(ValueError, match="has no history: its network was not trained here"):
        TrainingCurvesDisplay.from_estimator(loaded)


def put(file: h5py.File, values: Any, **options: Any) -> None:
    del file[FIRST]
    file.create_dataset(FIRST, data=values, **options)


def link(file: h5py.File, target: Any) -> None:
    del file["dense_2"]
    file["dense_2"] = target


KERNEL = np.zeros((5, 5, 3, 16), np.float32)
NAN = np.where(np.arange(16) == 3, np.float32("nan"), KERNEL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.pop("dense_2"), r"no array 'dense_2/dense_2_W' beside activation_1, "),
        (lambda file: file.clear(), "no array 'convolution2d_1/convolution2d_1_W' beside nothing"),
        (lambda file: link(file, np.zeros(3)), "no array 'dense_2/dense_2_W'"),
        (lambda file: link(file, h5py.SoftLink("/dense_1")), "no array 'dense_2/dense_2_W'"),
        (lambda file: link(file, h5py.ExternalLink("b.h5", "/a")), "no array 'dense_2/dense_2_W'"),
        (
            lambda file: put(file, KERNEL.transpose(3, 2, 0, 1)),
            r"is float32 \(16, 3, 5, 5\), not float32 \(5, 5, 3, 16\)\. .*channels last",
        ),
        (lambda file: put(file, KERNEL[:, :, :1]), r"\(5, 5, 1, 16\), not float32 \(5, 5, 3, 16\)"),
        (lambda file: put(file, KERNEL.astype(float)), r"is float64 \(5, 5, 3, 16\), not float32"),
        (lambda file: put(file, NAN), "'convolution2d_1_W' has values that are not finite"),
        (lambda file: put(file, KERNEL, compression="gzip"), "is compressed or in another file"),
    ],
)
def test_weights_of_another_network(
    file: Path, change: Callable[[h5py.File], Any], message: str
) -> None:
    with h5py.File(file, "r+") as opened:
        change(opened)
    with pytest.raises(WeightsNotFoundError, match=rf"^{re.escape(str(file))}: .*{message}"):
        carrillo2020(weights=file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda whole: b"", "Expected what save_weights of Keras 1 writes"),
        (lambda whole: b"\x89PNG" + whole, "signature not found.* Expected what save_weights"),
        (lambda whole: whole[:-1000], "truncated file"),
        (lambda whole: whole + bytes(1 << 21), "more than 2,097,152 bytes"),
    ],
)
def test_files_that_are_none(file: Path, content: Callable[[bytes], bytes], message: str) -> None:
    file.write_bytes(content(file.read_bytes()))
    with pytest.raises(
        WeightsNotFoundError, match=rf"^{re.escape(str(file))}: not the .*{message}"
    ):
        carrillo2020(weights=file)


def test_what_is_not_there(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("", file.parent, file.with_name("other.h5")):
        with pytest.raises(
            WeightsNotFoundError, match=rf"^{re.escape(str(name))}: no such file of weights"
        ):
            carrillo2020(weights=name)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImageReadError, match=r'need h5py .*pip install "hypervlad\[formats\]"'):
        carrillo2020(weights=file)
