"""``HypercolumnVLAD``: what the user calls; the mathematics is in the rooms below."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import joblib
import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from hypervlad import vlad
from hypervlad.backbones import Preprocessing, TappedNetwork, build_network, get_backbone
from hypervlad.codebook import Codebook
from hypervlad.encoder import state
from hypervlad.encoder.caching import CachedVectors
from hypervlad.encoder.inputs import Inputs
from hypervlad.encoder.intake import Taken
from hypervlad.encoder.learning import Learn, learn_from_images
from hypervlad.encoder.listing import ImageListEstimator
from hypervlad.encoder.parameters import check_device, check_run
from hypervlad.encoder.projection import TorchCodebook
from hypervlad.encoder.recipe import Recipe
from hypervlad.encoder.saving import SaveMixin
from hypervlad.encoder.spreading import from_anywhere
from hypervlad.encoder.vectors import BatchEncoder
from hypervlad.encoder.weights import NetworkSource
from hypervlad.hypercolumns import feature_maps
from hypervlad.images import check_image_list
from hypervlad.modelfile import register_kind

KIND = "hypercolumn_vlad"
register_kind(KIND, "hypervlad.encoder:HypercolumnVLAD")


class HypercolumnVLAD(
    SaveMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, ImageListEstimator
):
    """Encode micrographs as VLAD over the hypercolumns of a pretrained network.

    A convolutional network gives every position of an image a hypercolumn, a K-means codebook
    turns hypercolumns into visual words, and the residuals to the words, summed over the image,
    are its vector. One pass of the network an image; the dense sums cost a fraction of it.

    Parameters
    ----------
    backbone : str, default="mobilenet_v2"
        A network by name: see :func:`hypervlad.backbones.backbone_names`.
    weights : {"imagenet", "random"} or path, default="imagenet"
        A path names a .safetensors or .pth state dict with torchvision's keys; the convolutional
        layers are enough, float16 too. "random" is always the same random network.
    taps : sequence of str, optional
        Layers that make the hypercolumn; the backbone's own choice by default.
    image_size : int or None, default=224
        Side in pixels of the square that images are resized to; with ``aspect="own"`` the square
        root of the area. None: images keep their own size; memory then grows with the largest.
    aspect : {"square", "own"}, default="square"
        Stretch images to a square, or keep their proportions.
    pixel_size : float or None, default=None
        Nanometres per pixel that images are resampled to, so that a tube of 20 nm is equally wide
        in all of them; then ``image_size`` and ``aspect`` rule only images whose file knows no
        pixel size, such as arrays, and one warning names these. None: they rule all images. Near
        the coarsest of the files is a good choice: enlarging brings no detail back. An image that
        would have a side below the network's minimum (32 for most) or more than 2048 x 2048 pixels
        counts as unreadable.
    grid : {"finest", "image", "own"} or int, default="finest"
        Where hypercolumns are taken: at each position of the finest tap, at each pixel of the
        resized image, at each layer's own positions (``codebook="per_layer"`` only), or at this
        many random pixels. With ``codebook="both"`` a name holds for the joint codebook, a number
        for all.
    turns : {1, 2, 4, 8}, default=1
        Copies of an image, turned by right angles (for 8, mirrored too), whose residuals are
        summed before normalisation: 4 makes vectors that do not know which side was up, 8 nor
        which handedness, 2 is most of the gain. Each copy costs a pass of the network.
    n_codewords : int, default=64
        K, the visual words of a joint codebook or of each layer's.
    codebook : {"joint", "per_layer", "both"}, default="joint"
        One codebook over the stacked layers, or one for each layer. With "both", the vectors are
        joined, each normalised by itself; a ``grid`` with a name then assigns the layers' own
        words at each layer's own positions, which costs little, and a number all words at the
        same random pixels.
    layer_components : int or None, default=32
        Principal components kept of each layer; None keeps every channel.
    scale_layers : bool, default=True
        Divide each layer by its total standard deviation. A joint codebook of unscaled layers is
        ruled by the first few.
    kmeans : {"lloyd", "minibatch"}, default="lloyd"
        "lloyd" learns the codewords from ``n_samples`` hypercolumns at once. "minibatch" starts
        from those and reads the images once more, in the order of their digests, for minibatch
        K-means over 5,000 random pixels of every one (or the ``grid`` if it is a number): no
        image is left out, and memory stays bounded.
    normalize : sequence of {"intra", "power", "l2"} or None, default=("intra", "l2")
        Steps in their order: see :func:`hypervlad.vlad.normalize`.
    pooled : bool, default=False
        Join every channel's average over the image, standardised by its mean and standard
        deviation over pixels. What VLAD of a few cells loses of the deepest layer is there.
    n_samples : int, default=50_000
        Hypercolumns that the codebook is learnt from, of about a thousand images at most. Memory
        is about twice 4 bytes x channels x this (for the default network 0.6 GB). With
        ``kmeans="minibatch"``, what means, components and the first codewords come from.
    read_options : dict or ReadOptions, optional
        How files become pixels: see :class:`hypervlad.images.ReadOptions`.
    memory : None, str or joblib.Memory, default=None
        A private, trusted folder (it holds pickles) where image vectors, and the samples that a
        codebook is learnt from, are kept and found again; files whose path, size and time of change
        it knows are not read again.
    batch_size : int or "auto", default="auto"
        Images a batch; "auto" goes by their size and the device.
    device : str, default="auto"
        "cuda" where there is a GPU, else "cpu".
    n_jobs : int or None, default=None
        Threads that read images ahead of the network; None is one.
    random_state : int, RandomState or None, default=None
        Seeds K-means and the choice of pixels. Each image's own choice depends on the seed and its
        digest (with ``pixel_size``, its pixel size too) alone, not on order or neighbours.
    on_error : {"raise", "skip"}, default="raise"
        With "skip", unreadable images are left out of ``fit`` and become rows of NaN in
        ``transform``; one warning lists them.
    verbose : bool, default=False
        Show progress bars.

    Attributes
    ----------
    codebook_ : Codebook
        Projections and codewords, plain arrays.
    recipe_ : Recipe
        The parameters that decide a vector, as they were in ``fit``. Set later, they wait for the
        next ``fit``; `weights`, which must be the same ones, `memory`, `batch_size`, `device`,
        `n_jobs`, `on_error` and `verbose` hold at once.
    taps_ : tuple of str
    preprocessing_ : Preprocessing
    weights_digest_ : str
        SHA-256 of the network's tensors.
    seed_ : int
    n_images_ : int
        Images that the codebook was learnt from.

    References
    ----------
    Luo, Holm and Wang 2021, "A transfer learning approach for improved classification of carbon
    nanomaterials from TEM images", Nanoscale Advances 3, 206.

    Examples
    --------
    >>> from hypervlad import HypercolumnVLAD, make_tem_images
    >>> images, labels = make_tem_images(8, size=64, random_state=0)
    >>> encoder = HypercolumnVLAD(weights="random", image_size=64, n_codewords=4, random_state=0)
    >>> encoder.fit_transform(images).shape
    (8, 544)
    """

    _kind = KIND

    codebook_: Codebook
    recipe_: Recipe
    taps_: tuple[str, ...]
    preprocessing_: Preprocessing
    weights_digest_: str
    seed_: int
    n_images_: int

    def __init__(
        self,
        backbone: str = "mobilenet_v2",
        *,
        weights: str | os.PathLike[str] = "imagenet",
        taps: Sequence[str] | None = None,
        image_size: int | None = 224,
        aspect: Literal["square", "own"] = "square",
        pixel_size: float | None = None,
        grid: Literal["finest", "image", "own"] | int = "finest",
        turns: Literal[1, 2, 4, 8] = 1,
        n_codewords: int = 64,
        codebook: Literal["joint", "per_layer", "both"] = "joint",
        layer_components: int | None = 32,
        scale_layers: bool = True,
        kmeans: Literal["lloyd", "minibatch"] = "lloyd",
        normalize: Sequence[vlad.Normalization] | None = ("intra", "l2"),
        pooled: bool = False,
        n_samples: int = 50_000,
        read_options: Mapping[str, Any] | None = None,
        memory: str | os.PathLike[str] | joblib.Memory | None = None,
        batch_size: int | Literal["auto"] = "auto",
        device: str = "auto",
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        verbose: bool = False,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.taps = taps
        self.image_size = image_size
        self.aspect = aspect
        self.pixel_size = pixel_size
        self.grid = grid
        self.turns = turns
        self.n_codewords = n_codewords
        self.codebook = codebook
        self.layer_components = layer_components
        self.scale_layers = scale_layers
        self.kmeans = kmeans
        self.normalize = normalize
        self.pooled = pooled
        self.n_samples = n_samples
        self.read_options = read_options
        self.memory = memory
        self.batch_size = batch_size
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.on_error = on_error
        self.verbose = verbose

    def fit(self, images: Sequence[Any], y: object = None) -> HypercolumnVLAD:
        """Learn the codebook.

        Within ``joblib.parallel_config``, with several jobs or a cluster, its workers read the
        images and send back samples of hypercolumns.

        Parameters
        ----------
        images : sequence of n images
            Paths and/or arrays (H, W) or (H, W, 3), any mix of sizes.
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Unusable parameters, or too few hypercolumns for the codebook.
        ImageReadError
            An image that cannot be read, or not be brought to ``pixel_size``; it is named.

        Warns
        -----
        UnknownPixelSizeWarning
            With ``pixel_size``, once, if the pixel size of some images is not known.
        """
        return self._fit(images, learn_from_images)

    def _fit(self, images: Sequence[Any], learn: Learn) -> HypercolumnVLAD:
        """Fit with a codebook that ``learn`` makes of the images."""
        recipe = Recipe.of(self)
        check_run(self)
        images = check_image_list(images)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        network = build_network(self.backbone, self.weights, self.taps, check_device(self.device))
        preprocessing = get_backbone(self.backbone).preprocessing
        inputs = Inputs.of(self, recipe, preprocessing)
        source = NetworkSource(
            get_backbone(self.backbone), from_anywhere(self.weights), network.taps, network.digest
        )
        codebook, n_images = learn(images, inputs, network, source, seed)
        # All at the end: a fit that fails leaves the model as it was.
        self.__dict__.pop("backbone_state_", None)  # a loaded model's own weights
        self._tapped_network = network
        self.codebook_, self.seed_, self.n_images_ = codebook, seed, n_images
        self.taps_, self.weights_digest_ = network.taps, network.digest
        self.preprocessing_, self.recipe_ = preprocessing, recipe
        return self

    def transform(self, images: Sequence[Any]) -> np.ndarray:
        """Encode images.

        Parameters
        ----------
        images : sequence of n images
            As in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n, n_features), float32
            The parts of :attr:`feature_parts`: for a joint codebook K blocks of D values; for one
            a layer, those of the first layer, then those of the second, and so on; the pooled
            channels. A row of an image skipped is NaN.
        """
        check_is_fitted(self)
        check_run(self)
        images, inputs, cache = check_image_list(images), self._inputs(), CachedVectors(self)
        vectors = np.full((len(images), self._n_features_out), np.nan, dtype=np.float32)

        def not_found() -> Iterator[tuple[int, Taken]]:
            for position, taken in inputs.read(images, "encoding", cache.find):
                if taken.found is None:
                    yield position, taken
                else:
                    vectors[position] = taken.found

        encode: BatchEncoder | None = None
        for batch in inputs.batches(not_found()):
            encode = encode or self._encoder()  # no network where everything was found
            vectors[batch.positions] = encode(batch)
            cache.keep(batch.digests, vectors[batch.positions])
        return vectors

    def codeword_maps(self, image: Any) -> np.ndarray:
        """Return the visual word at every position of an image.

        Parameters
        ----------
        image : path or array

        Returns
        -------
        ndarray of int, shape (n_codebooks, H, W)
            One map for ``codebook="joint"``, one a layer for "per_layer", and for "both" the joint
            one before those of the layers. All are on the finest tap's positions, or on the
            resized image's pixels for ``grid="image"``, also where ``transform`` assigns a
            layer's words at the layer's own positions or at random pixels.

        Raises
        ------
        ImageReadError
            As in :meth:`fit`, whatever ``on_error`` says.
        """
        check_is_fitted(self)
        batch = self._inputs().alone(image)
        words = self._torch_codebook()
        maps = words.project(feature_maps(self._network(), batch.images))
        grid = "finest" if self.recipe_.grid != "image" else "image"
        return words.assign(maps, words.grid_size(maps, grid, batch.images.shape[2:]))[:, 0]

    @property
    def feature_parts(self) -> dict[str, int]:
        """The parts that a vector is made of, in their order, and how many features each has."""
        check_is_fitted(self)
        parts = {}
        if self.codebook_.joint is not None:
            parts["joint"] = self.codebook_.joint.size
        if self.codebook_.per_layer:
            parts["per_layer"] = sum(words.size for words in self.codebook_.per_layer)
        if self.recipe_.pooled:
            parts["pooled"] = sum(len(layer.mean) for layer in self.codebook_.projections)
        return parts

    @property
    def _n_features_out(self) -> int:
        return sum(self.feature_parts.values())

    # --- files --------------------------------------------------------------------------------

    def to_state(
        self, *, include_backbone: bool = False
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return the fitted encoder as a JSON-able header and named arrays."""
        check_is_fitted(self)
        return state.pack(self, self._network() if include_backbone else None)

    @classmethod
    def from_state(
        cls, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> HypercolumnVLAD:
        """Undo :meth:`to_state`."""
        return state.unpack(cls, header, arrays)

    # --- the stages ---------------------------------------------------------------------------

    def _inputs(self) -> Inputs[Recipe]:
        return Inputs.of(self, self.recipe_, self.preprocessing_)

    def _encoder(self) -> BatchEncoder:
        recipe = self.recipe_
        return BatchEncoder(
            self._network(),
            self._torch_codebook(),
            recipe.grid,
            recipe.turns,
            recipe.pooled,
            recipe.normalize,
            self.seed_,
        )

    # --- the network, built when needed and never copied --------------------------------------

    def _network(self) -> TappedNetwork:
        device = check_device(self.device)
        network: TappedNetwork | None = getattr(self, "_tapped_network", None)
        if network is None or network.device != device:
            network = self._tapped_network = NetworkSource.of(self).build(device)
        return network

    def _torch_codebook(self) -> TorchCodebook:
        return TorchCodebook(self.codebook_, check_device(self.device))

    def __getstate__(self) -> dict[str, Any]:
        attributes: dict[str, Any] = dict(super().__getstate__())
        attributes.pop("_tapped_network", None)
        return attributes

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "codebook_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags
