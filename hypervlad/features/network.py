"""A network that returns maps at its taps: its modules and weights, and how far its cells see."""

from __future__ import annotations

import contextlib
import copy
import difflib
import functools
import hashlib
import math
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from numbers import Integral
from typing import Annotated, Any, cast

from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from hypervlad.common.base import ImageEstimator
from hypervlad.common.modelfile import ModelFileError
from hypervlad.common.stored import ArrayDict, Arrays, Maybe
from hypervlad.features.lazy_torch import check_device, seeded_torch, torch, usual_torch
from hypervlad.features.registry import (
    Backbone,
    Runtime,
    check_registered,
    class_tokens,
    get_backbone,
)
from hypervlad.features.runtimes import OpenVINONetwork, fold_norms
from hypervlad.features.weights import (
    FROM_FILE,
    NAMES,
    WeightsNotFoundError,
    check_may_be_included,
    find_weights,
    is_name,
    load_into,
    read_state_dict,
)

_ROUNDING = 1e-3  # of the largest value of a map
_REACH_SIDES = (448, 896, 1344)  # pixels, tried in this order; multiples of 14, 16, 32 and 64
_SEED = 0


class _LastTapReached(Exception):  # noqa: N818 - ends the forward pass; not an error
    """Layers after the last tap need not be computed."""


