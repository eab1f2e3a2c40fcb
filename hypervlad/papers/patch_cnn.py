"""``PatchCNNClassifier``: a small network trained from scratch on patches, and its maps."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from skimage.color import rgb2gray
from sklearn.base import ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted
from torch import nn

from hypervlad.classify.boosting.logistic import decided_classes, probabilities, with_exact_ties
from hypervlad.classify.fitting import checked_labels
from hypervlad.common.base import ImageEstimator
from hypervlad.common.constraints import SEEDED, Alternatives, InstanceOf, Integer, OneOf
from hypervlad.common.stored import ArrayDict, Labels, Record, Value
from hypervlad.features.encoding import check_finite
from hypervlad.features.lazy_torch import check_device, seeded_torch, usual_torch
from hypervlad.features.patches import (
    ANOMALOUS,
    NORMAL,
    map_from_patches,
    patch_positions,
    patches_at,
)
from hypervlad.images import ImageReadError, ReadOptions, read_micrographs
from hypervlad.images.options import check_read_options
from hypervlad.images.reading import check_image_list, image_name
from hypervlad.papers.training import (
    SCHEDULED,
    BinaryCrossEntropy,
    Curves,
    Samples,
    Schedule,
    Trainer,
    hold_out,
    outputs_of,
    warped,
)
from hypervlad.statistics.splits import check_groups, joined_groups, order_by_digest

FloatArray = NDArray[np.float32]

_KERAS_EPSILON = 1e-7  # of Adam; torch's default is a tenth of it

_MIN_PATCH, _MAX_PATCH = 28, 2048  # pixels; one is left after the last pooling, and memory
_FILTERS, _KERNEL_SIZES = (16, 32, 64), (5, 5, 3)
_N_DENSE, _DROPOUT = 64, 0.6
_MAX_BATCH = 1024  # patches: more are slower, and a few take as long as so many
_MAX_ACTIVATIONS = 2**24  # of one layer for the patches of a batch: 64 MB
_SHEAR = 0.2  # degrees
_ZOOM = 0.2


class PatchCNNClassifier(ClassifierMixin, ImageEstimator):
    """Classify patches of two kinds with a small convolutional network, trained from scratch.

    It is the network of Carrillo Pérez [1]_ for SEM images of nanofibres. Patches have at least
    28 x 28 pixels.

    Parameters
    ----------
    learning_rate : float, default=0.001
        Of Adam.
    batch_size : int, default=1000
        Patches per training step.
    max_epochs : int, default=200
        Maximum number of passes over the training patches.
    patience : int, default=50
        Epochs without a lower validation loss until training stops. The best weights are kept.
    read_options : dict or ReadOptions, optional
        The fields of :class:`hypervlad.images.ReadOptions`. Grey values are scaled by data type, or
        by (low, high), but not by the range of each patch.
    device : str, default="auto"
        As in :class:`HypercolumnVLAD`.
    random_state : int, RandomState or None, default=None
        Seed of the weights, dropout, augmentation and the order of patches.
    verbose : bool, default=False
        Show a progress bar.

    Attributes
    ----------
    classes_ : ndarray of shape (2,)
        Sorted labels.
    patch_ : int
        Side of a patch in pixels.
    n_channels_ : int
        1 for grey, 3 if any training patch was in colour.
    weights_ : dict of ndarray
        Weights of the best epoch, by torch's names.
    curves_ : Curves
        Loss and accuracy of each epoch.

    References
    ----------
    .. [1] F. Carrillo Pérez, "Defect detection in nanofibers by image
       classification", 2020.

    Examples
    --------
    >>> from hypervlad.models import PatchCNNClassifier
    >>> from hypervlad.data import add_defect, make_fibre_images
    >>> from hypervlad.features import cut_patches
    >>> mats, _ = make_fibre_images(8, size=116, random_state=0)
    >>> images, masks = zip(*[add_defect(mat, "stain", random_state=0) for mat in mats])
    >>> patches = cut_patches(images, masks)
    >>> model = PatchCNNClassifier(max_epochs=2, random_state=0)
    >>> model.fit(patches.pixels, patches.labels, groups=patches.groups).n_parameters_
    35969
    >>> model.predict_map(images[0]).shape
    (116, 116)
    """

    _kind = "patch_cnn_classifier"
    _parameter_constraints: ClassVar[Mapping[str, Alternatives]] = {
        **SCHEDULED,
        "read_options": [InstanceOf((Mapping, ReadOptions), "a dict or a ReadOptions"), None],
        "device": [InstanceOf((str, torch.device), '"auto", "cpu" or "cuda"')],
        **SEEDED,
    }

    classes_: Annotated[NDArray[Any], Labels()]
    patch_: Annotated[int, Value(int, Integer(_MIN_PATCH, _MAX_PATCH))]
    n_channels_: Annotated[int, Value(int, OneOf(1, 3))]
    weights_: Annotated[dict[str, NDArray[np.float32]], ArrayDict()]
    curves_: Annotated[Curves, Record(Curves)]

    def __init__(
        self,
        *,
        learning_rate: float = 1e-3,
        batch_size: int = 1000,
        max_epochs: int = 200,
        patience: int = 50,
        read_options: Mapping[str, Any] | ReadOptions | None = None,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.patience = patience
        self.read_options = read_options
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @usual_torch()
    def fit(
        self, X: Sequence[Any], y: Sequence[Any], *, groups: ArrayLike | None = None
    ) -> PatchCNNClassifier:
        """Train the network on labelled patches.

        Parameters
        ----------
        X : sequence of n square patches of one size
            Paths and/or arrays (p, p) or (p, p, 3).
        y : sequence of n labels
            Of two classes, usually "anomalous" and "normal".
        groups : array-like of shape (n,), optional
            Image or sample of each patch, its own by default. A fifth of the patches, in whole
            groups, is held out to decide when to stop.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Unusable parameters or labels, or no group to hold out.
        ImageReadError
            A patch that cannot be read or has another size; named.
        """
        self.check_parameters()
        X = check_image_list(X)
        labels = checked_labels(y, len(X))
        classes = _two_classes(labels)
        options = _patch_options(self.read_options)
        pixels = _read_patches(X, options)
        # Training follows the order of the patches, which must not depend on that of the list.
        digests = np.array([hashlib.blake2b(each.tobytes()).hexdigest() for each in pixels])
        by_digest = order_by_digest(digests, labels)
        seed, init_seed = check_random_state(self.random_state).randint(2**31 - 1, size=2).tolist()
        device = check_device(self.device)
        n_channels, patch = pixels.shape[1:3]

        def samples(rows: NDArray[np.intp]) -> Samples:
            targets = (labels[rows] == classes[1]).astype(np.float32)
            return Samples(pixels, rows, targets, device, evaluation_batch(patch))

        joined = joined_groups(check_groups(groups, len(labels))[by_digest], digests[by_digest])
        rows, held_out = hold_out(labels[by_digest], joined, seed, "leave out groups")
        with seeded_torch(init_seed, device):
            network = build_patch_network(n_channels, patch).to(device)
            trainer = Trainer(
                network,
                BinaryCrossEntropy(),
                torch.optim.Adam(network.parameters(), lr=self.learning_rate, eps=_KERAS_EPSILON),
                augment_patches,
                Schedule.of(self),
                seed,
            )
            curves = trainer.fit(
                samples(by_digest[rows]), samples(by_digest[held_out]), verbose=self.verbose
            )
        # All at the end: a fit that fails leaves the model unchanged.
        self.classes_, self.curves_ = classes, curves
        self.n_channels_, self.patch_ = n_channels, patch
        self.weights_ = {k: v.cpu().numpy() for k, v in network.state_dict().items()}
        return self

    @property
    def n_parameters_(self) -> int:
        """Number of trainable parameters."""
        return sum(each.size for each in self.weights_.values())

    def decision_function(self, X: Sequence[Any]) -> NDArray[np.float64]:
        """Return the log-odds (n,) of ``classes_[1]``, without dropout."""
        pixels = self.as_network_input(X)
        log_odds = check_finite(self._log_odds(self._fitted_network(), pixels), X)
        return with_exact_ties(log_odds)

    def predict_proba(self, X: Sequence[Any]) -> NDArray[np.float64]:
        """Return the probabilities (n, 2) of ``classes_``."""
        return probabilities(self.decision_function(X)[:, None])

    def predict(self, X: Sequence[Any]) -> NDArray[Any]:
        """Return the labels (n,)."""
        check_is_fitted(self)
        return np.asarray(self.classes_[decided_classes(self.decision_function(X))])

    def as_network_input(self, X: Sequence[Any]) -> FloatArray:
        """Read patches as the network's input: (n, n_channels, patch, patch), in [0, 1]."""
        check_is_fitted(self)
        options = _patch_options(self.read_options)
        return _read_patches(check_image_list(X), options, self.patch_, self.n_channels_)

    # --- maps of whole images ------------------------------------------------------------------

    def score_map(self, image: Any, *, stride: int | None = None) -> NDArray[np.float32]:
        """Return the log-odds (H, W) that the patch of each pixel of an image is defective.

        The defective class is "anomalous", else the class that is not "normal", else 1 of 0 and 1.

        Parameters
        ----------
        image : path or array
        stride : int, optional
            Pixels from one patch to the next, by default ``patch_``. A pixel of several patches
            gets their mean. At the edges, the image is mirrored.
        """
        check_is_fitted(self)
        sign = 1 if _defective_class(self.classes_) else -1
        (image,) = check_image_list([image])
        ((_, micrograph),) = read_micrographs([image], options=_patch_options(self.read_options))
        pixels = _with_channels(micrograph.pixels, self.n_channels_)
        height, width = pixels.shape[:2]
        positions = patch_positions((height, width), self.patch_, stride, "pad")
        network = self._fitted_network()
        n_batch = evaluation_batch(self.patch_)
        values = []
        for some in np.split(positions, range(n_batch, len(positions), n_batch)):
            patches = np.moveaxis(patches_at(pixels, some, self.patch_), -1, 1)
            # In memory as patches are that were read: the last digits depend on it.
            values.append(self._log_odds(network, patches.copy()))
        log_odds = np.concatenate(values)
        check_finite(log_odds[None], [image])
        return map_from_patches(sign * log_odds, positions, (height, width), self.patch_)

    def predict_map(self, image: Any, *, stride: int | None = None) -> NDArray[np.bool_]:
        """Return for each pixel (H, W) whether :meth:`score_map` is at least 0."""
        return np.asarray(self.score_map(image, stride=stride) >= 0)

    # --- internal ------------------------------------------------------------------------------

    def check_parameters(self) -> None:
        super().check_parameters()
        _patch_options(self.read_options)

    def _check_state(self) -> None:
        if any(array.dtype != np.float32 for array in self.weights_.values()):
            raise ValueError("the network's weights are not all of type float32")
        if len(self.classes_) != 2:
            raise ValueError(f"{len(self.classes_)} classes; expected two")
        self._fitted_network()  # raises if the weights do not fit

    @usual_torch()
    def _log_odds(self, network: nn.Module, patches: FloatArray) -> NDArray[np.float64]:
        device = check_device(self.device)
        # Batches of one size, because the last digits of a network's output depend on it.
        n_batch = evaluation_batch(self.patch_)
        batches = (
            nn.functional.pad(part, (0, 0) * 3 + (0, n_batch - len(part))).to(device)
            for part in torch.from_numpy(patches).split(n_batch)
        )
        return outputs_of(network, batches)[: len(patches), 0].numpy()

    @usual_torch()
    def _fitted_network(self) -> nn.Sequential:
        check_is_fitted(self)
        with torch.device("meta"):  # its initial weights are replaced
            network = build_patch_network(self.n_channels_, self.patch_)
        state = {k: torch.from_numpy(v) for k, v in self.weights_.items()}
        network.load_state_dict(state, assign=True)
        return network.to(check_device(self.device)).eval()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags


