"""``HypercolumnVLAD``, the scikit-learn transformer from images to vectors."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import joblib
import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from hypervlad import vlad
from hypervlad.backbones import Preprocessing, TappedNetwork, build_network, get_backbone
from hypervlad.cache import absolute, arrays_digest
from hypervlad.codebook import Codebook
from hypervlad.encoder import state
from hypervlad.encoder.caching import ResultCache, maps_fingerprint
from hypervlad.encoder.codebook_fit import CodebookFit, FitCodebook, fit_sampled_codebook
from hypervlad.encoder.encoding import BatchEncoder, EncodedImages, TorchCodebook, encode_images
from hypervlad.encoder.listing import ImageListEstimator
from hypervlad.encoder.loading import Batch, ImageLoader
from hypervlad.encoder.networks import NetworkSource
from hypervlad.encoder.parameters import EncoderParams, check_device, check_run
from hypervlad.encoder.saving import SaveMixin
from hypervlad.encoder.spreading import from_anywhere
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
    fitted_params_ : EncoderParams
        The parameters that decide a vector, as they were in ``fit``. Set later, they take effect at
        the next ``fit``; `weights`, which must be the same ones, `memory`, `batch_size`, `device`,
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
    fitted_params_: EncoderParams
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
        return self.fit_checked(check_image_list(images))

    def fit_checked(
        self, images: list[Any], fit_codebook: FitCodebook = fit_sampled_codebook
    ) -> HypercolumnVLAD:
        """Do the same as :meth:`fit`, for estimators that have an encoder.

        Parameters
        ----------
        images : list
            From :func:`hypervlad.images.check_image_list`.
        fit_codebook : callable, optional
            From images and a CodebookFit to a codebook and the number of images read.

        Returns
        -------
        self
        """
        params = EncoderParams.of(self)
        check_run(self)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        backbone = get_backbone(self.backbone)
        network = build_network(self.backbone, self.weights, self.taps, check_device(self.device))
        loader = self._loader(params, backbone.preprocessing)
        source = NetworkSource(backbone, from_anywhere(self.weights), network.taps, network.digest)
        fit = CodebookFit(params, loader, network, source, seed)
        codebook, n_images = fit_codebook(images, fit)
        # All at the end: a fit that fails leaves the model as it was.
        self.__dict__.pop("backbone_state_", None)  # a loaded model's own weights
        self._tapped_network = network
        self.codebook_, self.seed_, self.n_images_ = codebook, seed, n_images
        self.taps_, self.weights_digest_ = network.taps, network.digest
        self.preprocessing_, self.fitted_params_ = backbone.preprocessing, params
        return self

    def encode(self, images: Sequence[Any]) -> EncodedImages:
        """Encode images, and return with their vectors what became of each image.

        No warnings are given: see :meth:`EncodedImages.warn`.

        Parameters
        ----------
        images : sequence of n images
            As in :meth:`fit`.

        Returns
        -------
        EncodedImages
            Vectors of the images that could be read, and their positions, digests, shapes and pixel
            sizes; the skipped images with the reasons.

        Raises
        ------
        ImageReadError
            An image that cannot be read, or not be brought to ``pixel_size``; not with
            ``on_error="skip"``, even if no image can be read.
        """
        check_is_fitted(self)
        return self.encode_checked(check_image_list(images))

    def encode_checked(self, images: list[Any]) -> EncodedImages:
        """Do the same as :meth:`encode` for a list from `check_image_list`."""
        check_run(self)
        cache = ResultCache(self.memory, {} if self.memory is None else self.fingerprint())
        encoder = functools.cache(self.batch_encoder)  # no network where everything is cached

        def compute(batch: Batch) -> np.ndarray:
            return encoder()(batch)

        return encode_images(images, self.loader(), compute, self.n_features_out_, cache)

    def transform(self, images: Sequence[Any]) -> np.ndarray:
        """Encode images.

        Parameters
        ----------
        images : sequence of n images
            As in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n, n_features), float32
            The blocks of :attr:`feature_blocks`: for a joint codebook K blocks of D values; for one
            codebook per layer, those of the first layer, then those of the second, and so on; the
            pooled channels. The row of a skipped image is NaN.

        Raises
        ------
        ImageReadError
            As :meth:`encode`; also if no image can be read.

        Warns
        -----
        SkippedImagesWarning, UnknownPixelSizeWarning
            Once each, with the images skipped and those whose pixel size is not known.
        """
        encoded = self.encode(images)
        encoded.warn()
        return encoded.with_missing()

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
        images = self.loader().load_batch(image).tensors
        codebook = self.torch_codebook()
        maps = codebook.project(feature_maps(self.network(), images))
        grid = "finest" if self.fitted_params_.grid != "image" else "image"
        return codebook.assign(maps, codebook.grid_size(maps, grid, images.shape[2:]))[:, 0]

    @property
    def feature_blocks(self) -> dict[str, int]:
        """The blocks that a vector is made of, in their order, and how many features each has."""
        check_is_fitted(self)
        blocks = {}
        if self.codebook_.joint is not None:
            blocks["joint"] = self.codebook_.joint.size
        if self.codebook_.per_layer:
            blocks["per_layer"] = sum(words.size for words in self.codebook_.per_layer)
        if self.fitted_params_.pooled:
            blocks["pooled"] = sum(len(layer.mean) for layer in self.codebook_.projections)
        return blocks

    @property
    def n_features_out_(self) -> int:
        """Length of a vector."""
        return sum(self.feature_blocks.values())

    @property
    def _n_features_out(self) -> int:  # scikit-learn's name, for get_feature_names_out
        return self.n_features_out_

    def fingerprint(self) -> dict[str, Any]:
        """Return all that a vector depends on but the image; batches and threads play no part."""
        params = self.fitted_params_
        return maps_fingerprint(params, self.preprocessing_) | {
            "codebook": arrays_digest(self.codebook_.to_arrays()),
            "weights": self.weights_digest_,
            "taps": list(self.taps_),
            "grid": params.grid if isinstance(params.grid, str) else [params.grid, self.seed_],
            "turns": params.turns,
            "pooled": params.pooled,
            "normalize": list(params.normalize),
        }

    # --- files --------------------------------------------------------------------------------

    def to_state(
        self, *, include_backbone: bool = False
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return the fitted encoder as a JSON-able header and named arrays."""
        check_is_fitted(self)
        return state.pack(self, self.network() if include_backbone else None)

    @classmethod
    def from_state(
        cls, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
    ) -> HypercolumnVLAD:
        """Undo :meth:`to_state`."""
        return state.unpack(cls, header, arrays)

    # --- the stages, for estimators that have an encoder ---------------------------------------

    def loader(self, *, verify: bool = False) -> ImageLoader:
        """Return how the fitted encoder reads images; ``verify`` reads files known to `memory`."""
        return self._loader(self.fitted_params_, self.preprocessing_, verify)

    def batch_encoder(self) -> BatchEncoder:
        """Return how batches become vectors."""
        params = self.fitted_params_
        return BatchEncoder(
            self.network(),
            self.torch_codebook(),
            params.grid,
            params.turns,
            params.pooled,
            params.normalize,
            self.seed_,
        )

    def network(self) -> TappedNetwork:
        """Return the network on ``device``, built when first needed.

        Raises
        ------
        WeightsNotFoundError
            If its weights are not found here, or are not those of ``fit``.
        """
        device = check_device(self.device)
        network: TappedNetwork | None = getattr(self, "_tapped_network", None)
        if network is None or network.device != device:
            network = self._tapped_network = self.network_source().build(device)
        return network

    def network_source(self) -> NetworkSource:
        """Return what another process needs to build the same network."""
        weights = getattr(self, "backbone_state_", None) or self.weights
        backbone = get_backbone(self.fitted_params_.backbone)
        return NetworkSource(backbone, weights, self.taps_, self.weights_digest_)

    def torch_codebook(self) -> TorchCodebook:
        """Return the codebook on ``device``."""
        return TorchCodebook(self.codebook_, check_device(self.device))

    def _loader(
        self, params: EncoderParams, preprocessing: Preprocessing, verify: bool = False
    ) -> ImageLoader:
        return ImageLoader(
            image_size=params.image_size,
            aspect=params.aspect,
            preprocessing=preprocessing,
            pixel_size=params.pixel_size,
            read_options=params.read_options,
            memory=absolute(self.memory),
            verify=verify,
            batch_size=self.batch_size,
            device=check_device(self.device),
            n_jobs=self.n_jobs,
            on_error=self.on_error,
            verbose=self.verbose,
        )

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
