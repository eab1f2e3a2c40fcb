"""A network with taps: built, loaded with weights, and run only as deep as its last tap."""

from __future__ import annotations

import contextlib
import difflib
import functools
import hashlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence

import torch

from hypervlad.backbones.folding import Pair, folded, pairs_of
from hypervlad.backbones.registry import Backbone, get_backbone
from hypervlad.backbones.weights import find_weights, load_into, read_state_dict

_RANDOM_SEED = 0
_SEEDED = threading.Lock()  # torch's random numbers are those of the process: one network at a time
_HEAD_NAMES = ("classifier", "fc", "AuxLogits")


class _LastTapReached(Exception):  # noqa: N818 - a signal out of the forward pass, not an error
    """Nothing after the last tap needs to be computed."""


class TappedNetwork:
    """A frozen network that returns the maps of its taps.

    Parameters
    ----------
    module : torch.nn.Module
        What runs: in eval mode, on its device, weights loaded.
    taps : sequence of str
        Names of layers with 4-D output (B, C, H, W). Of a layer that the network calls more than
        once, the first call counts.
    digest : str
        SHA-256 of the weights: see :func:`weights_digest`.
    original : torch.nn.Module, optional
        With the weights as they came, if ``module`` has others that give the same maps.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        taps: Sequence[str],
        digest: str,
        original: torch.nn.Module | None = None,
    ) -> None:
        self.module = module
        self.original = module if original is None else original
        self.taps = tuple(taps)
        self.digest = digest
        self.device = next(module.parameters()).device
        self._overwritten: set[str] = set()
        self._lock = threading.Lock()  # the hooks sit on the module: one pass at a time

    def __call__(self, batch: torch.Tensor) -> list[torch.Tensor]:
        """Run the network once.

        Parameters
        ----------
        batch : Tensor of shape (B, C, H, W), float32
            Preprocessed images, on the network's device.

        Returns
        -------
        list of Tensor of shape (B, C_l, h_l, w_l)
            One map a tap, in the order of ``taps``.
        """
        # A caller's inference mode would give tensors that count no versions.
        with self._lock, torch.inference_mode(False), torch.no_grad():
            batch = batch.clone() if batch.is_inference() else batch
            maps, versions = self._forward(batch)
            # An in-place layer (ReLU, a residual sum) after a tap changes what was seen there.
            # torch's own version counters tell which taps suffer; only those are ever copied.
            changed = {tap for tap in self.taps if maps[tap]._version != versions[tap]}
            if changed:
                self._overwritten |= changed
                maps, _ = self._forward(batch)
        return [maps[tap] for tap in self.taps]

    def _forward(self, batch: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
        maps: dict[str, torch.Tensor] = {}
        versions: dict[str, int] = {}
        with self._hooks(maps, versions), contextlib.suppress(_LastTapReached):
            self.module(batch)
        missed = [tap for tap in self.taps if tap not in maps]
        if missed:
            raise ValueError(f"the network never runs its layer(s) {missed}: choose other taps")
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


@torch.inference_mode(False)
def build_network(
    name: str,
    weights: str | os.PathLike[str] | Mapping[str, torch.Tensor] = "imagenet",
    taps: Sequence[str] | None = None,
    device: str | torch.device = "cpu",
) -> TappedNetwork:
    """Build a backbone with its weights and taps, in eval mode.

    In networks of torchvision, batch normalisations are folded into the convolutions before them:
    the maps are the same but for their last digits, in less time.

    Parameters
    ----------
    name : str
        A registered backbone.
    weights : {"imagenet", "random"}, path or state dict, default="imagenet"
        "random" is seeded: always the same network.
    taps : sequence of str, optional
        Layers to tap, the backbone's own by default.
    device : str or torch.device, default="cpu"

    Raises
    ------
    ValueError
        Unknown backbone or tap (the message lists the valid ones), or unusable weights.
    """
    backbone = get_backbone(name)
    module = _module_without_weights(backbone, random=_is_random(weights))
    if not _is_random(weights):
        state, source = _state_dict(backbone, weights)
        load_into(module, state, backbone, source)
    taps = check_taps(module, backbone.taps if taps is None else taps, name)
    module = module.eval().requires_grad_(False)
    digest = weights_digest(module)
    # Channels last is the faster layout of convolutions on CPUs, and the one that VLAD wants.
    module = module.to(device).to(memory_format=torch.channels_last)
    pairs = [pair for pair in _normalised(backbone) if not set(pair.givers) & set(taps)]
    return TappedNetwork(folded(module, pairs), taps, digest, original=module)


@functools.cache
def _normalised(backbone: Backbone) -> tuple[Pair, ...]:
    """Say which normalisations can be folded: none of a network whose code is not known."""
    if backbone.torchvision_name is None:
        return ()
    module = _module_without_weights(backbone, random=False).eval()
    side = max(64, backbone.preprocessing.minimum_size)
    return pairs_of(module, torch.empty(1, 3, side, side, device="meta"))


@functools.cache
def architecture(backbone: Backbone) -> str:
    """Return what tells a network from others that could have the same weights.

    Of a network registered by a user, its layers and their settings: what only ``forward`` says is
    not seen.
    """
    if backbone.torchvision_name is not None:
        return backbone.name
    layers = repr(_module_without_weights(backbone, random=True))
    return f"{backbone.name} {hashlib.sha256(layers.encode()).hexdigest()}"


def _is_random(weights: object) -> bool:
    return isinstance(weights, str) and weights == "random"


def _module_without_weights(backbone: Backbone, random: bool) -> torch.nn.Module:
    """Build the module and drop its head; on the meta device where weights will be assigned."""
    on_meta = backbone.torchvision_name is not None and not random
    device = torch.device("meta" if on_meta else "cpu")
    with _SEEDED, torch.random.fork_rng(devices=[]), device:
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


def _state_dict(
    backbone: Backbone, weights: str | os.PathLike[str] | Mapping[str, torch.Tensor]
) -> tuple[Mapping[str, torch.Tensor], str]:
    if isinstance(weights, Mapping):
        return weights, "the weights inside the model file"
    path = find_weights(backbone.name) if weights == "imagenet" else weights
    return read_state_dict(path), str(path)


def tap_names(name: str) -> list[str]:
    """Return the layers of a backbone that can be tapped, in the order of the network.

    Parameters
    ----------
    name : str
        A registered backbone.
    """
    backbone = get_backbone(name)
    module = _module_without_weights(backbone, random=backbone.torchvision_name is None)
    return _layer_names(module)


def _layer_names(module: torch.nn.Module) -> list[str]:
    return [name for name, _ in module.named_modules() if name and name not in _HEAD_NAMES]


def check_taps(module: torch.nn.Module, taps: Sequence[str], name: str) -> tuple[str, ...]:
    """Return taps as a tuple, or say which name is wrong and which are right."""
    taps = (taps,) if isinstance(taps, str) else tuple(taps)
    if not taps or len(set(taps)) != len(taps):
        raise ValueError(f"taps must be one or more different layer names, not {taps!r}")
    valid = _layer_names(module)
    for tap in taps:
        if tap not in valid:
            close = difflib.get_close_matches(str(tap), valid, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"{name!r} has no layer {tap!r}.{hint} Its layers: {', '.join(_shallow(valid))}"
                f" (hypervlad.backbones.tap_names({name!r}) lists all {len(valid)})"
            )
    return taps


def _shallow(names: Sequence[str]) -> list[str]:
    """Keep the names of two parts at most: a resnet152 has 450 of more."""
    return [name for name in names if name.count(".") <= 1]


def weights_digest(module: torch.nn.Module) -> str:
    """Return the SHA-256 of a module's tensors, by name: the same for any file they came in."""
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        if not key.endswith("num_batches_tracked"):
            digest.update(f"{key}:{tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
