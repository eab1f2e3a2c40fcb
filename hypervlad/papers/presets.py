"""Models with the settings of published papers.

Each takes any parameter of the model that it returns, and those of its parts by their names, as in
``luo2021(grid="image", n_estimators=50, random_state=0)``.
"""

from __future__ import annotations

import io
import os
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from hypervlad.classify.boosting.classifier import BoostedSoftmaxClassifier
from hypervlad.classify.estimator import MicrographClassifier
from hypervlad.common.base import Estimator
from hypervlad.common.limits import MAX_KERAS_BYTES
from hypervlad.common.wording import name_some
from hypervlad.features.encoder import HypercolumnVLAD
from hypervlad.features.patches import ANOMALOUS, NORMAL
from hypervlad.features.weights import WeightsNotFoundError
from hypervlad.images.microscopy import import_extra
from hypervlad.papers.patch_cnn import PatchCNNClassifier, build_patch_network
from hypervlad.papers.training import Curves
from hypervlad.papers.transfer import TransferClassifier

__all__ = ["carrillo2020", "luo2021", "modarres2017"]

_VGG16_TAPS = ("features.3", "features.8", "features.15", "features.22", "features.29")

Model = TypeVar("Model", bound=Estimator)


def _with(model: Model, parameters: dict[str, Any]) -> Model:
    """Set parameters of a model, or else of its learner or its encoder, by their names."""
    own = model.get_params()
    for name, value in parameters.items():
        names = (name, f"boosting__{name}", f"encoder__{name}")
        model.set_params(**{next((each for each in names if each in own), name): value})
    return model


def luo2021(
    *,
    grid: int | Literal["image", "finest"] = 5000,
    backbone: str = "vgg16",
    **parameters: Any,
) -> MicrographClassifier:
    """Return the classifier of Luo, Holm and Wang 2021, unfitted.

    Hypercolumns of VGG-16, VLAD and gradient boosting [1]_.

    Parameters
    ----------
    grid : int, "image" or "finest", default=5000
        Random pixels per image, for the codebook and for encoding. "image" encodes every pixel,
        "finest" every position of the finest tap; the codebook then has 5,000 pixels per image.
    backbone : str, default="vgg16"
        Another network gets its own default taps.
    **parameters
        Others of :class:`MicrographClassifier`, :class:`BoostedSoftmaxClassifier` (100 rounds of
        one tree per class, or one tree for two classes) and :class:`HypercolumnVLAD`, such as
        ``random_state``, ``n_estimators``, ``weights``, ``n_codewords`` and ``memory``.

    Returns
    -------
    MicrographClassifier

    References
    ----------
    .. [1] Q. Luo, E. A. Holm and C. Wang, "A transfer learning approach for improved classification
       of carbon nanomaterials from TEM images", Nanoscale Advances 3, 206, 2021.

    Examples
    --------
    >>> from hypervlad.papers.presets import luo2021
    >>> model = luo2021(grid="image", random_state=0)
    >>> model.encoder.n_codewords, model.encoder.sampling, model.boosting.n_estimators
    (100, 'luo2021', 100)
    """
    encoder = HypercolumnVLAD(
        backbone,
        taps=_VGG16_TAPS if backbone == "vgg16" else None,
        image_size=224,
        grid=grid,
        n_codewords=100,
        sampling="luo2021",
    )
    # Unlike scikit-learn's trees, those of xgboost have a penalty and a smallest hessian of 1: they
    # divide gains by hessians, and without these prefer leaves of a few certain rows (1 to 2 points
    # less accurate).
    boosting = BoostedSoftmaxClassifier(
        init=None,
        n_estimators=100,
        learning_rate=0.1,
        max_depth=3,
        n_iter_no_change=None,
    )
    # The paper does not calibrate, and training takes long.
    model = MicrographClassifier(encoder, boosting=boosting, calibrate=False)
    return _with(model, parameters)


def carrillo2020(
    *, weights: str | os.PathLike[str] | None = None, **parameters: Any
) -> PatchCNNClassifier:
    """Return the patch classifier of Carrillo Pérez 2020, unfitted or with its published weights.

    A network of three convolutions for patches of 29 x 29 pixels [1]_: see
    :class:`PatchCNNClassifier`.

    Parameters
    ----------
    weights : path, optional
        A file of the author's trained weights (HDF5 of Keras 1, not part of hypervlad), with which
        the model is fitted: "anomalous" and "normal" patches of 29 x 29 pixels and three channels.
        Needs h5py (``pip install "hypervlad[formats]"``).
    **parameters
        Of :class:`PatchCNNClassifier`.

    Returns
    -------
    PatchCNNClassifier

    Raises
    ------
    WeightsNotFoundError
        If the file is not there, is damaged, or contains the weights of another network.
    ImageReadError
        If h5py is not installed.

    Notes
    -----
    The author's script maps an image without dividing it by 255, from patches 10 pixels apart:
    ``set_params(rescale_maps=False)`` and ``predict_map(image, stride=10, edges="drop")``. In the
    script, the last patch of a pixel decides, and calls it defective if the probability of "normal"
    is 0 in single precision; here, the mean log-odds of its patches decide.

    References
    ----------
    .. [1] F. Carrillo Pérez, "Defect detection in nanofibers by image
       classification", 2020.

    Examples
    --------
    >>> from hypervlad.papers.presets import carrillo2020
    >>> carrillo2020(random_state=0).batch_size
    1000
    """
    model = _with(PatchCNNClassifier(batch_size=1000, max_epochs=200, patience=50), parameters)
    return model if weights is None else _with_published_weights(model, weights)


def modarres2017(
    mode: Literal["finetune", "features"] = "finetune",
    *,
    backbone: str = "inception_v3",
    **parameters: Any,
) -> TransferClassifier:
    """Return the classifier of Modarres et al. 2017, unfitted: Inception-v3 on SEM images [1]_.

    What the paper does not give, such as the optimiser, is that of :class:`TransferClassifier`.

    Parameters
    ----------
    mode : {"finetune", "features"}, default="finetune"
        Retrain the network with a new softmax layer, or only this layer, on averaged features.
    backbone : str, default="inception_v3"
        The paper also has "resnet18" and "resnet50".
    **parameters
        Others of :class:`TransferClassifier`.

    Returns
    -------
    TransferClassifier

    References
    ----------
    .. [1] M. H. Modarres, R. Aversa, S. Cozzini, R. Ciancio, A. Leto and G. P. Brandino, "Neural
       network for nanoscience scanning electron microscope image recognition", Scientific Reports
       7, 13282, 2017.

    Examples
    --------
    >>> from hypervlad.papers.presets import modarres2017
    >>> model = modarres2017("features", random_state=0)
    >>> model.backbone, model.mode
    ('inception_v3', 'features')
    """
    return _with(TransferClassifier(backbone, mode=mode), parameters)


# --- published weights of `carrillo2020`, in HDF5 files of Keras 1 --------------------------------

_PATCH, _N_CHANNELS = 29, 3
_LAYERS = ("convolution2d_1", "convolution2d_2", "convolution2d_3", "dense_1", "dense_2")
_TORCH_AXES = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}  # of kernels, matrices and biases of Keras


def _with_published_weights(
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
