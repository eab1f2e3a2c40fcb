"""A network with taps: built, loaded with weights, and run only as deep as its last tap."""

from __future__ import annotations

import contextlib
import copy
import difflib
import functools
import hashlib
import itertools
import math
import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from hypervlad.backbones.registry import Backbone, class_tokens, get_backbone
from hypervlad.backbones.weights import (
    PUBLISHED,
    WeightsNotFoundError,
    find_weights,
    load_into,
    read_state_dict,
)
from hypervlad.lazy_torch import torch, usual_torch
from hypervlad.modelfile import ModelFileError

if TYPE_CHECKING:
    from hypervlad.backbones.openvino_network import OpenVINONetwork


@dataclass(frozen=True)
class ConvNormPair:
    """A convolution and the batch normalisation of its output.

    Attributes
    ----------
    conv, norm : str
        Names of the layers.
    same_output : tuple of str
        Names of all layers with the same output as the convolution: itself, and blocks that end in
        it.
    """

    conv: str
    norm: str
    same_output: tuple[str, ...]


def find_conv_norm_pairs(module: torch.nn.Module, image: torch.Tensor) -> tuple[ConvNormPair, ...]:
    """Find the convolutions whose output goes into a batch normalisation.

    Other uses of that output are not detected. Call this only for networks that are known to have
    none.

    Parameters
    ----------
    module : torch.nn.Module
        In eval mode. It is not changed.
    image : torch.Tensor of shape (1, C, H, W)
    """
    layers = {name: layer for name, layer in module.named_modules() if name}
    # Keeping the tensors keeps their ids unique.
    outputs: dict[int, list[tuple[str, torch.Tensor]]] = {}
    found, calls = dict[str, tuple[str, int]](), Counter[str]()

    def record(name: str, layer: torch.nn.Module, inputs: Any, output: Any) -> None:
        calls[name] += 1
        before = outputs.get(id(inputs[0]), [("", output)])[0][0]
        if type(layer) is torch.nn.BatchNorm2d and type(layers.get(before)) is torch.nn.Conv2d:
            found[name] = before, id(inputs[0])
        if isinstance(output, torch.Tensor):
            outputs.setdefault(id(output), []).append((name, output))

    handles = [
        layer.register_forward_hook(lambda m, x, y, name=name: record(name, m, x, y))
        for name, layer in layers.items()
    ]
    try:
        module(image)
    finally:
        for handle in handles:
            handle.remove()
    pairs = [
        ConvNormPair(conv, norm, tuple(name for name, _ in outputs[tensor]))
        for norm, (conv, tensor) in found.items()
        if calls[conv] == calls[norm] == 1
    ]
    return tuple(p for p in pairs if all(_contains(name, p.conv) for name in p.same_output))


def fold_norms(module: torch.nn.Module, pairs: Iterable[ConvNormPair]) -> torch.nn.Module:
    """Return a network with the batch normalisations folded; it shares the other layers.

    Parameters
    ----------
    module : torch.nn.Module
        In eval mode. It is not changed.
    pairs : iterable of ConvNormPair

    Returns
    -------
    torch.nn.Module
        With layers of the same names; ``module`` itself if there are no pairs.
    """
    pairs = list(pairs)
    if not pairs:
        return module
    tensors = itertools.chain(module.parameters(), module.buffers())
    folded = copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})
    for pair in pairs:
        first, second = (cast(Any, folded.get_submodule(n)) for n in (pair.conv, pair.norm))
        fused = torch.nn.utils.fusion.fuse_conv_bn_eval(first, second)
        _replace(folded, pair.conv, fused.requires_grad_(False))
        _replace(folded, pair.norm, torch.nn.Identity())
    return folded


def _contains(block: str, layer: str) -> bool:
    """Return whether a layer is the block or inside it; if not, it changes the output in place."""
    return f"{layer}.".startswith(f"{block}.")


