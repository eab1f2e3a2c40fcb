"""Published weights of `PatchCNNClassifier`, in HDF5 files of Keras 1."""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hypervlad.common.limits import MAX_KERAS_BYTES
from hypervlad.common.wording import name_some
from hypervlad.features.patches import ANOMALOUS, NORMAL
from hypervlad.features.weights import WeightsNotFoundError
from hypervlad.images.microscopy import import_extra
from hypervlad.papers.patch_cnn import PatchCNNClassifier, build_patch_network
from hypervlad.papers.training import Curves

_PATCH, _N_CHANNELS = 29, 3
_LAYERS = ("convolution2d_1", "convolution2d_2", "convolution2d_3", "dense_1", "dense_2")
_TORCH_AXES = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}  # of kernels, matrices and biases of Keras


def with_published_weights(
    model: PatchCNNClassifier, path: str | os.PathLike[str]
) -> PatchCNNClassifier:
    """Fit a model with the weights of a file, a WeightsNotFoundError if they are not its network's.

    Class 0 of Keras is the first folder by name, "anomalous".
    """
    with torch.device("meta"):
        network = build_patch_network(_N_CHANNELS, _PATCH)
    shapes = {name: tuple(each.shape) for name, each in network.state_dict().items()}
    model.weights_ = _read_weights(path, shapes)
    model.classes_, model.curves_ = np.array([ANOMALOUS, NORMAL]), Curves()
    model.patch_, model.n_channels_ = _PATCH, _N_CHANNELS
    return model


def _read_weights(
    path: str | os.PathLike[str], shapes: dict[str, tuple[int, ...]]
) -> dict[str, NDArray[np.float32]]:
    """Read arrays in torch's order of axes, under the names and in the order of their shapes.

    `Flatten` of Keras puts channels last, and that of torch first. Here both are the same, because
    one pixel is left.
    """
    if not os.path.isfile(path):  # a pipe would wait
        raise WeightsNotFoundError(f"{path}: no such file of weights")
    h5py = import_extra("h5py", "HDF5", str(path))
    names = [(layer, f"{layer}_{part}") for layer in _LAYERS for part in "Wb"]
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_KERAS_BYTES + 1)
        if len(content) > MAX_KERAS_BYTES:
            raise ValueError(f"more than {MAX_KERAS_BYTES:,} bytes")
        with h5py.File(io.BytesIO(content), "r") as root:
            of_model = _member(h5py, root, "model_weights")  # if written by save
            weights = of_model if isinstance(of_model, h5py.Group) else root
            return {
                key: _values(h5py, weights, layer, name, shape)
                for (layer, name), (key, shape) in zip(names, shapes.items(), strict=True)
            }
    except Exception as error:  # h5py raises anything for damaged files
        raise WeightsNotFoundError(
            f"{path}: not the network's weights: {error}. Expected what save_weights of Keras 1 "
            "writes for the network of the 2020 report, channels last"
        ) from error


def _values(
    h5py: Any, weights: Any, layer: str, name: str, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    of_tensorflow = _member(h5py, weights, layer, f"{name}:0")
    data = _member(h5py, weights, layer, name) if of_tensorflow is None else of_tensorflow
    if not isinstance(data, h5py.Dataset):
        raise ValueError(
            f"no array '{layer}/{name}' beside {name_some(list(weights)) or 'nothing'}"
        )
    expected = shape[2:] + shape[1::-1]
    if data.shape != expected or data.dtype != np.float32:
        raise ValueError(f"{name!r} is {data.dtype} {data.shape}, not float32 {expected}")
    if data.chunks or data.external or data.is_virtual:
        raise ValueError(
            f"{name!r} is compressed or in another file ('h5repack -f NONE -l CONTI' writes a copy "
            "that is read)"
        )
    values: NDArray[np.float32] = data[()]
    if not np.isfinite(values).all():
        raise ValueError(f"{name!r} has values that are not finite")
    if values.ndim == 4 and of_tensorflow is None:  # Theano convolves, TensorFlow correlates
        values = values[::-1, ::-1]
    return np.ascontiguousarray(values.transpose(_TORCH_AXES[values.ndim]))


def _member(h5py: Any, group: Any, *names: str) -> Any:
    """Return a group or a dataset, through hard links only; None if there is none."""
    for name in names:
        link = group.get(name, getlink=True) if isinstance(group, h5py.Group) else None
        if not isinstance(link, h5py.HardLink):
            return None
        group = group[name]
    return group