def _two_classes(labels: NDArray[Any]) -> NDArray[Any]:
    check_classification_targets(labels)
    classes = np.unique(labels)
    if len(classes) != 2:
        counted = "one class" if len(classes) == 1 else f"{len(classes)} classes"
        raise ValueError(
            f"Only binary classification is supported: the labels (y) are of {counted}, "
            f"{classes.tolist()[:5]}; expected two, such as 'anomalous' and 'normal'"
        )
    return classes


def _defective_class(classes: NDArray[Any]) -> int:
    names: list[Any] = classes.tolist()
    if ANOMALOUS in names:
        return names.index(ANOMALOUS)
    if NORMAL in names:
        return 1 - names.index(NORMAL)
    if names == [0, 1]:  # False and True, too
        return 1
    raise ValueError(
        f"the classes are {names}, and none is known to be the defective one: call it "
        f"{ANOMALOUS!r}, or the other {NORMAL!r}, or use 0 and 1"
    )


def _patch_options(read_options: Any) -> ReadOptions:
    options = check_read_options(read_options)
    if options.scaling in ("percentile", "minmax"):
        raise ValueError(
            f"read_options: scaling={options.scaling!r} would scale each patch by its own greys, "
            'unlike the image around it; expected "dtype" or (low, high)'
        )
    return replace(options, scaling="dtype") if options.scaling == "auto" else options


