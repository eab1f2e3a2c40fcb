"""``TransferClassifier``: an ImageNet network on micrographs, as it is or fine-tuned."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.base import ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from hypervlad.backbones import Preprocessing, TappedNetwork, build_network, get_backbone
from hypervlad.baselines import transfer_state
from hypervlad.baselines.softmax_head import SoftmaxHead
from hypervlad.baselines.training import Curves
from hypervlad.baselines.transfer_learning import Labelled, features_of, learn
from hypervlad.baselines.transfer_parameters import TransferRecipe
from hypervlad.classifier.assessment import accuracy_of_read, most_probable
from hypervlad.classifier.validation import check_classes, checked_labels, of_length
from hypervlad.encoder import ImageLoader
from hypervlad.encoder.listing import ImageListEstimator
from hypervlad.encoder.networks import NetworkSource
from hypervlad.encoder.parameters import check_device
from hypervlad.encoder.saving import SaveMixin
from hypervlad.images import ReadOptions, check_image_list
from hypervlad.modelfile import register_kind

KIND = "transfer_classifier"
register_kind(KIND, "hypervlad.baselines:TransferClassifier")


class TransferClassifier(SaveMixin, ClassifierMixin, ImageListEstimator):
    """Classify micrographs by an ImageNet network: its last features, or the network fine-tuned.

    A baseline, that of Modarres et al. (2017) for SEM images. The maps of the network's last tap
    are averaged over the image, and softmax regression tells the classes apart by these features.
    With ``mode="finetune"`` that is only the start: head and last layers, or all, then go on
    learning from images that are turned, cut and lit differently each time, until images of
    held-out groups are told apart no better. :func:`hypervlad.presets.modarres2017` is the paper's
    system by name.

    Parameters
    ----------
    backbone : str, default="mobilenet_v2"
        Any registered network.
    weights : {"imagenet", "random"} or path, default="imagenet"
        As in :class:`HypercolumnVLAD`.
    mode : {"features", "finetune"}, default="features"
        "features" leaves the network as it is, and takes seconds for hundreds of images; "finetune"
        takes minutes to hours, and is worth it where there are thousands.
    trainable : {"head", "last", "all"}, default="last"
        What learns when fine-tuning: the head alone (through the augmentation), the layers after
        the backbone's last default tap but one as well (its last resolution; all of a backbone with
        one tap), or all layers.
    image_size : int or "auto", default="auto"
        Side in pixels of the square that images are stretched to. "auto": what the network was made
        for, 299 for inception_v3 and 224 for all others, or the least that the network takes.
    Cs : float or sequence of float, default=(0.1, 1.0, 10.0, 100.0, 1000.0)
        Inverse strengths of the regression's L2 penalty, of which grouped inner folds choose one by
        the lowest log-loss.
    class_weight : None, "balanced" or dict, default=None
        What the images of a class count; "balanced" makes all classes count alike.
    learning_rate, head_learning_rate : float, default=3e-6 and 1e-3
        Of Adam, for the network's layers and for its head. Each step moves a weight by about so
        much, whatever its gradient; over the first ten steps the rates rise to this. The head
        keeps the regression's penalty.
    dropout : float, default=0.2
        Share of the pooled features that the head does not see while it learns, below 1.
    batch_size : int, default=32
        Images that are learnt from at once.
    max_epochs : int, default=30
    patience : int, default=5
        Epochs without a lower validation loss after which it stops. The best weights are kept. If
        those from before the first epoch were best, the model is that of "features", its head
        learnt from all images.
    validation_fraction : float, default=0.2
        Share of the images, whole groups, that fine-tuning does not learn from: they decide when to
        stop, and how sure the probabilities are.
    flips, right_angles : bool, default=True
        Whether images are mirrored both ways, and turned by quarter turns, at random.
    rotation : float, default=10.0
        Largest angle of a free rotation either way, degrees; what is beyond the edge is mirrored.
    crop : float, default=0.7
        Smallest share of an image's area that is shown, enlarged; 1 for always all of it.
    brightness, contrast : float, default=0.1 and 0.2
        Largest shift of all greys (white is 1), and the largest share by which they move away from
        their mean or towards it.
    mixed_precision : bool, default=True
        Run the network in bfloat16 while it learns, on a GPU that has it. Never on the CPU.
    checkpoint : path, optional
        Where a training is kept after each epoch. The same ``fit`` then goes on after the last
        finished one, however it was ended, and comes to the same model. In a folder each training
        (its images, labels, groups and parameters) has a file of its own, so that
        cross-validation can use one; a file that is another training's is refused. More
        ``max_epochs`` may be asked of a training that was kept.
    read_options : mapping or ReadOptions, optional
        As in :class:`HypercolumnVLAD`; a saved model reads as it did in ``fit``.
    on_error : {"raise", "skip"}, default="raise"
        What becomes of unreadable images: an error, or they are left out with a warning.
    device : {"auto", "cpu", "cuda"}, default="auto"
    n_jobs : int or None, default=None
        Threads that read images.
    random_state : int, RandomState or None, default=None
        Of folds, order and changes of images, and dropout. On the CPU, bit-identical for the same
        number of threads, in whatever order the images come.
    verbose : bool, default=False
        Show progress bars.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Sorted labels.
    head_ : SoftmaxHead
        The softmax regression, with its temperature.
    C_ : float
        Of the regression that is the head, or where it started.
    history_ : Curves or None
        Loss and accuracy of fine-tuning, epoch by epoch, on both sides; None for "features".
    recipe_ : TransferRecipe
        What is fixed in ``fit``: such a parameter set later waits for the next one.
    weights_digest_ : str
        SHA-256 of the network's weights before any learning.
    network_state_ : dict of ndarray
        The network's tensors that are not to be found elsewhere: those that learnt.
    n_images_ : int
        Images learnt from, those held out included.

    Notes
    -----
    *Leaks.* Nothing is learnt from held-out images but when to stop, C and one temperature; copies
    of an image stay on one side. These are still choices: judge the model on images of its own.

    *Batch normalisation* keeps its running statistics everywhere, also where its scale and shift
    learn; dropout within a network and stochastic depth are off. See
    :class:`hypervlad.baselines.pooled_network.TransferNetwork`.

    *Temperature.* Margins are divided by the number that makes the log-loss of held-out images
    lowest (Guo et al. 2017): in "features" those of the inner folds; in "finetune" the validation
    side, whose few groups move it only so far from that of the inner folds.
    :func:`hypervlad.metrics.expected_calibration_error` says what is left.

    *Memory.* ``fit`` keeps all images prepared, 0.2 MB each (grey, 224 px; colour: three times
    that), above 2 GB in a temporary file.

    *A saved model* holds the head, and the layers that learnt. The others come from where
    ``weights`` says, checked by their digest, or with ``include_backbone=True`` from the file too;
    with ``trainable="all"`` nothing is left to be found.

    References
    ----------
    M. H. Modarres, R. Aversa, S. Cozzini, R. Ciancio, A. Leto and G. P. Brandino, "Neural network
        for nanoscience scanning electron microscope image recognition", Scientific Reports 7,
        13282, 2017.

    Examples
    --------
    >>> from hypervlad import make_tem_images
    >>> from hypervlad.baselines import TransferClassifier
    >>> images, labels = make_tem_images(32, size=64, random_state=0)
    >>> model = TransferClassifier(weights="random", image_size=32, random_state=0)
    >>> model.fit(images, labels).predict_proba(images[:2]).shape
    (2, 4)
    >>> model.set_params(mode="finetune", max_epochs=2).fit(images, labels).history_.best_epoch < 2
    True
    """

    _kind = KIND

    classes_: NDArray[Any]
    head_: SoftmaxHead
    C_: float
    history_: Curves | None
    recipe_: TransferRecipe
    preprocessing_: Preprocessing
    weights_digest_: str
    network_state_: dict[str, NDArray[Any]]
    whole_network_: bool
    n_images_: int

    def __init__(
        self,
        backbone: str = "mobilenet_v2",
        weights: str | os.PathLike[str] = "imagenet",
        *,
        mode: Literal["features", "finetune"] = "features",
        trainable: Literal["head", "last", "all"] = "last",
        image_size: int | Literal["auto"] = "auto",
        Cs: float | Sequence[float] = (0.1, 1.0, 10.0, 100.0, 1000.0),
        class_weight: Literal["balanced"] | Mapping[Any, float] | None = None,
        learning_rate: float = 3e-6,
        head_learning_rate: float = 1e-3,
        dropout: float = 0.2,
        batch_size: int = 32,
        max_epochs: int = 30,
        patience: int = 5,
        validation_fraction: float = 0.2,
        flips: bool = True,
        right_angles: bool = True,
        rotation: float = 10.0,
        crop: float = 0.7,
        brightness: float = 0.1,
        contrast: float = 0.2,
        mixed_precision: bool = True,
        checkpoint: str | os.PathLike[str] | None = None,
        read_options: Mapping[str, Any] | ReadOptions | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        device: str = "auto",
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.mode = mode
        self.trainable = trainable
        self.image_size = image_size
        self.Cs = Cs
        self.class_weight = class_weight
        self.learning_rate = learning_rate
        self.head_learning_rate = head_learning_rate
        self.dropout = dropout
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.flips = flips
        self.right_angles = right_angles
        self.rotation = rotation
        self.crop = crop
        self.brightness = brightness
        self.contrast = contrast
        self.mixed_precision = mixed_precision
        self.checkpoint = checkpoint
        self.read_options = read_options
        self.on_error = on_error
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self, images: Sequence[Any], y: Sequence[Any], *, groups: Sequence[Any] | None = None
    ) -> TransferClassifier:
        """Learn from labelled images.

        Parameters
        ----------
        images : sequence of n images
            Paths and/or arrays (H, W) or (H, W, 3), any mix of sizes.
        y : sequence of n labels
        groups : sequence of n group names, optional
            Images of one micrograph, sample or paper: inner folds and the validation side keep
            them together.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Unusable parameters, lengths that differ, fewer than two classes, no group that can be
            held out for fine-tuning, or a checkpoint of another training.
        ImageReadError
            An image that cannot be read; it is named.
        """
        recipe = TransferRecipe.of(self)
        images = check_image_list(images)
        labels = checked_labels(y, len(images))
        known = None if groups is None else of_length("groups values", groups, len(images))
        check_classes(labels, known)
        seeds = check_random_state(self.random_state).randint(2**31 - 1, size=4).tolist()
        backbone, device = get_backbone(recipe.backbone), check_device(self.device)
        network = build_network(backbone.name, self.weights, backbone.taps[-1:], device)
        inputs = self._inputs(recipe, backbone.preprocessing)
        learnt = learn(self, Labelled(images, labels, known), recipe, inputs, network, seeds)
        fitted = network
        if learnt.changed:
            state = network.original.state_dict()
            fitted = build_network(backbone.name, state, backbone.taps[-1:], device)
        # All at the end: a fit that fails leaves the model as it was.
        self.classes_, self.n_images_ = np.unique(learnt.labels), len(learnt.labels)
        self.head_, self.history_, self.C_ = learnt.head, learnt.curves, learnt.C
        self.recipe_, self.preprocessing_ = recipe, backbone.preprocessing
        self.weights_digest_ = network.digest
        self.network_state_, self.whole_network_ = learnt.changed, False
        self._tapped_network = fitted
        return self

    def decision_function(self, images: Sequence[Any]) -> NDArray[np.float64]:
        """Return the margins (log-odds up to a constant): (n, n_classes), or (n,) for two.

        Divided by the temperature. A row of an image skipped is NaN.
        """
        margins = self._margins(images)
        return margins if margins.shape[1] > 2 else margins[:, 1] - margins[:, 0]

    def predict_proba(self, images: Sequence[Any]) -> NDArray[np.float64]:
        """Return class probabilities.

        Parameters
        ----------
        images : sequence of n images

        Returns
        -------
        ndarray of shape (n, n_classes)
            In the order of ``classes_``. A row of an image skipped is NaN.
        """
        return np.asarray(softmax(self._margins(images), axis=1))

    def predict(self, images: Sequence[Any]) -> NDArray[Any]:
        """Return the most probable class of each image.

        Parameters
        ----------
        images : sequence of n images

        Returns
        -------
        ndarray of shape (n,)
            Labels. With ``on_error="skip"`` and an image unreadable, an object array with None in
            its place.
        """
        return most_probable(self.predict_proba(images), self.classes_)

    def score(
        self,
        images: Sequence[Any],
        y: Sequence[Any],
        sample_weight: Sequence[float] | None = None,
    ) -> float:
        """Return the accuracy; images that ``on_error="skip"`` left out do not count.

        Parameters
        ----------
        images : sequence of n images
        y : sequence of n labels
        sample_weight : sequence of n floats, optional
        """
        return accuracy_of_read(self.predict(images), y, self.classes_, sample_weight)

    def pooled_features(self, images: Sequence[Any]) -> NDArray[np.float32]:
        """Return what the head sees of images: the last maps of the (fine-tuned) network, averaged.

        Parameters
        ----------
        images : sequence of n images

        Returns
        -------
        ndarray of float32, shape (n, n_features)
            A row of an image skipped is NaN.
        """
        check_is_fitted(self)
        inputs = self._inputs(self.recipe_, self.preprocessing_)
        network = self._network()
        return features_of(check_image_list(images), inputs, network, self.recipe_.backbone)

    # --- files ---------------------------------------------------------------------------------

    def to_state(
        self, *, include_backbone: bool = False
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return the fitted classifier as a JSON-able header and named arrays."""
        check_is_fitted(self)
        return transfer_state.pack(self, include_backbone)

    @classmethod
    def from_state(
        cls, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> TransferClassifier:
        """Undo :meth:`to_state`."""
        return transfer_state.unpack(cls, header, arrays)

    # --- the stages ----------------------------------------------------------------------------

    def _inputs(self, recipe: TransferRecipe, preprocessing: Preprocessing) -> ImageLoader:
        return ImageLoader(
            image_size=recipe.image_size,
            aspect=recipe.aspect,
            preprocessing=preprocessing,
            pixel_size=recipe.pixel_size,
            read_options=recipe.read_options,
            device=check_device(self.device),
            n_jobs=self.n_jobs,
            on_error=self.on_error,
            verbose=self.verbose,
        )

    def _margins(self, images: Sequence[Any]) -> NDArray[np.float64]:
        features = self.pooled_features(images)  # says so if there was no fit
        return self.head_.margins(features)

    # --- the network, built when needed and never copied ---------------------------------------

    def _network(self) -> TappedNetwork:
        device = check_device(self.device)
        network: TappedNetwork | None = getattr(self, "_tapped_network", None)
        if network is None or network.device != device:
            network = self._tapped_network = self._built(device)
        return network

    def _built(self, device: torch.device) -> TappedNetwork:
        """Build the network as it was when ``fit`` ended.

        Raises
        ------
        WeightsNotFoundError
            If the layers that did not learn are not to be found here.
        """
        backbone = get_backbone(self.recipe_.backbone)
        state = {name: torch.from_numpy(value) for name, value in self.network_state_.items()}
        if not self.whole_network_:
            source = NetworkSource(backbone, self.weights, backbone.taps[-1:], self.weights_digest_)
            network = source.build(device)
            if not state:
                return network
            state = network.original.state_dict() | state
        return build_network(backbone.name, state, backbone.taps[-1:], device)

    def __getstate__(self) -> dict[str, Any]:
        attributes: dict[str, Any] = dict(super().__getstate__())
        attributes.pop("_tapped_network", None)
        return attributes

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "head_")
