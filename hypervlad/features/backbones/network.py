"""Building a network, here or in another process: its module, weights and taps."""

from __future__ import annotations

import contextlib
import difflib
import functools
import hashlib
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from numbers import Integral
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from hypervlad.common.modelfile import ModelFileError
from hypervlad.features.backbones.folding import fold_norms
from hypervlad.features.backbones.registry import (
    Backbone,
    class_tokens,
    ensure_registered,
    get_backbone,
)
from hypervlad.features.backbones.tapped_network import TappedNetwork
from hypervlad.features.backbones.weights import (
    WeightsNotFoundError,
    find_weights,
    is_name,
    load_into,
    read_state_dict,
)
from hypervlad.features.lazy_torch import seeded_torch, torch, usual_torch

_RANDOM_SEED = 0
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
    with seeded_torch(_RANDOM_SEED), device:
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


def check_tensors(
    backbone: Backbone, tensors: Mapping[str, NDArray[Any]], *, are_all: bool = True
) -> None:
    """Raise a ModelFileError unless tensors from a model file are finite and fit a backbone."""
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
        A registered backbone, or "timm/" and the name of a network of timm. Taps of the latter are
        its blocks, BLOCK.unit (channels divided by their length) and, in transformers, BLOCK.value
        and BLOCK.value.unit (values of the attention) and BLOCK.class (the class token).

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


# --- for other processes --------------------------------------------------------------------------

_last_built: dict[tuple[Any, ...], TappedNetwork] = {}
_building = threading.Lock()


@dataclass(frozen=True, eq=False)
class NetworkSource:
    """What another process needs to build the same network: its weights must have the digest."""

    backbone: Backbone
    weights: str | os.PathLike[str] | Mapping[str, np.ndarray]
    taps: tuple[str, ...]
    digest: str
    runtime: Literal["torch", "openvino"] = "torch"

    def build(self, device: torch.device) -> TappedNetwork:
        """Build the network with the weights stored here, or with those found on this machine.

        A WeightsNotFoundError or, for a model's own tensors, a ModelFileError if they do not fit.
        """
        ensure_registered(self.backbone)
        weights: Any = self.weights
        if isinstance(weights, Mapping):
            weights = {name: torch.from_numpy(array) for name, array in weights.items()}
        try:
            network = build_network(self.backbone.name, weights, self.taps, device)
        except (RuntimeError, TypeError, ValueError) as error:
            if isinstance(error, WeightsNotFoundError) and not isinstance(weights, Mapping):
                raise
            raise ModelFileError(
                f"the model does not fit the network {self.backbone.name!r} ({error}): it was "
                "written for another network of this name, or not by hypervlad"
            ) from error
        if network.digest != self.digest and isinstance(weights, Mapping):
            raise ModelFileError(
                f"the weights of {self.backbone.name!r} in the model file are not those that the "
                "model was trained with: it was not written by hypervlad"
            )
        if network.digest != self.digest:
            raise WeightsNotFoundError(
                f"the weights of {self.backbone.name!r} found here ({weights}) are "
                f"not those that the model was trained with (SHA-256 {self.digest[:12]}…, found "
                f"{network.digest[:12]}…): give the right file, weights=FILE"
            )
        return network.run_by(self.runtime)

    def built_once(self, device: torch.device) -> TappedNetwork:
        """Build the network, or return the last one built in this process if it is the same."""
        key = (self.backbone.name, self.taps, self.digest, device, self.runtime)
        with _building:  # a dask worker may have several threads
            network = _last_built.get(key)
            if network is None:
                network = self.build(device)
                _last_built.clear()
                _last_built[key] = network
        return network
