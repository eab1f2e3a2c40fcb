"""From labelled images to a head, and to a network that was fine-tuned under it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.backbones import TappedNetwork, get_backbone
from hypervlad.baselines.finetuning import FineTuned, fine_tune
from hypervlad.baselines.pooled_network import pooled_features
from hypervlad.baselines.softmax_head import SoftmaxHead, fit_head
from hypervlad.baselines.stored_images import StoredImages, StoredSide, store_images
from hypervlad.baselines.training import Curves
from hypervlad.baselines.transfer_parameters import TransferRecipe, fine_tuning_of
from hypervlad.boosting.rows import class_weights
from hypervlad.classifier.validation import check_classes
from hypervlad.encoder.inputs import Inputs
from hypervlad.hypercolumns import normalised
from hypervlad.splits import holdout_split

if TYPE_CHECKING:
    from hypervlad.baselines.transfer import TransferClassifier


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

    Parameters
    ----------
    model : TransferClassifier
        Whose parameters are checked.
    data : Labelled
    recipe : TransferRecipe
    inputs : Inputs
    network : TappedNetwork
        At its last tap; fine-tuning changes its ``original``.
    seeds : list of four ints
    """
    if recipe.mode == "finetune":
        return _fine_tuned(model, data, inputs, network, seeds)
    features = features_of(data.images, inputs, network, recipe.backbone)
    data = data.take(np.flatnonzero(~np.isnan(features[:, 0])))
    head, C = _head(model, features[~np.isnan(features[:, 0])], data, seeds[0])
    return Learnt(data.labels, head, C, {}, None)


def features_of(
    images: list[Any], inputs: Inputs, network: TappedNetwork, backbone: str
) -> NDArray[np.float32]:
    """Return the pooled features of images, one row each; NaN where one was skipped."""
    features: NDArray[np.float32] | None = None
    for batch in inputs.batches(inputs.read(images, "reading", lambda digest: None)):
        found = pooled_features(network, backbone, batch.images)
        if features is None:
            features = np.full((len(images), found.shape[1]), np.nan, dtype=np.float32)
        features[batch.positions] = found
    assert features is not None  # a list of images is not empty, and one at least could be read
    return features


def _head(
    model: TransferClassifier, features: NDArray[np.float32], data: Labelled, seed: int
) -> tuple[SoftmaxHead, float]:
    return fit_head(
        features, data.labels, data.groups, Cs=model.Cs, class_weight=model.class_weight, seed=seed
    )


def _fine_tuned(
    model: TransferClassifier,
    data: Labelled,
    inputs: Inputs,
    network: TappedNetwork,
    seeds: list[int],
) -> Learnt:
    """Learn a head from the features of one side, then go on with head and network."""
    stored = store_images(data.images, inputs, _side_of(inputs))
    data = data.take(stored.positions)
    check_classes(data.labels, data.groups)  # those of images that could not be read are gone
    classes, codes = np.unique(data.labels, return_inverse=True)
    learnt, held_out = _split(model, data, stored, seeds[0])
    sides = [stored.side(rows, codes, network.device) for rows in (learnt, held_out)]
    features = _features_of_side(sides[0], network, model.backbone)
    head, C = _head(model, features, data.take(learnt), seeds[1])
    weights = class_weights(model.class_weight, classes, codes[learnt], np.ones(len(learnt)))
    tuned: FineTuned = fine_tune(
        network.original,
        get_backbone(model.backbone),
        head,
        (sides[0], sides[1]),
        weights / weights[codes[learnt]].mean(),
        fine_tuning_of(model),
        (seeds[2], seeds[3]),
        checkpoint=model.checkpoint,
        settings=_settings(model, data, stored, weights, network.digest),
        verbose=model.verbose,
    )
    return Learnt(data.labels, tuned.head, C, tuned.changed, tuned.curves)


def _side_of(inputs: Inputs) -> int:
    side = inputs.recipe.image_size
    assert side is not None  # a transfer classifier's recipe has one
    return side


def _split(
    model: TransferClassifier, data: Labelled, stored: StoredImages, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Choose what is learnt from and what it is judged by; copies stay on one side."""
    groups = np.array(stored.digests) if data.groups is None else data.groups
    learnt, held_out = holdout_split(
        data.labels, groups, test_size=model.validation_fraction, random_state=seed
    )
    if not len(held_out):
        raise ValueError(
            "no group of images can be spared to decide when to stop, since each class has one "
            'group only; give more images, or mode="features"'
        )
    return learnt, held_out


def _features_of_side(
    side: StoredSide, network: TappedNetwork, backbone: str
) -> NDArray[np.float32]:
    preprocessing = get_backbone(backbone).preprocessing
    n_channels = len(preprocessing.mean)
    found = [
        pooled_features(
            network, backbone, normalised(images.expand(-1, n_channels, -1, -1), preprocessing)
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
    return {
        "data": stored.digest(data.labels, data.groups),
        "network": model.backbone,
        "weights": digest,
        "image_size": stored.pixels.shape[-1],
        "Cs": np.atleast_1d(model.Cs).tolist(),
        "class_weight": weights.tolist(),
        "validation_fraction": float(model.validation_fraction),
    }
