"""Any saved model, by its path: the kind in the file's header says which class it belongs to."""

from __future__ import annotations

import importlib
import os
from dataclasses import replace
from typing import Any

from hypervlad._version import __version__
from hypervlad.common.limits import MAX_PIXELS
from hypervlad.common.modelfile import ModelFileError, read_model
from hypervlad.features.weights import file_beside
from hypervlad.images.options import PixelSizes, ReadOptions, check_read_options

#: Where the class of each kind of model file is: loading an encoder must not import xgboost.
KINDS = {
    "hypercolumn_vlad": ("hypervlad.features.encoder", "HypercolumnVLAD"),
    "boosted_softmax_classifier": (
        "hypervlad.classify.boosting.classifier",
        "BoostedSoftmaxClassifier",
    ),
    "micrograph_classifier": ("hypervlad.classify.estimator", "MicrographClassifier"),
    "patch_defect_scorer": ("hypervlad.defects.estimator", "PatchDefectScorer"),
    "alignment_classifier": ("hypervlad.fibres.alignment_classifier", "AlignmentClassifier"),
    "hypercolumn_segmenter": ("hypervlad.particles.segmenter", "HypercolumnSegmenter"),
    "patch_cnn_classifier": ("hypervlad.papers.patch_cnn", "PatchCNNClassifier"),
    "transfer_classifier": ("hypervlad.papers.transfer", "TransferClassifier"),
}


def load(
    path: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    max_pixels: int | None = MAX_PIXELS,
    pixel_size: float | PixelSizes | None = None,
) -> Any:
    """Load a model that ``save`` wrote, such as :meth:`MicrographClassifier.save`.

    It predicts bit-identically to the one saved, given the same threads and batches.

    Parameters
    ----------
    path : path-like
    weights : path-like or None, default=None
        The network's weights on this machine, if the model was trained with weights from a file.
        By default, the file of this name beside the model.
    max_pixels : int or None, default=400_000_000
        Largest image that the model reads, as in :class:`hypervlad.images.ReadOptions`.
    pixel_size : float, PixelSizes or None, default=None
        Nanometres per pixel of new images that state none; by default as in training. Pixel sizes
        of single files are not in the model: give those of new images, and of training images that
        are read again.

    Returns
    -------
    estimator
        Fitted, of the class that was saved.

    Raises
    ------
    ValueError
        If ``max_pixels`` or ``pixel_size`` is not a positive number.
    ModelFileError
        If the file is missing, damaged, newer than this library or not a model, or if the weights
        are not those of the model.

    Examples
    --------
    >>> import tempfile, hypervlad
    >>> from hypervlad import HypercolumnVLAD
    >>> images, labels = hypervlad.make_tem_images(8, size=64, random_state=0)
    >>> encoder = HypercolumnVLAD(weights="random", image_size=64, n_codewords=4, sampling=900)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     encoder.fit(images).save(f"{folder}/encoder.hvlad")
    ...     loaded = hypervlad.load(f"{folder}/encoder.hvlad")
    >>> type(loaded).__name__
    'HypercolumnVLAD'
    """
    reading: dict[str, Any] = {"max_pixels": max_pixels}
    reading |= {} if pixel_size is None else {"pixel_size": pixel_size}
    ReadOptions(**reading)
    content = read_model(path)
    if content.kind not in KINDS:
        raise ModelFileError(
            f"{os.fspath(path)} holds a model of kind {content.kind!r}, which hypervlad "
            f"{__version__} does not know (known: {', '.join(sorted(KINDS))}); update hypervlad."
        )
    module, name = KINDS[content.kind]
    loader = getattr(importlib.import_module(module), name)
    try:
        model = loader.from_state(content.header, content.arrays)
        parts: list[Any] = [model, *(getattr(model, n, None) for n in ("encoder_", "encoder"))]
        for part in parts:
            _set_reading(part, reading)
    except ValueError as error:
        raise ModelFileError(f"{os.fspath(path)}: {error}") from error
    own = [part for part in parts if hasattr(part, "weights")]
    for part in own:
        beside = file_beside(part.weights, path)
        part.weights = part.weights if beside is None else beside
    if weights is not None:
        if not own:
            raise ModelFileError(
                f"{os.fspath(path)} holds a {type(model).__name__}, which has all its weights in "
                "the file; leave weights out"
            )
        for part in own:
            part.weights = weights
            if hasattr(part, "weights_"):  # with which it was fitted
                part.weights_ = weights
    return model


def _set_reading(part: Any, changes: dict[str, Any]) -> None:
    if not hasattr(part, "read_options"):
        return
    given = check_read_options(part.read_options)
    if replace(given, **changes) != given:
        part.read_options = replace(given, **changes)
    if hasattr(part, "fitted_params_"):
        options = replace(part.fitted_params_.read_options, **changes)
        part.fitted_params_ = replace(part.fitted_params_, read_options=options)
    if hasattr(part, "read_options_"):
        part.read_options_ = replace(part.read_options_, **changes)
