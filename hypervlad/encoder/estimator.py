"""``HypercolumnVLAD``, the scikit-learn transformer from images to vectors."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, ClassVar, Literal, Self

import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from hypervlad import vlad
from hypervlad.backbones import (
    Preprocessing,
    TappedNetwork,
    build_network,
    class_tokens,
    get_backbone,
)
from hypervlad.backbones.network import check_device, check_tensors
from hypervlad.backbones.weights import check_may_be_included
from hypervlad.base import Arrays, Field, ImageEstimator, Record, Value, Values, to_json
from hypervlad.cache import absolute_memory, arrays_digest
from hypervlad.codebook import Codebook, CodebookField
from hypervlad.constraints import Alternatives, Integer, check_parameters, check_value
from hypervlad.encoder.codebook_fit import CodebookFit, FitCodebook, fit_sampled_codebook
from hypervlad.encoder.encoding import (
    BatchEncoder,
    EncodedImages,
    ResultCache,
    TorchCodebook,
    check_finite,
    encode_images,
    maps_fingerprint,
)
from hypervlad.encoder.explanation import ImageEvidence, check_codewords, image_evidence
from hypervlad.encoder.loading import MAX_SIDE, Batch, ImageLoader
from hypervlad.encoder.network_source import (
    NetworkSource,
    check_prepared,
    check_registered,
    portable_weights,
)
from hypervlad.encoder.parallel import absolute_path
from hypervlad.encoder.parameters import CONSTRAINTS, EncoderParams
from hypervlad.encoder.runtime import (
    Runtime,
    automatic_runtime,
    check_installed,
    has_much_to_do,
)
from hypervlad.hypercolumns import feature_maps
from hypervlad.images import check_image_list
from hypervlad.images.options import check_read_options
from hypervlad.lazy_torch import usual_torch
from hypervlad.workload import announced

_BACKBONE = "backbone."  # before the names of the network's tensors in a model file
_RUN_PARAMETERS = ("batch_size", "n_jobs", "on_error", "runtime")  # may change after `fit`


class HypercolumnVLAD(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ImageEstimator):
    """Encode micrographs as VLAD over the hypercolumns of a pretrained network.

    A convolutional network gives every position of an image a hypercolumn, a K-means codebook
    assigns each hypercolumn to a codeword, and the residuals to the codewords, summed over the
    image, are its vector. The network passes over each image once; the dense sums cost a fraction
    of that.

    Parameters
    ----------
    backbone : str, default="mobilenet_v2"
        A network by name: see :func:`hypervlad.backbones.backbone_names`. Any network of timm is
        ``"timm/NAME"``, such as ``"timm/vit_small_patch14_dinov2.lvd142m"``, with
        ``pip install "hypervlad[timm]"``.
    weights : {"pretrained", "micronet", "image-micronet", "random"} or path, default="pretrained"
        "pretrained" was published with the network, "micronet" was trained on micrographs,
        "image-micronet" on ImageNet and then on micrographs: see
        :func:`hypervlad.backbones.find_weights`. A path names a .safetensors or .pth state dict
        with the keys of torchvision or timm, possibly after ``module.`` or ``encoder.``, or a
        folder with a file ``model.safetensors`` or ``pytorch_model.bin``; the head may be missing,
        and float16 is accepted. "random" is always the same random network.
    taps : sequence of str or int, optional
        Layers that make the hypercolumn: see :func:`hypervlad.backbones.tap_names`. By default one
        for each resolution of the network, or four over the depth of a transformer, and with
        ``pooled`` its last class token, BLOCK.class: such taps come last and have no codewords.
        Blocks of networks of timm may be given by number.
    image_size : int or None, default=224
        Side in pixels, at most 2048, of the square that images are resized to; with
        ``aspect="own"`` the square root of the area. None: images keep their own size; memory then
        grows with the largest.
    aspect : {"square", "own"}, default="square"
        Stretch images to a square, or keep their proportions.
    pixel_size : float or None, default=None
        Nanometres per pixel that images are resampled to, so that a tube of 20 nm is equally wide
        in all of them; ``image_size`` and ``aspect`` then apply only to images of unknown pixel
        size, such as arrays, and one warning names these. None: they apply to all images. A value
        near the coarsest of the files is a good choice: enlarging brings no detail back. An image
        that would have a side below the network's minimum (32 for most) or more than 2048 x 2048
        pixels counts as unreadable.
    grid : {"finest", "image", "own"} or int, default="finest"
        Where hypercolumns are taken: at each position of the finest tap, at each pixel of the
        resized image, at each layer's own positions (``codebook="per_layer"`` only), or at this
        many random pixels, at most 262,144. With ``codebook="both"`` a name applies to the joint
        codebook, a number to all.
    turns : {1, 2, 4, 8}, default=1
        Copies of an image, turned by right angles (for 8, mirrored too), whose residuals are
        summed before normalisation: 4 makes vectors invariant to rotation by right angles, 8 also
        to mirroring; 2 brings most of the gain. Each copy costs a pass of the network.
    n_codewords : int, default=64
        K, of a joint codebook or of each layer's.
    codebook : {"joint", "per_layer", "both"}, default="joint"
        One codebook over the stacked layers, or one for each layer. With "both", the vectors are
        normalised separately and concatenated; with a named ``grid``, the layers' own codewords are
        then assigned at each layer's own positions, which costs little; with a number, all
        codewords are assigned at the same random pixels.
    layer_components : int or None, default=32
        Principal components kept of each layer; None keeps every channel.
    scale_layers : bool, default=True
        Divide each layer by its total standard deviation. Otherwise a few layers dominate a joint
        codebook: the first three of VGG-16, the last one of MobileNetV2.
    kmeans : {"lloyd", "minibatch"}, default="lloyd"
        "lloyd" learns the codewords from ``n_samples`` hypercolumns at once. "minibatch" starts
        from those and reads the images once more, in the order of their digests, for minibatch
        K-means over 5,000 random pixels of every one (or the ``grid`` if it is a number): no
        image is left out, and memory stays bounded.
    normalize : sequence of {"intra", "power", "l2"} or None, default=("intra", "l2")
        Steps, in this order. "intra": each codeword's block to unit length; "power": signed square
        root of each value; "l2": the whole vector to unit length. None leaves the sums unchanged.
    pooled : bool or "unit", default=False
        Append every channel's average over the image, standardised by its mean and standard
        deviation over pixels. It keeps what VLAD over a few cells loses of the deepest layer.
        "unit": the averages of an image are divided by their length. Whole images are then
        classified better from few examples; windows with and without defects, which also differ in
        that length, are not.
    n_samples : int, default=20_000
        Hypercolumns that the codebook is learnt from, of about a thousand images at most. Memory
        is about twice 4 bytes x channels x this (for the default network 0.25 GB). With
        ``kmeans="minibatch"``, they give the means, the components and the initial codewords.
    read_options : dict or ReadOptions, optional
        How files become pixels: see :class:`hypervlad.images.ReadOptions`.
    memory : None, str or joblib.Memory, default=None
        A private, trusted folder (it holds pickles) that caches image vectors and the samples that
        a codebook is learnt from; a file is not read again if its path, size and
        modification time are known.
    batch_size : int or "auto", default="auto"
        Images per batch; "auto" depends on their size and the device. It changes only the last
        digits of the vectors.
    device : str, default="auto"
        "auto" is "cuda" if there is a GPU, else "cpu".
    runtime : {"auto", "torch", "openvino"}, default="auto"
        What runs the network, and sums the residuals, on a CPU. "torch": torch alone. "openvino"
        (``pip install "hypervlad[openvino]"``) runs the network about twice as fast for most
        networks, after a second or two in which it is converted; numba, if installed
        (``pip install "hypervlad[fast]"``), sums the residuals. Both change only the last digits
        of the vectors. Where OpenVINO cannot convert a network, torch runs it, with a warning.
        "auto" chooses them if they are installed and the call has much to do (8 megapixels: 170
        images at 224 pixels, or half as many with ``turns=2``), OpenVINO only if it was faster for
        networks of this kind. Earlier calls do not matter.
    n_jobs : int or None, default=None
        Threads that read images ahead of the network; None is two.
    random_state : int, RandomState or None, default=None
        Seeds K-means and the choice of pixels. The choice of pixels of an image depends only on the
        seed and the image's digest (with ``pixel_size``, also on its pixel size), not on the other
        images.
    on_error : {"raise", "skip"}, default="raise"
        With "skip", unreadable images are left out of ``fit`` and become rows of NaN in
        ``transform``; one warning lists them. See also :meth:`encode`.
    verbose : bool, default=False
        Show progress bars.

    Attributes
    ----------
    codebook_ : Codebook
        Projections and codewords, plain arrays.
    fitted_params_ : EncoderParams
        The parameters that decide a vector, as they were in ``fit``. If set later, they take
        effect at the next ``fit``; `weights`, which must be the same ones, `memory`, `batch_size`,
        `device`, `runtime`, `n_jobs`, `on_error` and `verbose` take effect at once.
    taps_ : tuple of str
    preprocessing_ : Preprocessing
    weights_digest_ : str
        SHA-256 of the network's tensors.
    seed_ : int
    n_images_ : int
        Images that the codebook was learnt from.

    References
    ----------
    .. [1] Q. Luo, E. A. Holm and C. Wang, "A transfer learning approach for improved classification
       of carbon nanomaterials from TEM images", Nanoscale Advances 3, 206, 2021.

    Examples
    --------
    >>> from hypervlad import HypercolumnVLAD, make_tem_images
    >>> images, labels = make_tem_images(8, size=64, random_state=0)
    >>> encoder = HypercolumnVLAD(weights="random", image_size=64, n_codewords=4, random_state=0)
    >>> encoder.fit_transform(images).shape
    (8, 544)
    """

    _kind = "hypercolumn_vlad"
    _parameter_constraints: ClassVar[Mapping[str, Alternatives]] = CONSTRAINTS
    _fitted_state: ClassVar[Mapping[str, Field]] = {
        "codebook_": CodebookField(),
        "taps_": Values(str),
        "preprocessing_": Record(Preprocessing),
        "weights_digest_": Value(str),
        "seed_": Value(int, Integer(0, 2**32 - 1)),
        "n_images_": Value(int, Integer()),
    }
    # What belongs to this machine and this run, not to the model.
    _unsaved_parameters = ImageEstimator._unsaved_parameters | {"batch_size", "runtime"}

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
        weights: str | os.PathLike[str] = "pretrained",
        taps: Sequence[str | int] | None = None,
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
        pooled: bool | Literal["unit"] = False,
        n_samples: int = 20_000,
        read_options: Mapping[str, Any] | None = None,
        memory: str | os.PathLike[str] | joblib.Memory | None = None,
        batch_size: int | Literal["auto"] = "auto",
        device: str = "auto",
        runtime: Literal["auto", "torch", "openvino"] = "auto",
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
        self.runtime = runtime
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
            If an image cannot be read or resampled to ``pixel_size``; the message names it.

        Warns
        -----
        UnknownPixelSizeWarning
            With ``pixel_size``, once, if the pixel size of some images is not known.
        """
        return self.fit_checked(check_image_list(images))

    @usual_torch()
    def fit_checked(
        self, images: list[Any], fit_codebook: FitCodebook = fit_sampled_codebook
    ) -> HypercolumnVLAD:
        """Do the same as :meth:`fit`, for estimators that have an encoder.

        Parameters
        ----------
        images : list
            From ``hypervlad.images.check_image_list``.
        fit_codebook : callable, optional
            From images and a CodebookFit to a codebook and the number of images read.

        Returns
        -------
        self
        """
        self.check_parameters()
        params = EncoderParams.of(self.get_params(deep=False))
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        backbone = get_backbone(self.backbone)
        taps = self.taps
        if taps is None:
            taps = backbone.taps + (backbone.class_tokens[-1:] if self.pooled else ())
        network = build_network(self.backbone, self.weights, taps, check_device(self.device))
        tokens = class_tokens(network.taps, self.backbone)
        if tokens and not self.pooled:
            raise ValueError(f"{tokens[0]!r} can only be pooled: set pooled=True, or leave it out")
        if len(tokens) == len(network.taps):
            raise ValueError(f"{tokens[0]!r} has no map: give at least one other tap")
        loader = self._loader(params, backbone.preprocessing)
        with announced(len(images)):
            runtime = self._runtime(params)
        source = NetworkSource(
            backbone, absolute_path(self.weights), network.taps, network.digest, runtime
        )
        fit = CodebookFit(params, loader, network.run_by(runtime), source, seed)
        codebook, n_images = fit_codebook(images, fit)
        # All at the end: a fit that fails leaves the model as it was.
        self.__dict__.pop("backbone_state_", None)  # a loaded model's own weights
        self._tapped_network = network
        self.codebook_, self.seed_, self.n_images_ = codebook, seed, n_images
        self.taps_, self.weights_digest_ = network.taps, network.digest
        self.preprocessing_, self.fitted_params_ = backbone.preprocessing, params
        return self

    def encode(self, images: Sequence[Any]) -> EncodedImages:
        """Encode images; return their vectors, and which images were read or skipped.

        No warnings are given: see :meth:`hypervlad.encoder.EncodedImages.warn`.

        Parameters
        ----------
        images : sequence of n images
            As in :meth:`fit`.

        Returns
        -------
        hypervlad.encoder.EncodedImages
            Vectors of the images that could be read, and their positions, digests, shapes and pixel
            sizes; the skipped images with the reasons.

        Raises
        ------
        ImageReadError
            If an image cannot be read or resampled to ``pixel_size``; never with
            ``on_error="skip"``, even if no image can be read.
        """
        check_is_fitted(self)
        return self.encode_checked(check_image_list(images))

    @usual_torch()
    def encode_checked(self, images: list[Any]) -> EncodedImages:
        """Do the same as :meth:`encode` for a list from `check_image_list`."""
        self.check_run_parameters()
        cache = ResultCache(self.memory, {} if self.memory is None else self.fingerprint())
        encoder = functools.cache(self.batch_encoder)  # no network where everything is cached

        def compute(batch: Batch) -> np.ndarray:
            vectors = encoder()(batch)
            return check_finite(vectors, [images[position] for position in batch.positions])

        with announced(len(images)):
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

    @usual_torch()
    def codeword_maps(self, image: Any) -> np.ndarray:
        """Return the codeword at every position of an image.

        Parameters
        ----------
        image : path or array

        Returns
        -------
        ndarray of int, shape (n_codebooks, H, W)
            One map for ``codebook="joint"``, one per layer for "per_layer", and for "both" the
            joint one before those of the layers. All are on the finest tap's positions, or on the
            resized image's pixels for ``grid="image"``, also where ``transform`` assigns a
            layer's codewords at the layer's own positions or at random pixels.

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
            blocks["pooled"] = self.codebook_.n_pooled
        return blocks

    @property
    def n_features_out_(self) -> int:
        """Length of a vector."""
        return sum(self.feature_blocks.values())

    @property
    def _n_features_out(self) -> int:  # scikit-learn's name, for get_feature_names_out
        return self.n_features_out_

    def fingerprint(self) -> dict[str, Any]:
        """Return all that a vector depends on, except the image, batches and threads."""
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

    @usual_torch()
    def explain_vector(
        self, image: Any, weights: np.ndarray, codewords: Sequence[tuple[str, int]] = ()
    ) -> ImageEvidence:
        """Decompose linear functions of an image's vector into contributions of its positions.

        Parameters
        ----------
        image : path or array
        weights : ndarray of shape (n_features, M)
            Of M linear functions.
        codewords : sequence of (str, int)
            Codewords to map one by one: codebook, "joint" or "per_layer.TAP", and number.

        Returns
        -------
        ImageEvidence
            On the positions of the finest tap, or on the resized image's pixels where ``grid`` is
            "image" or a number.

        Raises
        ------
        ValueError
            If there is no such codeword.
        ImageReadError
            As in :meth:`fit`, whatever ``on_error`` says.
        """
        check_is_fitted(self)
        names = [] if self.codebook_.joint is None else ["joint"]
        if self.codebook_.per_layer:
            taps = self.taps_[: len(self.codebook_.projections)]
            names += [f"per_layer.{tap}" for tap in taps]
        check_codewords(codewords, dict(zip(names, self.codebook_.codewords, strict=True)))
        batch = self.loader().load_batch(image)
        return image_evidence(batch, self.batch_encoder(), names, weights, codewords)

    # --- parameters and files -------------------------------------------------------------------

    def check_run_parameters(self) -> None:
        """Raise a ValueError if a parameter that may change after ``fit`` is unusable."""
        run = {name: getattr(self, name) for name in _RUN_PARAMETERS}
        check_parameters(run, {name: CONSTRAINTS[name] for name in run})
        check_device(self.device)
        check_installed(self.runtime)

    def check_parameters(self) -> None:
        super().check_parameters()
        backbone = get_backbone(self.backbone)
        minimum, most = backbone.preprocessing.minimum_size, backbone.maximum_size
        sides: Alternatives = [Integer(minimum, most or MAX_SIDE)]
        check_value("image_size", self.image_size, sides if most else [*sides, None])
        if most and (self.aspect == "own" or self.pixel_size is not None):
            raise ValueError(
                f"{self.backbone!r} takes images of at most {most} x {most} pixels: leave out "
                'pixel_size, and set aspect="square", or choose another network'
            )
        if self.pixel_size is not None and check_read_options(self.read_options).reduced:
            raise ValueError(
                "reduced=True decodes images for a fixed image_size, but pixel_size resamples them "
                "to a common scale; leave one of the two out"
            )
        if self.grid == "own" and self.codebook != "per_layer":
            raise ValueError(
                'grid="own" assigns each layer at its own resolution, which only '
                'codebook="per_layer" can do; a joint codebook needs one grid for all layers: '
                '"finest", "image" or a number of random pixels'
            )
        check_installed(self.runtime)
        if self.device != "auto":  # which is a device everywhere, and checking it imports torch
            check_device(self.device)

    def _parameters_to_save(self) -> dict[str, Any]:
        """Return the parameters used in ``fit``, not those set since, and ``on_error``."""
        given = super()._parameters_to_save()
        given |= {"weights": portable_weights(self.weights), "taps": list(self.taps_)}
        return given | {k: to_json(v) for k, v in vars(self.fitted_params_).items()}

    @classmethod
    def _parameters_from(cls, packed: Mapping[str, Any]) -> dict[str, Any]:
        parameters = super()._parameters_from(packed)
        check_registered(parameters["backbone"])
        return parameters

    def _check_state(self) -> None:
        params = self.fitted_params_ = EncoderParams.of(self.get_params(deep=False))
        check_prepared(self.preprocessing_, params.backbone)
        n_class_tokens = len(class_tokens(self.taps_, params.backbone))
        self.codebook_.check(
            len(self.taps_) - n_class_tokens,
            params.n_codewords,
            params.codebook,
            params.layer_components,
            n_class_tokens,
        )

    def to_state(self, *, include_backbone: bool = False) -> tuple[dict[str, Any], Arrays]:
        """Return the fitted encoder as a JSON-able header and named arrays."""
        if include_backbone:
            check_may_be_included(self.fitted_params_.backbone, self.weights)
        header, arrays = super().to_state(include_backbone=include_backbone)
        if include_backbone:
            tensors = self.network().original.state_dict()
            arrays |= {_BACKBONE + k: v.cpu().contiguous().numpy() for k, v in tensors.items()}
        return header, arrays

    @classmethod
    def from_state(cls, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Undo :meth:`to_state`."""
        weights, rest = Arrays(), Arrays()
        for name, array in arrays.items():
            kind = weights if name.startswith(_BACKBONE) else rest
            kind[name.removeprefix(_BACKBONE)] = array
        encoder = super().from_state(header, rest)
        if weights:
            check_tensors(get_backbone(encoder.backbone), weights)
            encoder.backbone_state_ = weights
        return encoder

    # --- the stages, for estimators that have an encoder ---------------------------------------

    def loader(self) -> ImageLoader:
        """Return what reads images."""
        return self._loader(self.fitted_params_, self.preprocessing_)

    @usual_torch()
    def batch_encoder(self) -> BatchEncoder:
        """Return what encodes batches."""
        params, network = self.fitted_params_, self.network()
        fused = (
            network.device.type == "cpu"
            and (self.runtime == "openvino" or has_much_to_do(params))
            and self.runtime != "torch"
            and find_spec("numba") is not None
        )
        return BatchEncoder(
            network,
            TorchCodebook(self.codebook_, network.device, fused),
            params.grid,
            params.turns,
            params.pooled,
            params.normalize,
            self.seed_,
        )

    def network(self) -> TappedNetwork:
        """Return the network on ``device``, built when first needed.

        What runs it depends on ``runtime`` and on how many images are `announced`.

        Raises
        ------
        WeightsNotFoundError
            If its weights are not found here, or are not those of ``fit``.
        """
        device = check_device(self.device)
        network: TappedNetwork | None = getattr(self, "_tapped_network", None)
        if network is None or network.device != device:
            network = self._tapped_network = self.network_source().build(device)
        return network.run_by(self._runtime(self.fitted_params_))

    def _runtime(self, params: EncoderParams) -> Runtime:
        return automatic_runtime(params) if self.runtime == "auto" else self.runtime

    def network_source(self) -> NetworkSource:
        """Return what another process needs to build the same network."""
        weights = getattr(self, "backbone_state_", None) or self.weights
        backbone = get_backbone(self.fitted_params_.backbone)
        return NetworkSource(backbone, weights, self.taps_, self.weights_digest_)

    def portable_copy(self) -> HypercolumnVLAD:
        """Return a fitted copy for other processes: with absolute paths; it shares the network."""
        own = copy.copy(self)
        if (network := getattr(self, "_tapped_network", None)) is not None:
            own._tapped_network = network
        own.memory = absolute_memory(self.memory)
        own.weights = absolute_path(self.weights)
        return own

    @usual_torch()
    def torch_codebook(self) -> TorchCodebook:
        """Return the codebook on ``device``."""
        return TorchCodebook(self.codebook_, check_device(self.device))

    def _loader(self, params: EncoderParams, preprocessing: Preprocessing) -> ImageLoader:
        return ImageLoader(
            image_size=params.image_size,
            aspect=params.aspect,
            preprocessing=preprocessing,
            pixel_size=params.pixel_size,
            read_options=params.read_options,
            memory=absolute_memory(self.memory),
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
