"""From labelled images to a head, and to a network that was fine-tuned under it."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.backbones import TappedNetwork, get_backbone
from hypervlad.backbones.network import architecture
from hypervlad.baselines.finetuning import FineTuned, fine_tune
from hypervlad.baselines.pooled_network import pooled_features
from hypervlad.baselines.softmax_head import FittedHead, SoftmaxHead, fit_head
from hypervlad.baselines.stored_images import StoredImages, StoredSide, store_images
from hypervlad.baselines.training import Curves
from hypervlad.baselines.transfer_parameters import TransferRecipe, fine_tuning_of
from hypervlad.boosting.rows import class_weights
from hypervlad.classifier.validation import check_classes
from hypervlad.encoder.inputs import Inputs
from hypervlad.hypercolumns import normalised
from hypervlad.splits import holdout_split, joined_groups

if TYPE_CHECKING:
    from hypervlad.baselines.transfer import TransferClassifier

_ENOUGH_GROUPS = 5  # held out; fewer say next to nothing


@dataclass(frozen=True, eq=False)
class Labelled:
    """Images of known class.

    Attributes
    ----------
    images : list of n paths and arrays
    labels : ndarray of shape (n,)
    groups : ndarray of shape (n,), optional
    """

    images: list[Any]
    labels: NDArray[Any]
    groups: NDArray[Any] | None

    def take(self, rows: NDArray[np.intp]) -> Labelled:
        """Return some of them."""
        groups = None if self.groups is None else self.groups[rows]
        return Labelled([self.images[row] for row in rows], self.labels[rows], groups)


@dataclass(frozen=True, eq=False)
class Learnt:
    """What came of it.

    Attributes
    ----------
    labels : ndarray of shape (m,)
        Of the images that could be read.
    head : SoftmaxHead
    C : float
        Of the regression that is the head, or where it started.
    changed : dict of ndarray
        The network's tensors that learnt.
    curves : Curves or None
    """

    labels: NDArray[Any]
    head: SoftmaxHead
    C: float
    changed: dict[str, NDArray[np.float32]]
    curves: Curves | None


def learn(
    model: TransferClassifier,
    data: Labelled,
    recipe: TransferRecipe,
    inputs: Inputs,
    network: TappedNetwork,
    seeds: list[int],
) -> Learnt:
    """Learn as a classifier's parameters say.

    A head from the features of one side, then head and network go on; a head of the features of
    all images, if that is all that is wanted or what went on became no better.

    Parameters
    ----------
    model : TransferClassifier
        Its parameters have been checked.
    data : Labelled
    recipe : TransferRecipe
    inputs : Inputs
    network : TappedNetwork
        At its last tap; fine-tuning changes its ``original``.
    seeds : list of four ints
        Of the head, the split, the order and changes of images, and dropout.
    """
    stored = store_images(data.images, inputs, recipe.image_size)
    data = data.take(stored.positions)
    check_classes(data.labels, data.groups)  # those of images that could not be read are gone
    classes, codes = np.unique(data.labels, return_inverse=True)
    groups = joined_groups(data.groups, stored.digests)
    everything = np.arange(len(codes))
    features = _features_of_side(stored.side(everything, codes, network.device), network, recipe)
    _check_finite(features, [data.images[row] for row in everything])

    def head_of(rows: NDArray[np.intp]) -> tuple[FittedHead, NDArray[np.float64]]:
        weights = class_weights(model.class_weight, classes, codes[rows], np.ones(len(rows)))
        args = features[rows], codes[rows], groups[rows], weights
        return fit_head(*args, Cs=model.Cs, seed=seeds[0]), weights / weights[codes[rows]].mean()

    tuned: FineTuned | None = None
    if recipe.mode == "finetune":
        learnt, held_out = _split(model, codes, groups, seeds[1])
        start, weights = head_of(learnt)
        tuned = fine_tune(
            network.original,
            get_backbone(recipe.backbone),
            start.head,
            start.penalty,
            (
                stored.side(learnt, codes, network.device),
                stored.side(held_out, codes, network.device),
            ),
            len(np.unique(groups[held_out])),
            weights,
            fine_tuning_of(model),
            (seeds[2], seeds[3]),
            checkpoint=model.checkpoint,
            settings=_settings(model, data, stored, weights, network.digest),
            verbose=model.verbose,
        )
        if tuned.curves.best_epoch >= 0:
            return Learnt(data.labels, tuned.head, start.C, tuned.changed, tuned.curves)
    whole, _ = head_of(everything)
    return Learnt(data.labels, whole.head, whole.C, {}, None if tuned is None else tuned.curves)


def features_of(
    images: list[Any], inputs: Inputs, network: TappedNetwork, backbone: str
) -> NDArray[np.float32]:
    """Return the pooled features of images, one row each; NaN where one was skipped.

    Raises
    ------
    ValueError
        If the features of an image are not finite.
    """
    features: NDArray[np.float32] | None = None
    for batch in inputs.batches(inputs.read(images, "reading", lambda digest: None)):
        found = pooled_features(network, backbone, batch.images)
        _check_finite(found, [images[position] for position in batch.positions])
        if features is None:
            features = np.full((len(images), found.shape[1]), np.nan, dtype=np.float32)
        features[batch.positions] = found
    assert features is not None  # a list of images is not empty, and one at least could be read
    return features


def _check_finite(features: NDArray[np.float32], images: list[Any]) -> None:
    odd = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(odd):
        image = images[odd[0]]
        name = os.fspath(image) if isinstance(image, str | os.PathLike) else "an array"
        raise ValueError(
            f"the network's features are not finite for {len(odd)} images, the first of them "
            f"{name}: are its weights damaged, or those of another network?"
        )


def _split(
    model: TransferClassifier, codes: NDArray[np.intp], groups: NDArray[np.intp], seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Choose what is learnt from and what it is judged by."""
    learnt, held_out = holdout_split(
        codes, groups, test_size=model.validation_fraction, random_state=seed
    )
    if not len(held_out):
        raise ValueError(
            "no group of images can be spared to decide when to stop, since each class has one "
            'group only; give more images, or mode="features"'
        )
    n_groups = len(np.unique(groups[held_out]))
    if n_groups < _ENOUGH_GROUPS:
        warnings.warn(
            f"fine-tuning is judged by {len(held_out)} images of {n_groups} groups only: when to "
            "stop, and how sure the probabilities are, is little more than chance. Images of more "
            'specimens help, a larger validation_fraction, or mode="features"',
            UserWarning,
            stacklevel=4,
        )
    return learnt, held_out


def _features_of_side(
    side: StoredSide, network: TappedNetwork, recipe: TransferRecipe
) -> NDArray[np.float32]:
    preprocessing = get_backbone(recipe.backbone).preprocessing
    n_channels = len(preprocessing.mean)
    found = [
        pooled_features(
            network,
            recipe.backbone,
            normalised(images.expand(-1, n_channels, -1, -1), preprocessing),
        )
        for images, _ in side.parts()
    ]
    return np.concatenate(found)


def _settings(
    model: TransferClassifier,
    data: Labelled,
    stored: StoredImages,
    weights: NDArray[np.float64],
    digest: str,
) -> dict[str, Any]:
    """What a training depends on, beside how the network is fine-tuned."""
    backbone = get_backbone(model.backbone)
    return {
        "data": stored.digest(data.labels, data.groups),
        "network": architecture(backbone),
        "taps": list(backbone.taps),
        "preprocessing": backbone.preprocessing.to_dict(),
        "weights": digest,
        "image_size": stored.pixels.shape[-1],
        "Cs": np.atleast_1d(model.Cs).tolist(),
        "class_weight": weights.tolist(),
        "validation_fraction": float(model.validation_fraction),
    }
