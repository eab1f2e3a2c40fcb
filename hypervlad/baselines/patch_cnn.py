"""``PatchCNNClassifier``: a small network trained from nothing on patches, and its maps."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from sklearn.base import ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from hypervlad.baselines import state
from hypervlad.baselines.augmentation import Augmentation
from hypervlad.baselines.parameters import check_network, check_two_classes, defective_class
from hypervlad.baselines.patch_images import FloatArray, patch_options, read_patches, read_whole
from hypervlad.baselines.patch_network import activations, build_patch_network, n_parameters
from hypervlad.baselines.training import Curves, Patches, Schedule, margins, train
from hypervlad.classifier.validation import checked_labels
from hypervlad.encoder.listing import ImageListEstimator
from hypervlad.encoder.parameters import check_device
from hypervlad.images import ReadOptions, check_image_list
from hypervlad.modelfile import write_model
from hypervlad.splits import holdout_split
from hypervlad.windows import map_from_patches, patch_positions, patches_at

KIND = "patch_cnn_classifier"
_AT_ONCE = 4096  # patches of an image, which bounds the memory


class PatchCNNClassifier(ClassifierMixin, ImageListEstimator):
    """Tell patches of two kinds apart with a small convolutional network, trained from nothing.

    A baseline, that of Carrillo Pérez (2020) for SEM images of nanofibres: three unpadded
    convolutions with ReLU, each pooled by two, a dense layer, dropout, a sigmoid. It learns by Adam
    from patches that are sheared, zoomed and mirrored at random, and stops where the loss on
    patches of other groups no longer falls; whole images become maps patch by patch.
    :func:`hypervlad.presets.carrillo2020` is the paper's system by name.

    Parameters
    ----------
    filters, kernel_sizes : sequence of int, default=(16, 32, 64) and (5, 5, 3)
        Filters of each convolution, and their sides in pixels.
    n_dense : int, default=64
        Width of the dense layer.
    dropout : float, default=0.6
        Share of its outputs that are dropped while it learns, from 0 to below 1.
    learning_rate : float, default=0.001
    batch_size : int, default=1000
    max_epochs : int, default=200
    patience : int, default=50
        Epochs without a lower validation loss after which it stops. The best weights are kept.
    shear : float, default=0.2
        Largest shear, in degrees, as Keras counts it: next to nothing.
    zoom : float, default=0.2
        Share of its size by which a patch grows or shrinks at most, below 1.
    horizontal_flip : bool, default=True
    validation_fraction : float, default=0.2
        Share of the patches, whole groups, that decide when to stop; see ``validation`` in `fit`.
    rescale_maps : bool, default=True
        False repeats a mistake of the paper: whole images reach the network as grey values from 0
        to 255, though the patches that it learnt from were divided by 255.
    read_options : mapping or ReadOptions, optional
        Scaling is by the images' type, or (low, high): not by the greys a patch happens to have.
    device : {"auto", "cpu", "cuda"}, default="auto"
    random_state : int, RandomState or None, default=None
        Of weights, dropout, changes and the order of patches. On the CPU, bit-identical for the
        same number of threads.
    verbose : bool, default=False
        Show a progress bar.

    Attributes
    ----------
    classes_ : ndarray of shape (2,)
        Sorted labels.
    patch_ : int
        Side of a patch in pixels.
    n_channels_ : int
        1 for grey; 3 if a patch was in colour, grey ones are then three equal colours.
    weights_ : dict of ndarray
        Of the best epoch, by torch's names.
    architecture_ : dict
        What the network was built of.
    curves_ : Curves
        Loss and accuracy, epoch by epoch, on both sides.
    n_parameters_ : int

    References
    ----------
    A. Carrillo Pérez, "Defect detection in SEM images of nanofibrous materials", 2020.

    Examples
    --------
    >>> from hypervlad.baselines import PatchCNNClassifier
    >>> from hypervlad.datasets import make_nanofibre_images
    >>> from hypervlad.windows import cut_patches
    >>> images, masks = make_nanofibre_images(8, size=116, random_state=0)
    >>> patches = cut_patches(images, masks)
    >>> model = PatchCNNClassifier(max_epochs=2, random_state=0)
    >>> model.fit(patches.pixels, patches.labels, groups=patches.groups).n_parameters_
    35969
    >>> model.predict_map(images[0]).shape
    (116, 116)
    """

    _kind = KIND

    classes_: NDArray[Any]
    patch_: int
    n_channels_: int
    weights_: dict[str, NDArray[np.float32]]
    architecture_: dict[str, Any]
    curves_: Curves
    n_parameters_: int

    def __init__(
        self,
        *,
        filters: Sequence[int] = (16, 32, 64),
        kernel_sizes: Sequence[int] = (5, 5, 3),
        n_dense: int = 64,
        dropout: float = 0.6,
        learning_rate: float = 1e-3,
        batch_size: int = 1000,
        max_epochs: int = 200,
        patience: int = 50,
        shear: float = 0.2,
        zoom: float = 0.2,
        horizontal_flip: bool = True,
        validation_fraction: float = 0.2,
        rescale_maps: bool = True,
        read_options: Mapping[str, Any] | ReadOptions | None = None,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.filters = filters
        self.kernel_sizes = kernel_sizes
        self.n_dense = n_dense
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.patience = patience
        self.shear = shear
        self.zoom = zoom
        self.horizontal_flip = horizontal_flip
        self.validation_fraction = validation_fraction
        self.rescale_maps = rescale_maps
        self.read_options = read_options
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self,
        X: Sequence[Any],
        y: Sequence[Any],
        *,
        groups: ArrayLike | None = None,
        validation: tuple[Sequence[Any], Sequence[Any]] | None = None,
    ) -> PatchCNNClassifier:
        """Learn from labelled patches.

        Parameters
        ----------
        X : sequence of n square patches of one size
            Paths and/or arrays (p, p) or (p, p, 3).
        y : sequence of n labels
            Of two kinds, usually "anomalous" and "normal".
        groups : array-like of shape (n,), optional
            Patches of one image or sample: they stay on one side when validation patches are
            chosen. Not beside ``validation``.
        validation : (patches, labels), optional
            What decides when to stop; a share of X, chosen by groups, if not given.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Unusable parameters, labels of one kind or of more than two, or none to validate on.
        ImageReadError
            A patch that cannot be read or is of another size; named.
        """
        check_network(self)
        if validation is not None and groups is not None:
            raise ValueError(
                "groups decide which patches are held out; with validation=, none are: give one "
                "or the other"
            )
        X = check_image_list(X)
        labels = checked_labels(y, len(X))
        classes = check_two_classes(labels)
        options = patch_options(self.read_options)
        pixels = read_patches(X, options)
        seed, start = check_random_state(self.random_state).randint(2**31 - 1, size=2).tolist()
        learnt = self._as_patches(pixels, labels, classes)
        if validation is None:
            learnt, held_out = _split(learnt, labels, groups, self.validation_fraction, seed)
        else:
            images = check_image_list(validation[0])
            others = checked_labels(validation[1], len(images))
            check_two_classes(others, classes)
            read = read_patches(images, options, pixels.shape[2], pixels.shape[1])
            held_out = self._as_patches(read, others, classes)
        architecture = self._architecture(*pixels.shape[1:3])
        device = check_device(self.device)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(start)
            network = build_patch_network(**architecture).to(device)
            curves = train(
                network,
                learnt.to(device),
                held_out.to(device),
                Augmentation(self.shear, self.zoom, self.horizontal_flip),
                Schedule(self.learning_rate, self.batch_size, self.max_epochs, self.patience),
                seed,
                verbose=self.verbose,
            )
        # All at the end: a fit that fails leaves the model as it was.
        self.classes_, self.curves_, self.architecture_ = classes, curves, architecture
        self.n_channels_, self.patch_ = pixels.shape[1:3]
        self.weights_ = {k: v.cpu().numpy() for k, v in network.state_dict().items()}
        self.n_parameters_ = n_parameters(network)
        return self

    def decision_function(self, X: Sequence[Any]) -> NDArray[np.float64]:
        """Return the log-odds (n,) of ``classes_[1]``, without dropout."""
        pixels = torch.from_numpy(self.as_network_input(X))
        return margins(self._fitted_network(), pixels)

    def predict_proba(self, X: Sequence[Any]) -> NDArray[np.float64]:
        """Return the probabilities (n, 2) of ``classes_``."""
        second = expit(self.decision_function(X))
        return np.column_stack([1 - second, second])

    def predict(self, X: Sequence[Any]) -> NDArray[Any]:
        """Return the labels (n,)."""
        is_second = self.decision_function(X) > 0
        return np.asarray(self.classes_[is_second.astype(int)])

    # --- whole images --------------------------------------------------------------------------

    def score_map(
        self,
        image: Any,
        *,
        stride: int | None = None,
        edges: Literal["drop", "shift", "pad"] = "pad",
    ) -> NDArray[np.float32]:
        """Give every pixel of an image the log-odds that its patch is defective.

        Defective is "anomalous", else the class beside "normal", else 1 of 0 and 1.

        Parameters
        ----------
        image : path or array
        stride : int, optional
            Pixels from one patch to the next; patches lie side by side by default. Where they
            overlap, a pixel has their mean.
        edges : {"drop", "shift", "pad"}, default="pad"
            What becomes of what is left at the right and lower edge, as in
            :func:`hypervlad.windows.patch_positions`. Dropped, it is NaN.

        Returns
        -------
        ndarray of float32, shape (H, W)

        Raises
        ------
        ImageReadError, ValueError
            If the image cannot be read, or is smaller than a patch and nothing is padded; if no
            class is known as the defective one.
        """
        check_is_fitted(self)
        sign = 1 if defective_class(self.classes_) else -1
        (image,) = check_image_list([image])
        options = patch_options(self.read_options)
        pixels = read_whole(image, options, self.n_channels_)
        height, width = pixels.shape[:2]
        positions = patch_positions((height, width), self.patch_, stride, edges=edges)
        network = self._fitted_network()
        values = [
            margins(network, self._tensor(patches_at(pixels, some, self.patch_)))
            for some in np.split(positions, range(_AT_ONCE, len(positions), _AT_ONCE))
        ]
        return map_from_patches(
            sign * np.concatenate(values), positions, (height, width), self.patch_
        )

    def predict_map(
        self,
        image: Any,
        *,
        stride: int | None = None,
        edges: Literal["drop", "shift", "pad"] = "pad",
    ) -> NDArray[np.bool_]:
        """Say of every pixel whether it is more likely defective than not: black and white.

        Parameters are those of :meth:`score_map`. Pixels that no patch covers count as sound.
        """
        return np.asarray(self.score_map(image, stride=stride, edges=edges) >= 0)

    # --- looking inside ------------------------------------------------------------------------

    def as_network_input(self, X: Sequence[Any]) -> FloatArray:
        """Read patches as the network takes them: (n, n_channels, patch, patch), in [0, 1]."""
        check_is_fitted(self)
        options = patch_options(self.read_options)
        return read_patches(check_image_list(X), options, self.patch_, self.n_channels_)

    def activations(self, patch: Any) -> list[NDArray[np.float32]]:
        """Return the activations of each convolution on a patch, after ReLU: (filters, h, w)."""
        pixels = torch.from_numpy(self.as_network_input([patch])[0])
        found = activations(self._fitted_network(), pixels)
        return [each.cpu().numpy() for each in found]

    # --- files ---------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted model, its weights with it, to one file without pickle.

        Read it back with :func:`hypervlad.load`.

        Raises
        ------
        ModelFileError
            If the file cannot be written.
        """
        write_model(path, self._kind, *self.to_state())

    def to_state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return the fitted classifier as a JSON-able header and named arrays."""
        check_is_fitted(self)
        return state.pack(self)

    @classmethod
    def from_state(
        cls, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> PatchCNNClassifier:
        """Undo :meth:`to_state`."""
        return state.unpack(cls, header, arrays)

    # --- the stages ----------------------------------------------------------------------------

    def _tensor(self, patches: FloatArray) -> torch.Tensor:
        """Return patches (n, p, p, C) of a whole image as the network gets them."""
        factor = np.float32(1 if self.rescale_maps else 255)
        return torch.from_numpy(np.moveaxis(patches, -1, 1) * factor)

    def _as_patches(
        self, pixels: FloatArray, labels: NDArray[Any], classes: NDArray[Any]
    ) -> Patches:
        targets = (labels == classes[1]).astype(np.float32)
        return Patches(torch.from_numpy(pixels), torch.from_numpy(targets))

    def _architecture(self, n_channels: int, patch: int) -> dict[str, Any]:
        return {
            "n_channels": n_channels,
            "patch": patch,
            "filters": tuple(self.filters),
            "kernel_sizes": tuple(self.kernel_sizes),
            "n_dense": self.n_dense,
            "dropout": self.dropout,
        }

    def _fitted_network(self) -> torch.nn.Sequential:
        with torch.random.fork_rng(devices=[]):  # its first weights are not kept
            network = build_patch_network(**self.architecture_)
        network.load_state_dict({k: torch.from_numpy(v) for k, v in self.weights_.items()})
        return network.to(check_device(self.device)).eval()

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "weights_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags


def _split(
    patches: Patches, labels: NDArray[Any], groups: ArrayLike | None, fraction: float, seed: int
) -> tuple[Patches, Patches]:
    learnt, held_out = holdout_split(labels, groups, test_size=fraction, random_state=seed)
    if not len(held_out):
        raise ValueError(
            "no group of patches can be spared to decide when to stop, since each class has one "
            "group only; give more images, or validation=(patches, labels)"
        )
    one, other = (
        Patches(patches.pixels[rows], patches.targets[rows]) for rows in (learnt, held_out)
    )
    return one, other