def _replace(module: torch.nn.Module, name: str, layer: torch.nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(module.get_submodule(parent), own, layer)


_RANDOM_SEED = 0
_IN_MODEL = "the weights inside the model file"
# Random numbers of torch are shared by the process: one network is built at a time.
_SEEDING = threading.Lock()
_HEAD_NAMES = ("classifier", "fc", "AuxLogits")
_ROUNDING = 1e-3  # of the largest value of a map
_REACH_SIDES = (448, 896, 1344)  # pixels, tried in this order; multiples of 14, 16, 32 and 64


class _LastTapReached(Exception):  # noqa: N818 - ends the forward pass; not an error
    """Layers after the last tap need not be computed."""


def run_up_to(module: torch.nn.Module, tap: str, images: torch.Tensor) -> torch.Tensor:
    """Return a layer's output for a batch, with gradients; later layers are not run."""
    outputs: list[torch.Tensor] = []

    def keep(_module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> None:
        outputs.append(output)
        raise _LastTapReached

    handle = module.get_submodule(tap).register_forward_hook(keep)
    try:
        with contextlib.suppress(_LastTapReached):
            module(images)
    finally:
        handle.remove()
    return outputs[0]


class TappedNetwork:
    """A frozen network that returns the maps of its taps.

    Parameters
    ----------
    module : torch.nn.Module
        The network that runs: in eval mode, on its device, with its weights.
    taps : sequence of str
        Names of layers with 4-D output (B, C, H, W). If the network calls a layer more than once,
        its first output is used.
    digest : str
        SHA-256 of the weights: see :func:`weights_digest`.
    original : torch.nn.Module, optional
        The network with its weights as loaded, if ``module`` has folded ones.
    any_size : bool, default=False
        Whether the module's computations do not depend on the size of images.
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
        self._in_openvino: TappedNetwork | None = None
        self._converted: OpenVINONetwork | None = None

    def run_by(self, runtime: Literal["torch", "openvino"]) -> TappedNetwork:
        """Return the same network as a runtime runs it; on a GPU that is torch."""
        if runtime == "torch" or self.device.type != "cpu":
            return self
        if self._in_openvino is None:
            from hypervlad.backbones.openvino_network import OpenVINONetwork

            own = copy.copy(self)  # with the same module, and the same lock
            network_for = functools.partial(_network_for, self.module, self.taps, self.digest)
            own._converted = OpenVINONetwork(network_for, self.any_size)
            self._in_openvino = own
        return self._in_openvino

    @property
    def runtime(self) -> Literal["torch", "openvino"]:
        """What runs it, unless OpenVINO cannot."""
        return "torch" if self._converted is None else "openvino"

    @usual_torch()
    def __call__(self, batch: torch.Tensor) -> list[torch.Tensor]:
        """Run the network once.

        Parameters
        ----------
        batch : Tensor of shape (B, C, H, W), float32
            Preprocessed images, on the network's device.

        Returns
        -------
        list of Tensor of shape (B, C_l, h_l, w_l)
            One map per tap, in the order of ``taps``.
        """
        if self._converted is not None:
            with self._lock, torch.inference_mode(False), torch.no_grad():
                found = self._converted(batch)
            if found is not None:
                return [layer.permute(0, 3, 1, 2) for layer in found]
        return self.in_torch(batch)

    @usual_torch()
    def in_torch(self, batch: torch.Tensor) -> list[torch.Tensor]:
        """Run the network once, in torch."""
        # Tensors made in a caller's inference mode have no version counters.
        with self._lock, torch.inference_mode(False), torch.no_grad():
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
        """Return the stride of `reach`, at the cost of one pass; it is measured once."""
        if n_channels not in self._strides:
            strides, _ = _reach_of_one_pixel(self, _REACH_SIDES[0], n_channels)
            self._strides[n_channels] = math.lcm(*strides) if strides else None
        return self._strides[n_channels]

    @usual_torch()
    def reach(self, n_channels: int = 3) -> Reach | None:
        """Return the receptive field, as `reach_of` does; it is measured once."""
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
        handles = [
            layers[tap].register_forward_hook(lambda _m, _i, output, tap=tap: keep(tap, output))
            for tap in self.taps
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _network_for(
    module: torch.nn.Module, taps: Sequence[str], digest: str, height: int, width: int
) -> TappedNetwork:
    """Return a network for images of one size, as OpenVINO can record it."""
    resampled_for = getattr(module, "resampled_for", None)
    own = module if resampled_for is None else resampled_for(height, width)
    return TappedNetwork(own, taps, digest)


@usual_torch()
def build_network(
    name: str,
    weights: str | os.PathLike[str] | Mapping[str, torch.Tensor] = "pretrained",
    taps: Sequence[str | int] | None = None,
    device: str | torch.device = "cpu",
) -> TappedNetwork:
    """Build a backbone with its weights and taps, in eval mode.

    In networks of torchvision, batch normalisations are folded into the convolutions before them.
    This saves time and changes the maps by rounding errors only.

    Parameters
    ----------
    name : str
        A registered backbone, or "timm/" and the name of a network of timm.
    weights : {"pretrained", "micronet", "image-micronet", "random"}, path or state dict
        See `find_weights`. "random" is seeded, so that it always gives the same network.
    taps : sequence of str or int, optional
        Layers to tap; by default those of the backbone. Blocks of networks of timm may be given by
        number.
    device : str or torch.device, default="cpu"

    Raises
    ------
    ValueError
        Unknown backbone or tap (the message lists the valid ones), or unusable weights.
    """
    backbone = get_backbone(name)
    with torch.inference_mode(False):
        module = _module_without_weights(backbone, random=_is_random(weights))
        if not _is_random(weights):
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
        pairs = [
            pair
            for pair in _foldable_pairs(backbone, module)
            if not set(pair.same_output) & set(taps)
        ]
        folded, any_size = fold_norms(module, pairs), backbone.torchvision_name is not None
        return TappedNetwork(folded, taps, digest, original=module, any_size=any_size)


def _foldable_pairs(backbone: Backbone, module: torch.nn.Module) -> tuple[ConvNormPair, ...]:
    """Return the normalisations that can be folded: none in a network that a user registered.

    One pass of a small image. It would be free on the meta device, but normalisation there imports
    torch's compiler, which takes longer than all else.
    """
    if backbone.torchvision_name is None:
        return ()
    side = max(64, backbone.preprocessing.minimum_size)
    device = next(module.parameters()).device
    return find_conv_norm_pairs(module, torch.zeros(1, 3, side, side, device=device))


@functools.cache
def architecture(backbone: Backbone) -> str:
    """Return a description that distinguishes networks that could have the same weights.

    For a network registered by a user it covers layers and their settings. Changes in ``forward``
    alone are not detected.
    """
    if backbone.is_of_timm:
        return f"{backbone.name} of timm {version('timm')}"
    if backbone.torchvision_name is not None:
        return backbone.name
    layers = repr(_module_without_weights(backbone, random=True))
    return f"{backbone.name} {hashlib.sha256(layers.encode()).hexdigest()}"


def _is_random(weights: object) -> bool:
    return isinstance(weights, str) and weights == "random"


@usual_torch()
def _module_without_weights(backbone: Backbone, random: bool) -> torch.nn.Module:
    """Build the module without its head; on the meta device if weights will be assigned."""
    on_meta = backbone.torchvision_name is not None and not random
    device = torch.device("meta" if on_meta else "cpu")
    with _SEEDING, torch.random.fork_rng(devices=[]), device:
        torch.manual_seed(_RANDOM_SEED)
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
    """Build a module for its shapes alone: on the meta device, if its builder can do that."""
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
    path = find_weights(backbone.name, weights) if weights in PUBLISHED else weights
    return read_state_dict(path), str(path)


@functools.cache
@usual_torch()
def map_channels(backbone: Backbone, tap: str, image_size: int) -> int:
    """Return the number of channels of a tap's maps of square images, without any weights."""
    network = TappedNetwork(_shapes_of(backbone).eval(), [tap], digest="")
    shape = (1, len(backbone.preprocessing.mean), image_size, image_size)
    (maps,) = network(torch.zeros(shape, device=network.device))
    return maps.shape[1]


def check_tensors(
    backbone: Backbone, tensors: Mapping[str, NDArray[Any]], *, are_all: bool = True
) -> None:
    """Raise a ModelFileError unless tensors from a model file are finite and fit a backbone.

    Parameters
    ----------
    backbone : Backbone
    tensors : mapping of str to ndarray
    are_all : bool, default=True
        Whether no tensor of the backbone may be missing.
    """
    for name, array in tensors.items():
        if not np.isfinite(array).all():
            raise ModelFileError(f"values of the network's tensor {name!r} are not finite")
    module = _shapes_of(backbone)
    try:
        given = {name: torch.from_numpy(array) for name, array in tensors.items()}
        state = given if are_all else module.state_dict() | given
        load_into(module, state, backbone, _IN_MODEL)
    except (TypeError, WeightsNotFoundError) as error:
        raise ModelFileError(str(error)) from error


def tap_names(name: str) -> list[str]:
    """Return the layers of a backbone that can be tapped, in the order of the network.

    Parameters
    ----------
    name : str
        A registered backbone, or "timm/" and the name of a network of timm. Of the latter, these
        are the blocks after which it has feature maps; BLOCK.unit, where the channels of each cell
        are divided by their length; and in transformers BLOCK.value and BLOCK.value.unit, the
        values of the block's attention, and BLOCK.class, its class token, for pooled features.

    Examples
    --------
    >>> from hypervlad.backbones import tap_names
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
            raise ValueError(
                f"{backbone.name!r} has no layer {tap!r}.{hint} Its layers: "
                f"{', '.join(_shallow(valid))} (hypervlad.backbones.tap_names({backbone.name!r}) "
                f"lists all {len(valid)})"
            )
    return tuple(map(str, given))


def _shallow(names: Sequence[str]) -> list[str]:
    """Return the names of at most two parts; a resnet152 has 450 longer ones."""
    return [name for name in names if name.count(".") <= 1]


def weights_digest(module: torch.nn.Module) -> str:
    """Return the SHA-256 of a module's named tensors; it does not depend on their file's format."""
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        if not key.endswith("num_batches_tracked"):
            digest.update(f"{key}:{tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Reach:
    """The receptive field of a network, as needed to cut images into tiles.

    Attributes
    ----------
    stride : int
        Pixels per cell of the coarsest tap.
    margin : int or None
        Pixels on each side of a cell of any tap that its value depends on: at least half of the
        receptive field, and a multiple of `stride`. None if cells depend on the whole image
        (attention, squeeze-and-excitation), on more than 1,344 pixels of it, or on where in the
        image they are (windowed attention).
    """

    stride: int
    margin: int | None


def reach_of(network: TappedNetwork, n_channels: int = 3) -> Reach | None:
    """Measure the receptive field of a network.

    One pixel of an empty image is set to NaN, which spreads to exactly the cells that depend on it.

    Parameters
    ----------
    network : TappedNetwork
    n_channels : int, default=3
        Of its input images.

    Returns
    -------
    Reach or None
        None if the cells do not form a regular grid over the image (convolutions without padding).

    Examples
    --------
    >>> from hypervlad.backbones import build_network, reach_of
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
            same = _is_shift_equivariant(network, side, stride, margin, n_channels)
            return Reach(stride, margin if same else None)
        # If already the finest tap depends on everything, more pixels change nothing.
        n_tried = len(distances) if side == _REACH_SIDES[0] else 2
        if n_tried > 1 and min(distances) >= side // 2:
            break
    return Reach(stride, None)


def _is_shift_equivariant(
    network: TappedNetwork, side: int, stride: int, margin: int, n_channels: int
) -> bool:
    """Return whether maps of an image shifted by a cell are shifted, far from the border."""
    generator = torch.Generator().manual_seed(_RANDOM_SEED)
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
    """Return the stride of each tap, and how far the central pixel of a square reaches in it.

    No strides if the cells of a tap do not form a regular grid.
    """
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


def check_device(device: Any) -> torch.device:
    """Return a torch device; "auto" is the GPU where there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f'device must be "auto", "cpu" or "cuda", not {device!r}') from error
    if chosen.type not in ("cpu", "cuda"):
        raise ValueError(f'device must be "auto", "cpu" or "cuda", not {device!r}')
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f'device={device!r}: torch finds no GPU here; use device="auto" or "cpu"')
    return torch.empty(0, device=chosen).device  # "cuda" becomes "cuda:0"