def run_up_to(module: torch.nn.Module, tap: str, images: torch.Tensor) -> torch.Tensor:
    """Return a layer's output for a batch, with gradients; later layers are not run."""
    outputs: list[torch.Tensor] = []

    def keep(_module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> None:
        outputs.append(output)
        raise _LastTapReached

    hook = module.get_submodule(tap).register_forward_hook(keep)
    with hook, contextlib.suppress(_LastTapReached):
        module(images)
    return outputs[0]


class TappedNetwork:
    """A frozen network that returns the maps of its taps, and computes nothing after the last.

    Of a tap that is called again, the first output is used. ``digest`` is the SHA-256 of the
    weights, ``original`` the module with the weights as loaded, if others are folded; ``any_size``
    says that what the module computes does not depend on the size of images.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        taps: Sequence[str],
        digest: str,
        original: torch.nn.Module | None = None,
        any_size: bool = False,
    ) -> None:
        self.module = module
        self.any_size = any_size
        self.original = module if original is None else original
        self.taps = tuple(taps)
        self.digest = digest
        self.device = next(module.parameters()).device
        self._overwritten: set[str] = set()
        self._strides: dict[int, int | None] = {}
        self._reaches: dict[int, Reach | None] = {}
        self._lock = threading.Lock()  # the hooks sit on the module: one pass at a time
        self._runtime: Runtime = "torch"
        self._converted: OpenVINONetwork | None = None

    def run_by(self, runtime: Runtime, usual: tuple[int, int] | None = None) -> TappedNetwork:
        """Return the same network as a runtime runs it; on a GPU that is torch.

        Most images may have the `usual` size.
        """
        if runtime == self._runtime or self.device.type != "cpu":
            return self
        if self._converted is None:
            key = ""  # what a user's network does may change while its weights stay
            if self.any_size:
                key = f"{type(self.module)} {version('torchvision')} {self.digest} {self.taps}"
            for_size = functools.partial(_network_for, self.module, self.taps)
            self._converted = OpenVINONetwork(for_size, self.any_size, usual, key)
        own = copy.copy(self)  # with the same module, the same lock and what is converted
        own._runtime = runtime
        return own

    @usual_torch()
    def __call__(self, batch: torch.Tensor) -> list[torch.Tensor]:
        """Run the network on prepared images (B, C, H, W), from any device.

        Returns a map (B, C_l, h, w) per tap, on the device of the network.
        """
        if self._runtime == "openvino":
            assert self._converted is not None
            with self._lock, torch.inference_mode(False), torch.no_grad():
                found = self._converted(batch)
            if found is not None:
                return [layer.permute(0, 3, 1, 2) for layer in found]
        return self.in_torch(batch)

    def release_memory(self) -> None:
        """Give back what a runtime keeps for further images of the same size."""
        if self._converted is not None:
            with self._lock:
                self._converted.release_memory()

    @usual_torch()
    def in_torch(self, batch: torch.Tensor) -> list[torch.Tensor]:
        # Tensors made in a caller's inference mode have no version counters.
        with self._lock, torch.inference_mode(False), torch.no_grad():
            batch = batch.to(self.device)
            batch = batch.clone() if batch.is_inference() else batch
            batch = batch.contiguous(memory_format=torch.channels_last)
            maps, versions = self._forward(batch)
            # An in-place layer (ReLU, a residual sum) after a tap changes the tap's output. torch's
            # version counters show which taps are affected; only their outputs are copied.
            changed = {tap for tap in self.taps if maps[tap]._version != versions[tap]}
            if changed:
                self._overwritten |= changed
                maps, _ = self._forward(batch)
        return [maps[tap] for tap in self.taps]

    @usual_torch()
    def stride(self, n_channels: int = 3) -> int | None:
        """Return the stride that `reach` has, without measuring the margin."""
        if n_channels not in self._strides:
            strides, _ = _reach_of_one_pixel(self, _REACH_SIDES[0], n_channels)
            self._strides[n_channels] = math.lcm(*strides) if strides else None
        return self._strides[n_channels]

    @usual_torch()
    def reach(self, n_channels: int = 3) -> Reach | None:
        if n_channels not in self._reaches:
            self._reaches[n_channels] = reach_of(self, n_channels)
        return self._reaches[n_channels]

    def own_maps(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return maps (B, h_l, w_l, C_l) that no later layer overwrites."""
        overwritten, self._overwritten = self._overwritten, set(self.taps)
        try:
            maps, _ = self._forward(batch)
        finally:
            self._overwritten = overwritten
        return tuple(maps[tap].permute(0, 2, 3, 1) for tap in self.taps)

    def _forward(self, batch: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
        maps: dict[str, torch.Tensor] = {}
        versions: dict[str, int] = {}
        with self._hooks(maps, versions), contextlib.suppress(_LastTapReached):
            self.module(batch)
        missed = [tap for tap in self.taps if tap not in maps]
        if missed:
            raise ValueError(f"the network never calls its layer(s) {missed}: choose other taps")
        return maps, versions

    @contextlib.contextmanager
    def _hooks(self, maps: dict[str, torch.Tensor], versions: dict[str, int]) -> Iterator[None]:
        def keep(tap: str, output: object) -> None:
            if tap in maps:
                return
            if not isinstance(output, torch.Tensor) or output.ndim != 4:
                shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output)
                raise ValueError(
                    f"tap {tap!r} gives {shape}, not a map (B, C, H, W): choose a "
                    "convolutional layer"
                )
            maps[tap] = output.clone() if tap in self._overwritten else output
            versions[tap] = maps[tap]._version
            if len(maps) == len(self.taps):
                raise _LastTapReached

        layers = dict(self.module.named_modules())
        with contextlib.ExitStack() as hooks:
            for tap in self.taps:
                hook = layers[tap].register_forward_hook(lambda _m, _i, y, tap=tap: keep(tap, y))
                hooks.enter_context(hook)
            yield


def _network_for(
    module: torch.nn.Module, taps: Sequence[str], height: int, width: int
) -> TappedNetwork:
    """Return a network for images of one size, of which it may know more."""
    resampled_for = getattr(module, "resampled_for", None)
    module = module if resampled_for is None else resampled_for(height, width)
    return TappedNetwork(module, taps, digest="")


@dataclass(frozen=True)
class Reach:
    """The receptive field of a network.

    The margin is None if cells depend on the whole image (attention, squeeze-and-excitation), on
    more than 1,344 pixels, or on where they are (windowed attention).
    """

    stride: int  # pixels from one cell of the coarsest tap to the next
    margin: int | None  # pixels around a cell that it may depend on: a multiple of the stride


def reach_of(network: TappedNetwork, n_channels: int = 3) -> Reach | None:
    """Measure the receptive field of a network; None if its cells do not form a regular grid.

    One pixel of an empty image is set to NaN, which spreads to exactly the cells that depend on it.

    >>> from hypervlad.features.network import build_network, reach_of
    >>> reach_of(build_network("mobilenet_v2", "random", ["features.6", "features.13"]))
    Reach(stride=16, margin=160)
    """
    for side in _REACH_SIDES:
        strides, distances = _reach_of_one_pixel(network, side, n_channels)
        if not strides:
            return None
        stride = math.lcm(*strides)
        # The pixel may lie anywhere in its cell.
        margin = -(-(max(distances) + stride) // stride) * stride
        if 2 * margin + stride < side:
            same = is_shift_equivariant(network, side, stride, margin, n_channels)
            return Reach(stride, margin if same else None)
        # If already the finest tap depends on everything, more pixels change nothing.
        n_tried = len(distances) if side == _REACH_SIDES[0] else 2
        if n_tried > 1 and min(distances) >= side // 2:
            break
    return Reach(stride, None)


def is_shift_equivariant(
    network: TappedNetwork, side: int, stride: int, margin: int, n_channels: int
) -> bool:
    """Return whether a shift of the image by a cell shifts maps, far from the border."""
    generator = torch.Generator().manual_seed(_SEED)
    image = torch.randn(1, n_channels, side + stride, side + stride, generator=generator)
    image = image.to(network.device)
    first, second = network(image[:, :, :side, :side]), network(image[:, :, stride:, stride:])
    for one, other in zip(first, second, strict=True):
        low, high = (n * one.shape[-1] // side for n in (margin, side - margin))
        n = stride * one.shape[-1] // side
        shifted = one[:, :, low + n : high, low + n : high]
        difference = (shifted - other[:, :, low : high - n, low : high - n]).abs().max()
        if difference > _ROUNDING * shifted.abs().max():
            return False
    return True


def _reach_of_one_pixel(
    network: TappedNetwork, side: int, n_channels: int
) -> tuple[list[int], list[int]]:
    """Return the stride of each tap, if regular, and how far the central pixel reaches in it."""
    image = torch.zeros(1, n_channels, side, side, device=network.device)
    image[:, :, side // 2, side // 2] = torch.nan
    maps = network.in_torch(image)  # OpenVINO may not pass NaN on
    strides = [side // layer.shape[-1] for layer in maps]
    distances = []
    for layer, stride in zip(maps, strides, strict=True):
        if side % stride or tuple(layer.shape[-2:]) != (side // stride,) * 2:
            return [], []
        cells = layer.isnan().any(1)[0].nonzero()
        # A layer may hide NaN: then nothing is known.
        low, high = (int(cells.min()), int(cells.max()) + 1) if len(cells) else (0, side)
        distances.append(max(side // 2 - low * stride, high * stride - side // 2))
    return strides, distances


_IN_MODEL = "the weights inside the model file"
_HEAD_NAMES = ("classifier", "fc", "AuxLogits")


@usual_torch()
def build_network(
    name: str,
    weights: str | os.PathLike[str] | Mapping[str, torch.Tensor] = "pretrained",
    taps: Sequence[str | int] | None = None,
    device: str | torch.device = "cpu",
) -> TappedNetwork:
    """Build a backbone with its weights and taps, in eval mode; a ValueError if it is impossible.

    In networks of torchvision, batch normalisations are folded into the convolutions before them.
    """
    backbone = get_backbone(name)
    with torch.inference_mode(False):
        is_random = isinstance(weights, str) and weights == "random"
        module = _module_without_weights(backbone, random=is_random)
        if not is_random:
            state, source = _state_dict(backbone, weights)
            load_into(module, state, backbone, source)
        taps = check_taps(module, backbone.taps if taps is None else taps, backbone)
        taps = tuple(sorted(taps, key=class_tokens(taps, name).__contains__))
        module = module.eval().requires_grad_(False)
        digest = weights_digest(module)
        # The channels-last layout is faster for convolutions on CPUs, and VLAD needs it.
        module = module.to(device)
        for tensor in module.parameters():
            if tensor.ndim == 4:
                tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
        folded, any_size = module, backbone.torchvision_name is not None
        if any_size:  # a user's network may use a convolution's output twice
            # Not on the meta device, where normalisation imports torch's compiler, for seconds.
            side = max(64, backbone.preprocessing.minimum_size)
            folded = fold_norms(module, torch.zeros(1, 3, side, side, device=device), taps)
        return TappedNetwork(folded, taps, digest, original=module, any_size=any_size)


@functools.cache
def architecture(backbone: Backbone) -> str:
    """Return what distinguishes networks that could have the same weights.

    Of a network registered by a user, it covers layers, but not ``forward``.
    """
    if backbone.is_of_timm:
        return f"{backbone.name} of timm {version('timm')}"
    if backbone.torchvision_name is not None:
        return backbone.name
    layers = repr(_module_without_weights(backbone, random=True))
    return f"{backbone.name} {hashlib.sha256(layers.encode()).hexdigest()}"


@usual_torch()
def _module_without_weights(backbone: Backbone, random: bool) -> torch.nn.Module:
    """Build the module without its head; on the meta device if weights will be assigned."""
    on_meta = backbone.torchvision_name is not None and not random
    device = torch.device("meta" if on_meta else "cpu")
    with seeded_torch(_SEED), device:
        module = backbone.builder()
    if not isinstance(module, torch.nn.Module):
        raise ValueError(
            f"the builder of backbone {backbone.name!r} returned {type(module).__name__}, "
            "expected a torch.nn.Module"
        )
    if backbone.torchvision_name is not None:
        for head in _HEAD_NAMES:
            if hasattr(module, head):
                setattr(module, head, torch.nn.Identity())
    return module


@usual_torch()
def _shapes_of(backbone: Backbone) -> torch.nn.Module:
    """Build a module for its shapes alone, on the meta device if possible."""
    if backbone.torchvision_name is not None:
        return _module_without_weights(backbone, random=False)
    if backbone.is_of_timm:  # of any size, and its name may be from a file
        with contextlib.suppress(RuntimeError), torch.device("meta"):  # not in old versions
            return backbone.builder()
    return _module_without_weights(backbone, random=True)


def _state_dict(
    backbone: Backbone, weights: str | os.PathLike[str] | Mapping[str, torch.Tensor]
) -> tuple[Mapping[str, torch.Tensor], str]:
    if isinstance(weights, Mapping):
        return weights, _IN_MODEL
    path = find_weights(backbone.name, weights) if is_name(weights) else weights
    return read_state_dict(path), str(path)


@functools.cache
@usual_torch()
def map_channels(backbone: Backbone, tap: str, image_size: int) -> int:
    """Return the number of channels of a tap's maps of square images."""
    network = TappedNetwork(_shapes_of(backbone).eval(), [tap], digest="")
    shape = (1, len(backbone.preprocessing.mean), image_size, image_size)
    (maps,) = network(torch.zeros(shape, device=network.device))
    return maps.shape[1]


def check_tensors(backbone: Backbone, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Raise a ModelFileError unless tensors from a model file fit a backbone."""
    module = _shapes_of(backbone)
    try:
        state = {name: torch.from_numpy(array) for name, array in tensors.items()}
        load_into(module, state, backbone, _IN_MODEL)
    except (TypeError, WeightsNotFoundError) as error:
        raise ModelFileError(str(error)) from error


def tap_names(name: str) -> list[str]:
    """Return the layers of a backbone that can be tapped, in the order of the network.

    Parameters
    ----------
    name : str
        A registered backbone, or "timm/" and the name of a network of timm. Taps of the latter are
        its blocks and, in transformers, BLOCK.class (the class token).

    Examples
    --------
    >>> from hypervlad.features import tap_names
    >>> tap_names("mobilenet_v2")[:3]
    ['features', 'features.0', 'features.0.0']
    """
    backbone = get_backbone(name)
    return _layer_names(_shapes_of(backbone), backbone)


def _layer_names(module: torch.nn.Module, backbone: Backbone) -> list[str]:
    if backbone.is_of_timm:
        return list(cast(Any, module).tap_names())
    return [name for name, _ in module.named_modules() if name and name not in _HEAD_NAMES]


def check_taps(
    module: torch.nn.Module, taps: Sequence[str | int], backbone: Backbone
) -> tuple[str, ...]:
    """Return taps by their names, or raise an error that lists the valid ones."""
    valid = _layer_names(module, backbone)
    given: tuple[Any, ...] = (taps,) if isinstance(taps, (str, int)) else tuple(taps)
    if backbone.is_of_timm:  # whose blocks have numbers, too
        blocks = list(cast(Any, module).taps)
        numbers = range(-len(blocks), len(blocks))
        given = tuple(
            blocks[t] if not isinstance(t, bool) and isinstance(t, Integral) and t in numbers else t
            for t in given
        )
    if not given or len(set(given)) != len(given):
        raise ValueError(f"taps must be one or more different layer names, not {taps!r}")
    for tap in given:
        if tap not in valid:
            close = difflib.get_close_matches(str(tap), valid, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            shallow = [name for name in valid if name.count(".") <= 1]  # there may be 450 others
            raise ValueError(
                f"{backbone.name!r} has no layer {tap!r}.{hint} Its layers: {', '.join(shallow)} "
                f"(hypervlad.features.tap_names({backbone.name!r}) lists all {len(valid)})"
            )
    return tuple(map(str, given))


def weights_digest(module: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        if not key.endswith("num_batches_tracked"):
            digest.update(f"{key}:{tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def rebuilt_network(
    backbone: Backbone, weights: Any, taps: tuple[str, ...], digest: str, device: torch.device
) -> TappedNetwork:
    """Build the network of a fitted model, whose weights have this digest.

    The weights are those stored in the model, NumPy arrays by name, or those found on this machine.
    A WeightsNotFoundError or, for a model's own, a ModelFileError if they do not fit.
    """
    is_stored = isinstance(weights, Mapping)
    if is_stored:
        weights = {name: torch.from_numpy(array) for name, array in weights.items()}
    try:
        network = build_network(backbone.name, weights, taps, device)
    except (RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, WeightsNotFoundError) and not is_stored:
            raise
        raise ModelFileError(
            f"the model does not fit the network {backbone.name!r} ({error}): it was "
            "written for another network of this name, or not by hypervlad"
        ) from error
    if network.digest != digest and is_stored:
        raise ModelFileError(
            f"the weights of {backbone.name!r} in the model file are not those that the "
            "model was trained with: it was not written by hypervlad"
        )
    if network.digest != digest:
        raise WeightsNotFoundError(
            f"the weights of {backbone.name!r} found here ({weights}) are "
            f"not those that the model was trained with (SHA-256 {digest[:12]}…, found "
            f"{network.digest[:12]}…): give the right file, weights=FILE"
        )
    return network


class NetworkEstimator(ImageEstimator):
    """An estimator with a network, which is built when it is needed, and not copied.

    `_built` returns it on a device, with its ``original`` as all networks with taps have it.
    """

    backbone: str
    weights: str | os.PathLike[str]
    device: str
    # All of its tensors, of a model whose file has them, or that has changed them.
    network_state_: Annotated[
        dict[str, NDArray[Any]] | None, Maybe(ArrayDict(), may_be_missing=True)
    ]

    def _built(self, device: torch.device) -> Any:
        raise NotImplementedError

    @property
    def _has_changed_network(self) -> bool:
        """Whether the tensors are no longer those of `weights`."""
        return False

    def _fitted_network(self) -> Any:
        """Return the network on ``device``, where it may have to be built."""
        device = check_device(self.device)
        network = getattr(self, "_tapped_network", None)
        if network is None or network.device != device:
            network = self._tapped_network = self._built(device)
        return network

    def to_state(self, *, include_backbone: bool = False) -> tuple[dict[str, Any], Arrays]:
        check_is_fitted(self)
        saved = copy.copy(self)
        if include_backbone:
            check_may_be_included(self._fitted_backbone, self.weights)
            tensors = self._fitted_network().original.state_dict().items()
            saved.network_state_ = {k: v.cpu().contiguous().numpy() for k, v in tensors}
        elif not self._has_changed_network:
            saved.network_state_ = None
        return super(NetworkEstimator, saved).to_state()

    @property
    def _fitted_backbone(self) -> str:
        return str(getattr(self, "backbone_", self.backbone))

    def _parameters_to_save(self) -> dict[str, Any]:
        given = super()._parameters_to_save()  # those with which it was fitted
        given["backbone"] = self._fitted_backbone
        weights = getattr(self, "weights_", self.weights)
        file = os.path.basename(os.path.abspath(weights))
        given["weights"] = weights if is_name(weights) else f"{FROM_FILE}{file}"
        return given

    @classmethod
    def _parameters_from(cls, packed: Mapping[str, Any]) -> dict[str, Any]:
        parameters = super()._parameters_from(packed)
        check_registered(parameters["backbone"])
        weights = parameters["weights"]
        # A path from a file, looked for, could be a device, or reach for another computer.
        if isinstance(weights, str) and not is_name(weights):
            raise ModelFileError(
                f"the model names the weights {weights!r}, a path; expected one of "
                f"{', '.join(NAMES)}, or {FROM_FILE}NAME. It was not written by hypervlad"
            )
        return parameters

    def __getstate__(self) -> dict[str, Any]:
        attributes: dict[str, Any] = dict(super().__getstate__())
        attributes.pop("_tapped_network", None)
        return attributes
