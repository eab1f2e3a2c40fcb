"""`carrillo2020(weights=)`: files of Keras 1, against the network written out in NumPy."""

import re
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from hypervlad.features import WeightsNotFoundError
from hypervlad.images import ImageReadError
from hypervlad.models.presets import carrillo2020
from hypervlad.results import model_facts

SHAPES = {
    "convolution2d_1": (5, 5, 3, 16),
    "convolution2d_2": (5, 5, 16, 32),
    "convolution2d_3": (3, 3, 32, 64),
    "dense_1": (64, 64),
    "dense_2": (64, 1),
}
FIRST = "convolution2d_1/convolution2d_1_W:0"


@pytest.fixture(scope="module")
def numbers():
    rng, found = np.random.default_rng(0), {}
    for layer, shape in SHAPES.items():
        scale = np.sqrt(2 / np.prod(shape[:-1]))
        found[f"{layer}_W"] = rng.normal(scale=scale, size=shape).astype(np.float32)
        found[f"{layer}_b"] = rng.normal(scale=0.1, size=shape[-1]).astype(np.float32)
    return found


def write(path, numbers, group="/", end=":0"):
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
def file(tmp_path, numbers):
    return write(tmp_path / "weights.h5", numbers)


def log_odds(numbers, patch):
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


def test_scores_are_those_of_the_network(file, numbers):
    model = carrillo2020(weights=str(file), device="cpu")
    facts = model_facts(model)
    assert facts["patches"] == "29 x 29 pixels, 3 channels"
    assert facts["trained for"] == "an unknown number of epochs"
    assert model.n_parameters_ == 36_769
    patches = np.random.default_rng(1).integers(0, 256, (5, 29, 29, 3), dtype=np.uint8)
    patches[::2] //= np.arange(1, 30, dtype=np.uint8)[:, None, None]  # darker from row to row
    grey = patches[0, :, :, 0]
    colours = [*patches, np.repeat(grey[..., None], 3, axis=2)]
    expected = [log_odds(numbers, patch / 255) for patch in colours]
    assert min(expected) < 0 < max(expected)
    margins = model.decision_function([*patches, grey])
    np.testing.assert_allclose(margins, expected, rtol=1e-4, atol=1e-5)
    # Keras numbers the folders by name: 0 is "anomalous".
    assert model.predict(patches).tolist() == [
        "normal" if each > 0 else "anomalous" for each in expected[:5]
    ]
    np.testing.assert_allclose(model.score_map(grey)[0, 0], -expected[-1], rtol=1e-4)
    # The report's mistake: whole images were not divided by 255.
    undivided = model.set_params(rescale_maps=False).score_map(grey, stride=10, edges="drop")
    np.testing.assert_allclose(undivided[0, 0], -log_odds(numbers, colours[-1]), rtol=1e-4)


def put(file, values, **options):
    del file[FIRST]
    file.create_dataset(FIRST, data=values, **options)


def link(file, target):
    del file["dense_2"]
    file["dense_2"] = target


KERNEL = np.zeros((5, 5, 3, 16), np.float32)
NAN = np.where(np.arange(16) == 3, np.float32("nan"), KERNEL)


def edit(change):
    def edited(path):
        with h5py.File(path, "r+") as opened:
            change(opened)

    return edited


def content(change):
    return lambda path: path.write_bytes(change(path.read_bytes())) and None


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (edit(lambda file: file.pop("dense_2")), "no array 'dense_2/dense_2_W' beside activation_"),
        (edit(lambda file: link(file, h5py.SoftLink("/dense_1"))), "no array 'dense_2/dense_2_W'"),
        (edit(lambda file: link(file, h5py.ExternalLink("b.h5", "/a"))), "no array 'dense_2"),
        (
            edit(lambda file: put(file, KERNEL.transpose(3, 2, 0, 1))),
            r"is float32 \(16, 3, 5, 5\), not float32 \(5, 5, 3, 16\)\. .*channels last",
        ),
        (edit(lambda file: put(file, NAN)), "'convolution2d_1_W' has values that are not finite"),
        (edit(lambda file: put(file, KERNEL, compression="gzip")), "is compressed or in another f"),
        (content(lambda whole: b""), "Expected what save_weights of Keras 1 writes"),
        (content(lambda whole: whole[:-1000]), "truncated file"),
        (content(lambda whole: whole + bytes(1 << 21)), "more than 2,097,152 bytes"),
        (Path.unlink, "no such file of weights"),
    ],
)
def test_weights_of_another_network(file, damage, words):
    damage(file)
    with pytest.raises(WeightsNotFoundError, match=rf"^{re.escape(str(file))}: .*{words}"):
        carrillo2020(weights=file)


def test_what_is_missing(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImageReadError, match=r'need h5py .*pip install "hypervlad\[formats\]"'):
        carrillo2020(weights=file)