def _read_patches(
    images: list[Any], options: ReadOptions, patch: int | None = None, n_channels: int | None = None
) -> FloatArray:
    """Read square patches as (n, n_channels, patch, patch), in [0, 1]; by default, of one size."""
    read = []
    for i, micrograph in read_micrographs(images, options=options):
        height, width = micrograph.pixels.shape[:2]
        side = height if patch is None else patch
        if (height, width) != (side, side):
            raise ImageReadError(
                f"{image_name(images[i], i)}: {height} x {width} pixels; expected a square patch"
                + ("" if patch is None else f" of {side} x {side}, as the others are")
                + "; cut images with hypervlad.features.cut_patches"
            )
        patch = side
        read.append(micrograph.pixels)
    if n_channels is None:
        n_channels = 3 if any(pixels.ndim == 3 for pixels in read) else 1
    return np.stack([np.moveaxis(_with_channels(each, n_channels), -1, 0) for each in read])


def _with_channels(pixels: FloatArray, n_channels: int) -> FloatArray:
    if pixels.ndim == 2:
        return np.repeat(pixels[..., None], n_channels, axis=2)
    return pixels if n_channels == 3 else rgb2gray(pixels).astype(np.float32)[..., None]


# --- the network -------------------------------------------------------------------------------


def build_patch_network(n_channels: int, patch: int) -> nn.Sequential:
    """Return the network of Carrillo Pérez (2020), with new weights from torch's generator.

    From patches (n, n_channels, patch, patch) to the log-odds (n, 1) of the second class.
    """
    if not _MIN_PATCH <= patch <= _MAX_PATCH:
        raise ValueError(
            f"patches of {patch} x {patch} pixels: the network, which pools three times, needs at "
            f"least {_MIN_PATCH} x {_MIN_PATCH} and takes at most {_MAX_PATCH} x {_MAX_PATCH}"
        )
    layers: list[nn.Module] = []
    n_inputs = n_channels
    for n_filters, size in zip(_FILTERS, _KERNEL_SIZES, strict=True):
        layers += [nn.Conv2d(n_inputs, n_filters, size), nn.ReLU(), nn.MaxPool2d(2)]
        n_inputs, patch = n_filters, (patch - size + 1) // 2
    layers += [nn.Flatten(), nn.Linear(n_inputs * patch**2, _N_DENSE), nn.ReLU()]
    network = nn.Sequential(*layers, nn.Dropout(_DROPOUT), nn.Linear(_N_DENSE, 1))
    for layer in network:
        if isinstance(layer, nn.Conv2d | nn.Linear):  # as in Keras
            nn.init.xavier_uniform_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    return network


