"""``HypercolumnVLAD``, the scikit-learn transformer from images to vectors."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import joblib
import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from hypervlad.common.constraints import (
    SEEDED,
    Alternatives,
    InstanceOf,
    Integer,
    ListOf,
    Number,
    OneOf,
    check_parameters,
    check_value,
)
from hypervlad.common.limits import MAX_INPUT_SIDE
from hypervlad.common.progress import announced
from hypervlad.common.stored import Each, Part, Record, Value, to_json
from hypervlad.features.cache import Cache, absolute_memory, arrays_digest
from hypervlad.features.codebook import SAMPLINGS, Codebook
from hypervlad.features.codebook_fit import CodebookFit, FitCodebook, fit_sampled_codebook
from hypervlad.features.encoding import (
    BatchEncoder,
    Block,
    EncodedImages,
    EncoderParams,
    TorchCodebook,
    check_blocks,
    check_finite,
    check_installed,
    encode_loaded,
    maps_fingerprint,
)
from hypervlad.features.explanation import ImageEvidence, image_evidence
from hypervlad.features.hypercolumns import feature_maps
from hypervlad.features.lazy_torch import check_device, torch, usual_torch
from hypervlad.features.loading import Batch, ImageLoader, ReadReport
from hypervlad.features.network import (
    NetworkEstimator,
    TappedNetwork,
    build_network,
    check_tensors,
    rebuilt_network,
)
from hypervlad.features.registry import Preprocessing, check_prepared, class_tokens, get_backbone
from hypervlad.features.weights import WEIGHTS, is_name
from hypervlad.images import ReadOptions
from hypervlad.images.reading import check_image_list

_RUN_PARAMETERS = ("batch_size", "on_error", "runtime")  # may change after `fit`


class HypercolumnVLAD(ClassNamePrefixFeaturesOutMixin, TransformerMixin, NetworkEstimator):
    """Encode micrographs as VLAD over the hypercolumns of a pretrained network.

    A hypercolumn is what several layers of the network compute at one position of an image. Each is
    assigned to its nearest codeword in a K-means codebook. For each codeword, the residuals
    (hypercolumn minus codeword) are summed over the image; the normalised sums are its vector.

    Parameters
    ----------
    backbone : str, default="mobilenet_v2"
        One of :func:`hypervlad.features.backbone_names`, or ``"timm/NAME"``.
    weights : {"pretrained", "micronet", "image-micronet", "random"} or path, default="pretrained"
        See :func:`hypervlad.features.find_weights`. A path names a state dict (.safetensors, .pth)
        or a folder with one; "random" is always the same.
    taps : sequence of str or int, optional
        Layers that make the hypercolumn, by default those of
        :func:`hypervlad.features.get_backbone`; if channels are pooled, also the last class token.
    image_size : int or None, default=224
        Side in pixels, at most 2048, of the square that images are stretched to, half of it for
        particles; None for their own size.
    pixel_size : float or None, default=None
        Nanometres per pixel that images are resampled to; ``image_size`` then applies only to
        images of unknown pixel size. Images that would be smaller than the network's minimum or
        larger than 2048 x 2048 pixels count as unreadable; smaller particles are enlarged.
    grid : {"finest", "image"} or int, default="finest"
        Where hypercolumns are taken: at the positions of the finest tap, at the pixels of the
        resized image, or at this many random pixels, at most 262,144.
    turns : {1, 2, 4, 8}, default=1
        Copies of an image, turned by right angles (for 8, mirrored too), whose residuals are
        summed. Each copy is a pass of the network.
    n_codewords : int, default=64
        Of each codebook.
    blocks : str or sequence of str, default=("joint",)
        What a vector consists of: at least one of the first two, at most one of the pooled ones.

        - "joint": VLAD with one codebook of whole hypercolumns;
        - "per_layer": VLAD with a codebook for each layer;
        - "pooled": the average of each channel over the image, standardised;
        - "pooled_unit": the same averages, together divided by their length;
        - "shape": of particles, seven measures of the outline, standardised by those in ``fit``.
    sampling : int or {"windows", "anyloc", "luo2021"}, default=20_000
        How many hypercolumns, at random pixels of the images, the codebook is learnt from. Each
        layer is scaled to unit variance and reduced to at most 32 principal components. A name
        stands for another way:

        - "windows": 20,000 hypercolumns, at most 16 components;
        - "anyloc": 20,000 hypercolumns, all channels, unscaled;
        - "luo2021": 50,000 hypercolumns, all channels, unscaled, give initial codewords; minibatch
          K-means refines them on 5,000 pixels of every image (``grid`` pixels, if it is a number).
    read_options : dict or ReadOptions, optional
        Fields of :class:`hypervlad.images.ReadOptions` that differ from their defaults.
    memory : None, str or joblib.Memory, default=None
        A private, trusted folder (it holds pickles) that caches vectors and samples.
    batch_size : int or None, default=None
        Images that pass the network together. None: by their size and the device.
    device : str, default="auto"
        "auto" is "cuda" if there is a GPU, else "cpu".
    runtime : {"auto", "torch", "openvino"}, default="auto"
        What runs the network on a CPU. "auto" chooses OpenVINO where it is installed and faster.
    random_state : int, RandomState or None, default=None
        Seeds K-means and the choice of pixels.
    on_error : {"raise", "skip"}, default="raise"
        With "skip", unreadable images are left out of ``fit``, are rows of NaN in ``transform``,
        and are listed in one warning.
    verbose : bool, default=False
        Show progress bars.

    Attributes
    ----------
    codebook_ : Codebook
        Projections and codewords.
    fitted_params_ : EncoderParams
        The parameters that decide a vector, as they were in ``fit``. Set later, they take effect at
        the next ``fit``; `weights`, `memory`, `batch_size`, `device`, `runtime`, `on_error` and
        `verbose` at once.
    taps_ : tuple of str
    preprocessing_ : Preprocessing
    weights_digest_ : str
        SHA-256 of the network's tensors.
    seed_ : int
    n_images_ : int
        Images that the codebook was learnt from.
    is_of_particles_ : bool
        Whether they were particles: others than those in ``fit`` are refused.

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
    # The backbone, its taps, the image size, the memory and the device have checks of their own.
    _parameter_constraints: ClassVar[Mapping[str, Alternatives]] = {
        "weights": WEIGHTS,
        "pixel_size": [None, Number(above=0, meaning="nanometres per pixel, a number")],
        "grid": [
            OneOf("finest", "image"),
            Integer(at_most=2**18, meaning="a number of random pixels"),
        ],
        "turns": [OneOf(1, 2, 4, 8)],
        "n_codewords": [Integer()],
        "blocks": [
            OneOf("joint", "per_layer"),
            ListOf(
                OneOf("joint", "per_layer", "pooled", "pooled_unit", "shape"),
                "a sequence",
                at_most=4,
            ),
        ],
        "sampling": [Integer(meaning="a number of hypercolumns"), OneOf(*SAMPLINGS)],
        "read_options": [
            None,
            InstanceOf(
                (ReadOptions, Mapping), 'a dict such as {"banner": "remove"} or a ReadOptions'
            ),
        ],
        "batch_size": [Integer(), None],
        "runtime": [OneOf("auto", "torch", "openvino")],
        "on_error": [OneOf("raise", "skip")],
        **SEEDED,
    }
    _unsaved_parameters = NetworkEstimator._unsaved_parameters | {"batch_size", "runtime"}

    codebook_: Annotated[Codebook, Part(Codebook)]
    fitted_params_: EncoderParams
    taps_: Annotated[tuple[str, ...], Each(Value(str))]
    preprocessing_: Annotated[Preprocessing, Record(Preprocessing)]
    weights_digest_: Annotated[str, Value(str)]
    seed_: Annotated[int, Value(int, Integer(0, 2**32 - 1))]
    n_images_: Annotated[int, Value(int, Integer())]
    is_of_particles_: Annotated[bool, Value(bool)]

    def __init__(
        self,
        backbone: str = "mobilenet_v2",
        *,
        weights: str | os.PathLike[str] = "pretrained",
        taps: Sequence[str | int] | None = None,
        image_size: int | None = 224,
        pixel_size: float | None = None,
        grid: Literal["finest", "image"] | int = "finest",
        turns: Literal[1, 2, 4, 8] = 1,
        n_codewords: int = 64,
        blocks: Block | Sequence[Block] = ("joint",),
        sampling: int | Literal["windows", "luo2021", "anyloc"] = 20_000,
        read_options: Mapping[str, Any] | None = None,
        memory: str | os.PathLike[str] | joblib.Memory | None = None,
        batch_size: int | None = None,
        device: str = "auto",
        runtime: Literal["auto", "torch", "openvino"] = "auto",
        random_state: int | np.random.RandomState | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        verbose: bool = False,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.taps = taps
        self.image_size = image_size
        self.pixel_size = pixel_size
        self.grid = grid
        self.turns = turns
        self.n_codewords = n_codewords
        self.blocks = blocks
        self.sampling = sampling
        self.read_options = read_options
        self.memory = memory
        self.batch_size = batch_size
        self.device = device
        self.runtime = runtime
        self.random_state = random_state
        self.on_error = on_error
        self.verbose = verbose

    def fit(self, images: Sequence[Any], y: object = None) -> HypercolumnVLAD:
        """Learn the codebook.

        Parameters
        ----------
        images : sequence of n images
            Paths and/or arrays (H, W) or (H, W, 3), any mix of sizes; or particles, from
            :func:`hypervlad.particles.cut_particles`, of which only their own positions count.
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Unusable parameters, too few hypercolumns, or only some images are particles.
        ImageReadError
            If an image cannot be read or resampled; the message names it.
        """
        return self.fit_checked(check_image_list(images))

    @usual_torch()
    def fit_checked(
        self, images: list[Any], fit_codebook: FitCodebook = fit_sampled_codebook
    ) -> HypercolumnVLAD:
        """Do the same as :meth:`fit` for a list from `check_image_list`."""
        self.check_parameters()
        params = EncoderParams.of(self.get_params(deep=False))
        of_particles = params.check_kind(images)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        backbone = get_backbone(self.backbone)
        taps = self.taps
        if taps is None:
            taps = backbone.taps + (backbone.class_tokens[-1:] if params.is_pooled else ())
        network = build_network(self.backbone, self.weights, taps, check_device(self.device))
        tokens = class_tokens(network.taps, self.backbone)
        if tokens and not params.is_pooled:
            raise ValueError(
                f"{tokens[0]!r} can only be pooled: add 'pooled' to blocks, or leave it out"
            )
        if len(tokens) == len(network.taps):
            raise ValueError(f"{tokens[0]!r} has no map: give at least one other tap")
        loader = self._loader(params, backbone.preprocessing, of_particles)
        fit = CodebookFit(params, loader, self._as_run(network, params), seed)
        with announced():
            codebook, n_images = fit_codebook(images, fit)
        # All at the end: a fit that fails leaves the model as it was.
        self._tapped_network, self.network_state_ = network, None
        self.codebook_, self.seed_, self.n_images_ = codebook, seed, n_images
        self.is_of_particles_ = of_particles
        self.taps_, self.weights_digest_ = network.taps, network.digest
        self.preprocessing_, self.fitted_params_ = backbone.preprocessing, params
        return self

    def encode(self, images: Sequence[Any]) -> EncodedImages:
        """Return the vectors of images, and which were read or skipped, without warnings.

        Parameters
        ----------
        images : sequence of n images
            As in :meth:`fit`.

        Returns
        -------
        EncodedImages

        Raises
        ------
        ImageReadError
            As in :meth:`fit`; never with ``on_error="skip"``.
        """
        return self._encoded(images, with_faults=True)

    @usual_torch()
    def _encoded(self, images: Sequence[Any], *, with_faults: bool) -> EncodedImages:
        check_is_fitted(self)
        images = check_image_list(images)
        self.check_run_parameters()
        cache = None if self.memory is None else Cache(self.memory, self.fingerprint())
        encoder = functools.cache(self.batch_encoder)  # no network where everything is cached

        def compute(batch: Batch) -> np.ndarray:
            vectors = encoder()(batch)
            return check_finite(vectors, [images[position] for position in batch.positions])

        loader, report = replace(self.loader(), with_faults=with_faults), ReadReport(len(images))
        load = functools.partial(loader.load, find=None if cache is None else cache.find)
        loaded = loader.stream(images, "encoding", load, report)
        with announced():
            return encode_loaded(loaded, report, loader, compute, self.n_features_out_, cache)

    def transform(self, images: Sequence[Any]) -> np.ndarray:
        """Encode images.

        Parameters
        ----------
        images : sequence of n images
            As in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n, n_features), float32
            The blocks of :attr:`feature_blocks`, codeword by codeword, layer by layer. The row of a
            skipped image is NaN.

        Raises
        ------
        ImageReadError
            As in :meth:`encode`; also if no image can be read.
        """
        return self._encoded(images, with_faults=False).warn().with_missing()

    @usual_torch()
    def codeword_maps(self, image: Any) -> np.ndarray:
        """Return the codeword at every position of an image.

        Parameters
        ----------
        image : path or array

        Returns
        -------
        ndarray of int, shape (n_codebooks, H, W)
            One map for the joint codebook, then one per layer, on the positions of ``grid``; of the
            finest tap if it is a number.

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
        """The blocks of a vector, in their order, and how many features each has."""
        check_is_fitted(self)
        return self.codebook_.block_widths(is_pooled=self.fitted_params_.is_pooled)

    @property
    def n_features_out_(self) -> int:
        """Length of a vector."""
        return sum(self.feature_blocks.values())

    @property
    def _n_features_out(self) -> int:  # scikit-learn's name, for get_feature_names_out
        return self.n_features_out_

    def fingerprint(self) -> dict[str, Any]:
        """Return what a vector depends on, except the image, batches and threads."""
        check_is_fitted(self)
        params, (header, arrays) = self.fitted_params_, self.codebook_.to_state()
        return maps_fingerprint(params, self.preprocessing_) | {
            "codebook": [header, arrays_digest(arrays)],
            "weights": self.weights_digest_,
            "taps": list(self.taps_),
            "grid": params.grid if isinstance(params.grid, str) else [params.grid, self.seed_],
            "turns": params.turns,
            "blocks": list(params.blocks),
        }

    # --- parameters and files -------------------------------------------------------------------

    def check_run_parameters(self) -> None:
        """Check the parameters that may change after ``fit``."""
        run = {name: getattr(self, name) for name in _RUN_PARAMETERS}
        check_parameters(run, {name: self._parameter_constraints[name] for name in run})
        check_device(self.device)
        check_installed(self.runtime)

    def check_parameters(self) -> None:
        super().check_parameters()
        backbone = get_backbone(self.backbone)
        minimum, most = backbone.preprocessing.minimum_size, backbone.maximum_size
        if most and self.image_size is None:
            raise ValueError(
                f"image_size must be at most {most}, not None: {self.backbone!r} takes images of "
                f"at most {most} x {most} pixels, but with None they keep their own size; give "
                f"image_size={most}, or choose another network"
            )
        sides: Alternatives = [Integer(minimum, most or MAX_INPUT_SIDE)]
        check_value("image_size", self.image_size, sides if most else [*sides, None])
        if most and self.pixel_size is not None:
            raise ValueError(
                f"{self.backbone!r} takes images of at most {most} x {most} pixels: leave out "
                "pixel_size, or choose another network"
            )
        check_blocks(self.blocks)
        check_installed(self.runtime)
        if self.device != "auto":  # which is a device everywhere, and checking it imports torch
            check_device(self.device)

    def _parameters_to_save(self) -> dict[str, Any]:
        # Those used in `fit`, not those set since.
        given = super()._parameters_to_save()
        given |= {"taps": list(self.taps_)}
        return given | {k: to_json(v) for k, v in vars(self.fitted_params_).items()}

    def _check_state(self) -> None:
        params = self.fitted_params_ = EncoderParams.of(self.get_params(deep=False))
        check_prepared(self.preprocessing_, params.backbone)
        if self.network_state_:
            check_tensors(get_backbone(params.backbone), self.network_state_)
        n_class_tokens = len(class_tokens(self.taps_, params.backbone))
        self.codebook_.check(
            len(self.taps_) - n_class_tokens,
            params.n_codewords,
            params.blocks,
            params.codebook_sampling.n_components,
            n_class_tokens,
        )

    # --- the stages, for estimators that have an encoder ---------------------------------------

    def loader(self) -> ImageLoader:
        """Return what reads images."""
        check_is_fitted(self, "fitted_params_")
        return self._loader(self.fitted_params_, self.preprocessing_, self.is_of_particles_)

    @usual_torch()
    def batch_encoder(self) -> BatchEncoder:
        """Return what encodes batches."""
        network = self.network()
        codebook = TorchCodebook(self.codebook_, network.device)
        return BatchEncoder(network, codebook, self.fitted_params_, self.seed_)

    def network(self) -> TappedNetwork:
        """Return the network on ``device``; a WeightsNotFoundError if it has lost its weights."""
        check_is_fitted(self, "fitted_params_")
        return self._as_run(self._fitted_network(), self.fitted_params_)

    @property
    def _fitted_backbone(self) -> str:
        return self.fitted_params_.backbone

    def _built(self, device: torch.device) -> TappedNetwork:
        backbone, weights = get_backbone(self._fitted_backbone), self.network_state_ or self.weights
        return rebuilt_network(backbone, weights, self.taps_, self.weights_digest_, device)

    def _as_run(self, network: TappedNetwork, params: EncoderParams) -> TappedNetwork:
        runtime = params.automatic_runtime if self.runtime == "auto" else self.runtime
        side = params.image_size if params.pixel_size is None else None
        return network.run_by(runtime, None if side is None else (side, side))

    def portable_copy(self) -> HypercolumnVLAD:
        """Return a copy for other processes, with absolute paths; it shares the network."""
        own = copy.copy(self)
        if (network := getattr(self, "_tapped_network", None)) is not None:
            own._tapped_network = network
        own.memory = absolute_memory(self.memory)
        own.weights = self.weights if is_name(self.weights) else os.path.abspath(self.weights)
        return own

    @usual_torch()
    def explain_vector(self, image: Any, weights: np.ndarray) -> ImageEvidence:
        """Decompose linear functions of an image's vector into contributions of its positions.

        ``weights`` (n_features, M) are those of M functions. ValueError if ``grid`` is a number.
        """
        check_is_fitted(self)
        if not isinstance(self.fitted_params_.grid, str):
            raise ValueError(
                f"grid={self.fitted_params_.grid} takes random pixels, and the others are no "
                "evidence: fit with grid='finest' or 'image' for a decomposition by position"
            )
        names, batch = self.codebook_.names(self.taps_), self.loader().load_batch(image)
        return image_evidence(batch, self.batch_encoder(), names, weights)

    @usual_torch()
    def torch_codebook(self) -> TorchCodebook:
        """Return the codebook on ``device``."""
        check_is_fitted(self)
        return TorchCodebook(self.codebook_, check_device(self.device))

    def _loader(
        self, params: EncoderParams, preprocessing: Preprocessing, of_particles: bool
    ) -> ImageLoader:
        return ImageLoader(
            image_size=params.image_size,
            preprocessing=preprocessing,
            pixel_size=params.pixel_size,
            read_options=params.read_options,
            memory=absolute_memory(self.memory),
            batch_size=self.batch_size,
            device=check_device(self.device),
            on_error=self.on_error,
            verbose=self.verbose,
            of_particles=of_particles,
        )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "codebook_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags
