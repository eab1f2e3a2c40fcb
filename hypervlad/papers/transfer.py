"""``TransferClassifier``: an ImageNet network on micrographs, frozen or fine-tuned."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.base import ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from hypervlad.classify.answers import accuracy_of_read, most_probable
from hypervlad.classify.fitting import check_classes, checked_labels
from hypervlad.common.constraints import (
    SEEDED,
    Alternatives,
    InstanceOf,
    Integer,
    Number,
    OneOf,
    check_value,
)
from hypervlad.common.limits import MAX_INPUT_SIDE
from hypervlad.common.stored import Labels, Maybe, Part, Record, Value
from hypervlad.features.encoding import EncodedImages, check_finite, encode_loaded
from hypervlad.features.lazy_torch import check_device, usual_torch
from hypervlad.features.loading import Batch, ImageLoader, ReadReport
from hypervlad.features.network import (
    NetworkEstimator,
    TappedNetwork,
    build_network,
    check_tensors,
    map_channels,
    rebuilt_network,
)
from hypervlad.features.registry import (
    Backbone,
    Preprocessing,
    check_prepared,
    check_registered,
    get_backbone,
)
from hypervlad.features.weights import WEIGHTS
from hypervlad.folders.copy_groups import keep_copies_together
from hypervlad.images import ReadOptions
from hypervlad.images.options import check_read_options
from hypervlad.images.reading import check_image_list, image_name
from hypervlad.papers.finetuning import (
    SoftmaxHead,
    averaged_features,
    fine_tune,
    fit_head,
    imagenet_size,
    normalised_images,
)
from hypervlad.papers.training import (
    SCHEDULED,
    FineTuningCurves,
    Schedule,
    hold_out,
    load_training_images,
    warn_of_few_groups,
)
from hypervlad.statistics.splits import check_groups

_WARM_UP = 10  # steps


class TransferClassifier(ClassifierMixin, NetworkEstimator):
    """Classify micrographs by the features of an ImageNet network, frozen or fine-tuned.

    The baseline of Modarres et al. [1]_: softmax regression on the maps of the network's last tap,
    averaged over the image. With ``mode="finetune"``, this head and all layers of the network are
    then trained on randomly changed images, until the loss on held-out images, a fifth in whole
    groups, no longer falls. The held-out images also decide the temperature [2]_ of the
    probabilities.

    Parameters
    ----------
    backbone : str, default="mobilenet_v2"
    weights : {"pretrained", "micronet", "image-micronet", "random"} or path, default="pretrained"
        As in :class:`HypercolumnVLAD`.
    mode : {"features", "finetune"}, default="features"
        "features" leaves the network unchanged.
    image_size : int or "auto", default="auto"
        Side in pixels of the square that images are stretched to. "auto": 299 for inception_v3, 224
        for others, or the smallest side that the network accepts if that is larger.
    learning_rate : float, default=3e-6
        Of Adam, for the network's layers; that of the head is 1e-3.
    batch_size : int, default=32
        Images per training step.
    max_epochs : int, default=30
        Maximum number of passes over the training images.
    patience : int, default=5
        Epochs without a lower validation loss after which training stops. The best weights are
        kept. If no epoch is better than the start, the model is that of "features".
    read_options : dict or ReadOptions, optional
    on_error : {"raise", "skip"}, default="raise"
    device : str, default="auto"
    verbose : bool, default=False
        As in :class:`HypercolumnVLAD`.
    random_state : int, RandomState or None, default=None
        Seed of the folds, the order and augmentation of images, and dropout.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted labels.
    head_ : SoftmaxHead
        The softmax regression.
    C_ : float
        Inverse strength of the head's L2 penalty, before fine-tuning.
    history_ : FineTuningCurves or None
        Loss and accuracy of each epoch; None for "features".
    backbone_, image_size_, read_options_
        As used in ``fit``.
    weights_digest_ : str
        SHA-256 of the network's weights before fine-tuning.
    network_state_ : dict of ndarray or None
        All tensors of the network if it was fine-tuned, or the file contained it; else None.
    n_images_ : int
        Images trained on, including those held out.

    References
    ----------
    .. [1] M. H. Modarres et al., "Neural network for nanoscience scanning electron microscope image
       recognition", Scientific Reports 7, 13282, 2017.
    .. [2] C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, "On calibration of modern neural
       networks", ICML 2017.

    Examples
    --------
    >>> from hypervlad import make_tem_images
    >>> from hypervlad.models import TransferClassifier
    >>> images, labels = make_tem_images(32, size=64, random_state=0)
    >>> model = TransferClassifier(weights="random", image_size=32, random_state=0)
    >>> model.fit(images, labels).predict_proba(images[:2]).shape
    (2, 4)
    """

    _kind = "transfer_classifier"
    _parameter_constraints: ClassVar[Mapping[str, Alternatives]] = {
        "backbone": [InstanceOf(str, "the name of a backbone")],
        "weights": WEIGHTS,
        "mode": [OneOf("features", "finetune")],
        "image_size": [OneOf("auto"), Integer(1, MAX_INPUT_SIDE)],
        **SCHEDULED,
        "read_options": [InstanceOf((Mapping, ReadOptions), "a dict or a ReadOptions"), None],
        "on_error": [OneOf("raise", "skip")],
        "device": [InstanceOf((str, torch.device), '"auto", "cpu" or "cuda"')],
        **SEEDED,
    }

    classes_: Annotated[NDArray[Any], Labels()]
    head_: Annotated[SoftmaxHead, Part(SoftmaxHead)]
    C_: Annotated[float, Value(float, Number(above=0))]
    history_: Annotated[FineTuningCurves | None, Maybe(Record(FineTuningCurves))]
    backbone_: Annotated[str, Value(str)]
    image_size_: Annotated[int, Value(int, Integer(1, MAX_INPUT_SIDE))]
    read_options_: Annotated[ReadOptions, Record(ReadOptions)]
    preprocessing_: Annotated[Preprocessing, Record(Preprocessing)]
    weights_digest_: Annotated[str, Value(str)]
    n_images_: Annotated[int, Value(int, Integer())]

    def __init__(
        self,
        backbone: str = "mobilenet_v2",
        weights: str | os.PathLike[str] = "pretrained",
        *,
        mode: Literal["features", "finetune"] = "features",
        image_size: int | Literal["auto"] = "auto",
        learning_rate: float = 3e-6,
        batch_size: int = 32,
        max_epochs: int = 30,
        patience: int = 5,
        read_options: Mapping[str, Any] | ReadOptions | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.mode = mode
        self.image_size = image_size
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.patience = patience
        self.read_options = read_options
        self.on_error = on_error
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @usual_torch()
    def fit(
        self, images: Sequence[Any], y: Sequence[Any], *, groups: Sequence[Any] | None = None
    ) -> TransferClassifier:
        """Train on labelled images.

        Prepared images are kept in memory, at 0.2 MB each (grey, 224 pixels).

        Parameters
        ----------
        images : sequence of n images
            Paths and/or arrays (H, W) or (H, W, 3), any mix of sizes.
        y : sequence of n labels
        groups : sequence of n group names, optional
            Micrograph, sample or paper of each image, its own by default; held out whole. Those of
            near copies are joined, with a warning.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Unusable parameters or labels, or no group to hold out.
        ImageReadError
            An image that cannot be read; named.
        """
        self.check_parameters()
        backbone, device = get_backbone(self.backbone), check_device(self.device)
        image_size, read_options = self._size_for(backbone), check_read_options(self.read_options)
        images = check_image_list(images)
        labels = checked_labels(y, len(images))
        own = check_groups(groups, len(images))
        check_classes(labels)
        seeds = check_random_state(self.random_state).randint(2**31 - 1, size=4).tolist()
        network = build_network(backbone.name, self.weights, backbone.taps[-1:], device)
        loader = self._loader(image_size, read_options, backbone.preprocessing)
        data = load_training_images(images, loader)
        labels = labels[data.positions]
        if len(data) < len(images):
            check_classes(labels)
        classes, codes = np.unique(labels, return_inverse=True)
        joined, _ = keep_copies_together(
            [images[i] for i in data.positions],
            own[data.positions],
            labels,
            options=read_options,
            names=[image_name(images[i], i) for i in data.positions.tolist()],
            verbose=self.verbose,
        )
        features = [
            averaged_features(network, backbone, normalised_images(part, backbone))
            for part in data.samples(codes, device).image_batches()
        ]
        X = check_finite(np.concatenate(features), [images[i] for i in data.positions])
        history: FineTuningCurves | None = None
        if self.mode == "finetune":
            rows, held_out = hold_out(codes, joined, seeds[1], 'use mode="features"')
            warn_of_few_groups(held_out, joined)
            start = fit_head(X[rows], codes[rows], joined[rows], len(classes), seeds[0])
            tuned_head, history = fine_tune(
                network.original,
                backbone,
                start,
                data.samples(codes, device, rows),
                data.samples(codes, device, held_out),
                Schedule.of(self, warm_up=_WARM_UP, even_batches=True),
                n_validation_groups=len(np.unique(joined[held_out])),
                seeds=(seeds[2], seeds[3]),
                verbose=self.verbose,
            )
        fitted, tensors = network, None
        if history is not None and history.best_epoch >= 0:
            head, C, state = tuned_head, start.C, network.original.state_dict()
            tensors = {name: own.cpu().contiguous().numpy().copy() for name, own in state.items()}
            fitted = build_network(backbone.name, state, backbone.taps[-1:], device)
        else:
            final = fit_head(X, codes, joined, len(classes), seeds[0])
            head, C = final.head, final.C
        # All at the end: a fit that fails leaves the model unchanged.
        self.classes_, self.n_images_ = classes, len(data)
        self.head_, self.C_, self.history_ = head, C, history
        self.backbone_, self.image_size_ = backbone.name, image_size
        self.read_options_, self.network_state_ = read_options, tensors
        self.preprocessing_, self.weights_digest_ = backbone.preprocessing, network.digest
        self._tapped_network = fitted
        return self

    def decision_function(self, images: Sequence[Any]) -> NDArray[np.float64]:
        """Return the margins (n, n_classes), or (n,) for two classes; NaN for a skipped image."""
        margins = self._margins(images)
        return margins if margins.shape[1] > 2 else margins[:, 1] - margins[:, 0]

    def predict_proba(self, images: Sequence[Any]) -> NDArray[np.float64]:
        """Return the probabilities (n, n_classes) of ``classes_``; NaN for a skipped image."""
        return np.asarray(softmax(self._margins(images), axis=1))

    def predict(self, images: Sequence[Any]) -> NDArray[Any]:
        """Return the most probable class (n,) of each image; None for a skipped image."""
        return most_probable(self.predict_proba(images), self.classes_)

    def score(
        self, images: Sequence[Any], y: Sequence[Any], sample_weight: Sequence[float] | None = None
    ) -> float:
        """Return the accuracy; skipped images do not count."""
        return accuracy_of_read(self.predict(images), y, self.classes_, sample_weight)

    # --- files ---------------------------------------------------------------------------------

    @property
    def _has_changed_network(self) -> bool:
        return self.history_ is not None and self.history_.best_epoch >= 0

    def _check_state(self) -> None:
        check_registered(self.backbone_)
        check_prepared(self.preprocessing_, self.backbone_)
        backbone = get_backbone(self.backbone_)
        smallest = backbone.preprocessing.minimum_size
        check_value("image_size_", self.image_size_, [Integer(smallest, MAX_INPUT_SIDE)])
        n_channels = map_channels(backbone, backbone.taps[-1], self.image_size_)
        if len(self.head_.mean) != n_channels:
            raise ValueError(
                f"a head of {len(self.head_.mean)} features for a network of {n_channels} channels"
            )
        if self.network_state_:
            check_tensors(backbone, self.network_state_)
        n_classes = len(self.classes_)
        if self.head_.coef.shape[1] != n_classes:
            raise ValueError(f"a head of {self.head_.coef.shape[1]} classes for {n_classes} labels")
        if self._has_changed_network and not self.network_state_:
            raise ValueError("the tensors of the fine-tuned network are missing")

    # --- parameters ----------------------------------------------------------------------------

    def check_parameters(self) -> None:
        super().check_parameters()
        check_read_options(self.read_options)

    def _size_for(self, backbone: Backbone) -> int:
        minimum = backbone.preprocessing.minimum_size
        most = backbone.maximum_size or MAX_INPUT_SIDE
        check_value("image_size", self.image_size, [Integer(minimum, most), OneOf("auto")])
        if isinstance(self.image_size, str):
            return max(imagenet_size(backbone), minimum)
        return int(self.image_size)

    # --- fit and predict, step by step ---------------------------------------------------------

    def _loader(
        self, image_size: int, read_options: ReadOptions, preprocessing: Preprocessing
    ) -> ImageLoader:
        return ImageLoader(
            image_size=image_size,
            read_options=read_options,
            preprocessing=preprocessing,
            device=check_device(self.device),
            on_error=self.on_error,
            verbose=self.verbose,
        )

    @usual_torch()
    def _encode(self, images: Sequence[Any]) -> EncodedImages:
        check_is_fitted(self)
        images = check_image_list(images)
        network, backbone = self._fitted_network(), get_backbone(self.backbone_)

        def compute(batch: Batch) -> NDArray[np.float32]:
            features = averaged_features(network, backbone, batch.tensors)
            return check_finite(features, [images[position] for position in batch.positions])

        loader = self._loader(self.image_size_, self.read_options_, self.preprocessing_)
        report = ReadReport(len(images))
        loaded = loader.stream(images, "encoding", loader.load, report)
        return encode_loaded(loaded, report, loader, compute, len(self.head_.mean)).warn()

    def _margins(self, images: Sequence[Any]) -> NDArray[np.float64]:
        encoded = self._encode(images)
        return encoded.with_missing(self.head_.margins(encoded.vectors))

    def _built(self, device: torch.device) -> TappedNetwork:
        """Build the network as it was at the end of ``fit``."""
        backbone = get_backbone(self.backbone_)
        taps = backbone.taps[-1:]
        weights = self.network_state_ or self.weights
        if not self._has_changed_network:
            return rebuilt_network(backbone, weights, taps, self.weights_digest_, device)
        assert self.network_state_ is not None
        state = {name: torch.from_numpy(value) for name, value in self.network_state_.items()}
        return build_network(backbone.name, state, taps, device)