def evaluation_batch(patch: int) -> int:
    """Return how many patches are classified at once."""
    # Of the first layer, which has more than any other.
    n_activations = _FILTERS[0] * (patch - _KERNEL_SIZES[0] + 1) ** 2
    return min(_MAX_BATCH, _MAX_ACTIVATIONS // n_activations)


def augment_patches(patches: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Shear, zoom and mirror each patch (n, C, p, p) at random, as Keras's ImageDataGenerator."""
    maps = random_affine_maps(len(patches), generator)
    return warped(patches, maps, "border", corners=True)


def random_affine_maps(n: int, generator: torch.Generator) -> torch.Tensor:
    """Return n maps (2, 3) from coordinates (x, y) in the new patch to those in the old."""

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(n, generator=generator)

    angle = uniform(-math.radians(_SHEAR), math.radians(_SHEAR))
    down, across = (uniform(1 - _ZOOM, 1 + _ZOOM) for _ in range(2))
    sign = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    maps = torch.zeros(n, 2, 3)
    # Keras shears rows (y) by columns (x), then zooms: y' = y - sin(a) x, x' = cos(a) x.
    maps[:, 0, 0] = sign * torch.cos(angle) * across
    maps[:, 1, 0] = -sign * torch.sin(angle) * across
    maps[:, 1, 1] = down
    return maps
