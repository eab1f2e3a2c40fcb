"""Networks by name: for each a builder, default taps, and how images are prepared for it."""

from __future__ import annotations

import difflib
import functools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache, partial
from importlib.util import find_spec
from typing import Any, Literal, TypeAlias

import numpy as np
from scipy.sparse import csr_array

from hypervlad.common.constraints import Constraint, Integer, ListOf, Number, OneOf, check_value
from hypervlad.common.modelfile import ModelFileError
from hypervlad.features.lazy_torch import torch

Runtime: TypeAlias = Literal["torch", "openvino"]

_FIELDS: Mapping[str, Constraint] = {
    "mean": ListOf(Number(at_least=-1e6, at_most=1e6), "a number for each channel"),
    "std": ListOf(Number(at_least=1e-6, at_most=1e6), "a number for each channel"),
    "minimum_size": Integer(meaning="a whole number of pixels"),
    "interpolation": OneOf("bilinear", "bicubic"),
    "version": Integer(),
}


@dataclass(frozen=True)
class Preprocessing:
    """How pixels in [0, 1] are prepared for a network.

    Parameters
    ----------
    mean, std : tuple of float
        Of each channel of the input, by default those of ImageNet's three; one value means that the
        network takes grey images.
    minimum_size : int, default=32
        Shortest image side that the network takes, in pixels.
    interpolation : {"bilinear", "bicubic"}, default="bilinear"
        How images are resized, antialiased.
    version : int, default=2
        Increased when the arithmetic changes.
    """

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    minimum_size: int = 32
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    version: int = 2

    def __post_init__(self) -> None:
        for name, allowed in _FIELDS.items():
            check_value(name, getattr(self, name), [allowed])
        if len(self.mean) != len(self.std):
            raise ValueError(f"{len(self.mean)} means and {len(self.std)} standard deviations")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON knows them."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    def prepare(self, pixels: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
        """Resize an image (H, W) or (H, W, 3) and normalise it: (C, height, width)."""
        # Without torch, whose threads wait actively after each small step and hold up other work.
        levels = self.levels(pixels, size).numpy()
        mean, std = (np.array(each, np.float32)[:, None, None] for each in (self.mean, self.std))
        tensor = np.subtract(levels, mean, order="C")
        return torch.from_numpy(np.divide(tensor, std, out=tensor))

    def levels(self, pixels: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
        """Resize an image (H, W) or (H, W, 3): (1, height, width) if it is grey, or (C, ...)."""
        image = pixels if pixels.ndim == 3 else pixels[:, :, None]
        if image.shape[:2] != size:
            image = _resized(image, size, self.interpolation)
        if image.shape[2] not in (1, len(self.mean)):
            image = image.mean(axis=2, keepdims=True)
        return torch.from_numpy(np.require(np.moveaxis(image, 2, 0), np.float32, ("C", "W")))

    def normalised(self, images: torch.Tensor) -> torch.Tensor:
        """Normalise images (..., 1 or C, H, W) in [0, 1], channel by channel: (..., C, H, W)."""
        mean, std = self._by_channel(images.device)
        return (images - mean) / std

    def grey_levels(self, images: torch.Tensor) -> torch.Tensor:
        """Undo `normalised`: return images (..., C, H, W) in [0, 1]."""
        mean, std = self._by_channel(images.device)
        return images * std + mean

    def _by_channel(self, device: torch.device) -> Iterator[torch.Tensor]:
        return (torch.tensor(v, device=device)[:, None, None] for v in (self.mean, self.std))


def prepare_mask(mask: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """Resize a mask (H, W) like its image: its share of each pixel, (height, width)."""
    shares = mask[:, :, None].astype(np.float32)
    if mask.shape != size:
        shares = _resized(shares, size, "bilinear")
    return torch.from_numpy(np.ascontiguousarray(shares[:, :, 0]))


def _resized(image: np.ndarray, size: tuple[int, int], mode: str) -> np.ndarray:
    """Resize an image (H, W, C) to (height, width, C), antialiased, as Pillow and torch do."""
    for n_out in size:
        if len(image) != n_out:
            rows = axis_weights(len(image), n_out, mode) @ image.reshape(len(image), -1)
            image = rows.reshape(n_out, *image.shape[1:])
        image = np.ascontiguousarray(image.swapaxes(0, 1))
    # Bicubic interpolation overshoots at edges.
    return image.clip(0, 1) if mode == "bicubic" else image


@functools.lru_cache(256)  # particles have as many sizes
def axis_weights(n_in: int, n_out: int, mode: str) -> csr_array:
    """Return the weights (n_out, n_in) that resize an axis; rows sum to 1.

    A triangle, or for "bicubic" Keys' cubic with -0.5, widened by ``n_in / n_out`` if above 1.
    """
    scale = n_in / n_out
    width = max(scale, 1.0)
    reach = width if mode == "bilinear" else 2 * width
    centre = ((np.arange(n_out) + 0.5) * scale)[:, None]
    columns = np.floor(centre - reach).astype(int) + np.arange(math.ceil(2 * reach) + 2)
    distance = np.abs(columns + 0.5 - centre) / width
    weights = np.maximum(1 - distance, 0) if mode == "bilinear" else _cubic(distance)
    weights[(columns < 0) | (columns >= n_in)] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    row, column = np.nonzero(weights)
    entries = weights[row, column].astype(np.float32), (row, columns[row, column])
    return csr_array(entries, shape=(n_out, n_in))


def _cubic(x: np.ndarray) -> np.ndarray:
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


#: Before the names of networks of timm.
TIMM = "timm/"


@dataclass(frozen=True)
class Backbone:
    """A network: see :func:`register_backbone`.

    Attributes
    ----------
    name : str
    builder : callable
    taps : tuple of str
    preprocessing : Preprocessing
    torchvision_name : str or None
        Name of a network of torchvision.
    licence : str or None
        Of its published weights, if known.
    class_tokens : tuple of str
        Taps that belong to no position, and can only be pooled.
    tag : str or None
        Of timm's published weights.
    maximum_size : int or None
        Longest image side that the network takes, in pixels.
    is_faster_in_openvino : bool
        Whether ``runtime="auto"`` may choose OpenVINO.
    """

    name: str
    builder: Callable[[], torch.nn.Module]
    taps: tuple[str, ...]
    preprocessing: Preprocessing
    torchvision_name: str | None = None
    licence: str | None = None
    class_tokens: tuple[str, ...] = ()
    tag: str | None = None
    maximum_size: int | None = None
    is_faster_in_openvino: bool = False

    @property
    def is_of_timm(self) -> bool:
        return self.name.startswith(TIMM)

    def automatic_runtime(self, has_one_size: bool = False) -> Runtime:
        """Return what runs the network on a CPU, unless a user chooses."""
        # Networks of timm are converted for each size by itself.
        is_converted_once = has_one_size or not self.is_of_timm
        if self.is_faster_in_openvino and is_converted_once and find_spec("openvino") is not None:
            return "openvino"
        return "torch"


_REGISTRY: dict[str, Backbone] = {}


def register_backbone(
    name: str,
    builder: Callable[[], torch.nn.Module],
    taps: Iterable[str],
    preprocessing: Preprocessing | None = None,
) -> None:
    """Make a network of your own available as a backbone.

    Parameters
    ----------
    name : str
        The value of ``backbone=``. Registering a name again replaces it.
    builder : callable
        Returns an untrained ``torch.nn.Module`` for float32 batches (B, C, H, W).
    taps : iterable of str
        Default taps, as named in ``module.named_modules()``.
    preprocessing : Preprocessing, optional
        By default that of ImageNet.

    Examples
    --------
    >>> import torch
    >>> from hypervlad.features import register_backbone, get_backbone
    >>> def two_layers():
    ...     return torch.nn.Sequential(
    ...         torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(8, 16, 3, stride=2, padding=1)
    ...     )
    >>> register_backbone("two_layers", two_layers, taps=["0", "1"])
    >>> get_backbone("two_layers").taps
    ('0', '1')
    """
    is_text = isinstance(name, str)
    if not is_text or not name:
        raise ValueError(f"a backbone's name must be a non-empty string, not {name!r}")
    if name.startswith(TIMM):
        raise ValueError(f"{name!r}: names that begin with {TIMM} are those of networks of timm")
    if not callable(builder):
        raise ValueError(f"builder of {name!r} must be callable and return a module: {builder!r}")
    taps = tuple([taps] if isinstance(taps, str) else taps)
    if not taps:
        raise ValueError(f"backbone {name!r} needs at least one tap (a layer's name)")
    _REGISTRY[name] = Backbone(name, builder, taps, preprocessing or Preprocessing())


def class_tokens(taps: Iterable[str | int], backbone: str) -> list[str]:
    known = get_backbone(backbone).class_tokens
    return [str(tap) for tap in taps if tap in known]


def ensure_registered(backbone: Backbone) -> None:
    """Register a backbone that another process sent, unless its name is known already."""
    if not backbone.is_of_timm:
        _REGISTRY.setdefault(backbone.name, backbone)


def backbone_names() -> list[str]:
    """Return the valid values of ``backbone=``, in alphabetical order.

    Examples
    --------
    >>> from hypervlad.features import backbone_names
    >>> "mobilenet_v2" in backbone_names()
    True
    """
    return sorted(_REGISTRY)


def get_backbone(name: str) -> Backbone:
    """Return the backbone of this name.

    Parameters
    ----------
    name : str
        A registered name, or "timm/" and that of a network of timm.

    Raises
    ------
    ValueError
        If there is none; the message lists near matches, or the registered ones.

    Examples
    --------
    >>> from hypervlad.features import get_backbone
    >>> get_backbone("resnet18").taps
    ('relu', 'layer1', 'layer2', 'layer3', 'layer4')
    """
    is_text = isinstance(name, str)
    if is_text and name in _REGISTRY:
        return _REGISTRY[name]
    if is_text and name.startswith(TIMM):
        if name == TIMM:
            raise ValueError(f"{TIMM} lacks the name of a network, such as {TIMM}resnet50")
        if find_spec("timm") is None:
            raise ValueError(f'the network {name!r} needs timm: pip install "hypervlad[timm]"')
        return _timm_backbone(name)
    close = _meant_of_timm(str(name)) or difflib.get_close_matches(str(name), _REGISTRY, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(
        f"unknown backbone {name!r}.{hint} Registered: {', '.join(backbone_names())}. "
        "Those of timm are written timm/NAME; add your own with hypervlad.register_backbone."
    )


def check_registered(backbone: Any) -> None:
    """Raise a ModelFileError unless there is a backbone of the name in a model file here."""
    if isinstance(backbone, str) and backbone.startswith(TIMM):
        try:
            get_backbone(backbone)
        except ValueError as error:
            raise ModelFileError(f"the model's network is not known here: {error}") from error
    elif backbone not in backbone_names():
        raise ModelFileError(
            f"the model needs the backbone {backbone!r}, which is not registered here: "
            "call hypervlad.register_backbone as in training, then load again"
        )


def check_prepared(preprocessing: Preprocessing, backbone: str) -> None:
    """Raise a ModelFileError unless a model's images have the channels that its backbone takes."""
    own = get_backbone(backbone).preprocessing
    # The smallest size of a network of timm may depend on timm's version.
    same_size = backbone.startswith(TIMM) or preprocessing.minimum_size == own.minimum_size
    if len(preprocessing.mean) != len(own.mean) or not same_size:
        raise ModelFileError(
            f"the model prepares images for a backbone of {len(preprocessing.mean)} channels and "
            f"at least {preprocessing.minimum_size} pixels; {backbone!r} takes {len(own.mean)} and "
            f"{own.minimum_size}"
        )


def _meant_of_timm(name: str) -> list[str]:
    # Without the prefix, or with another one.
    if find_spec("timm") is None:
        return []
    import timm

    own = re.sub("^(hf[-_]hub:)?(timm[:/])?", "", name, flags=re.IGNORECASE)
    return [TIMM + own] if timm.is_model(own) else []


@cache
def _timm_backbone(name: str) -> Backbone:
    import timm.data  # it takes longer to import than torch

    from hypervlad.features.architectures import TimmNetwork, check_name

    own = name.removeprefix(TIMM)
    check_name(own)
    try:
        with torch.device("meta"):  # shapes alone: the network that a file names may be of any size
            network = TimmNetwork(own)
            sides = network.smallest_side(), network.largest_side()
    except RuntimeError:  # older versions of timm cannot
        with torch.random.fork_rng(devices=[]):
            network = TimmNetwork(own)
            sides = network.smallest_side(), network.largest_side()
    found = timm.data.resolve_data_config({}, pretrained_cfg=network.config)
    preprocessing = Preprocessing(
        tuple(map(float, found["mean"])),
        tuple(map(float, found["std"])),
        minimum_size=sides[0],
        interpolation="bilinear" if found["interpolation"] == "bilinear" else "bicubic",
    )
    return Backbone(
        name,
        partial(TimmNetwork, own),
        tuple(network.default_taps()),
        preprocessing,
        licence=network.config.get("license") or "unknown",
        class_tokens=tuple(network.class_tokens()),
        tag=network.config.get("tag") or None,
        maximum_size=sides[1],
        is_faster_in_openvino=True,
    )


def _torchvision_model(name: str, **arguments: Any) -> torch.nn.Module:
    if name == "mobilenet_v2":
        from hypervlad.features.architectures import MobileNetV2

        return MobileNetV2()
    import torchvision  # it takes longer to import than torch

    module: torch.nn.Module = torchvision.models.get_model(name, weights=None, **arguments)
    return module


def _register_torchvision(
    name: str, taps: str, preprocessing: Preprocessing | None = None, **arguments: Any
) -> None:
    # A partial function can be pickled for other processes.
    builder = partial(_torchvision_model, name, **arguments)
    _REGISTRY[name] = Backbone(
        name,
        builder,
        tuple(taps.split()),
        preprocessing or Preprocessing(),
        torchvision_name=name,
        licence="bsd-3-clause",
        is_faster_in_openvino=name not in _AS_FAST_IN_TORCH,
    )


# Few, large convolutions of 3 x 3, at which libraries are equally good.
_AS_FAST_IN_TORCH = ("alexnet", "resnet18", "resnet34", "vgg16", "vgg16_bn", "vgg19")

# Default taps: one per resolution, at the end of its block.
_register_torchvision("mobilenet_v2", "features.1 features.3 features.6 features.13 features.18")
_register_torchvision("vgg16", "features.3 features.8 features.15 features.22 features.29")
_register_torchvision("vgg16_bn", "features.5 features.12 features.22 features.32 features.42")
_register_torchvision("vgg19", "features.3 features.8 features.17 features.26 features.35")
_register_torchvision(
    "alexnet",
    "features.1 features.4 features.7 features.9 features.11",
    Preprocessing(minimum_size=63),
)
for _name in ("resnet18", "resnet34", "resnet50", "resnet101"):
    _register_torchvision(_name, "relu layer1 layer2 layer3 layer4")
_DENSENET_TAPS = (
    "features.relu0 features.denseblock1 features.denseblock2 features.denseblock3 features.norm5"
)
_register_torchvision("densenet121", _DENSENET_TAPS)
_register_torchvision("densenet201", _DENSENET_TAPS)
# torchvision's network rescales ImageNet-normalised pixels to [-1, 1] (transform_input). Scaling
# to that range directly is the same arithmetic with one step fewer. It was trained at 299 px.
_register_torchvision(
    "inception_v3",
    "Conv2d_2b_3x3 Conv2d_4a_3x3 Mixed_5d Mixed_6e Mixed_7c",
    Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), minimum_size=75),
    transform_input=False,
    aux_logits=False,
    init_weights=False,
)
_register_torchvision("convnext_tiny", "features.1 features.3 features.5 features.7")
_register_torchvision("efficientnet_b0", "features.1 features.2 features.3 features.5 features.8")
