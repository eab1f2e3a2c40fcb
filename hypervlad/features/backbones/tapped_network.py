"""A network that returns the maps of its taps, run by torch or OpenVINO, and how far they see."""

from __future__ import annotations

import contextlib
import copy
import functools
import math
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from hypervlad.common.wording import reason_of, warn_user
from hypervlad.features.lazy_torch import torch, usual_torch

_TOLERANCE = 1e-5  # of the largest value of a map; float32 sums in another order differ by 1e-6
_MAX_CONVERTED = 8  # networks in memory, where each size of images has its own
_RECORDED_SIDE = 128  # pixels: where any size will do, a small one takes less time and memory
_ROUNDING = 1e-3  # of the largest value of a map
_REACH_SIDES = (448, 896, 1344)  # pixels, tried in this order; multiples of 14, 16, 32 and 64
_SEED = 0

#: From a batch (B, C, H, W) to feature maps (B, h_l, w_l, C_l).
_Run: TypeAlias = "Callable[[torch.Tensor], list[torch.Tensor]]"


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
        self._in_openvino: TappedNetwork | None = None
        self._converted: OpenVINONetwork | None = None

    def run_by(self, runtime: Literal["torch", "openvino"]) -> TappedNetwork:
        """Return the same network as a runtime runs it; on a GPU that is torch."""
        if runtime == "torch" or self.device.type != "cpu":
            return self
        if self._in_openvino is None:
            own = copy.copy(self)  # with the same module, and the same lock
            own._converted = OpenVINONetwork(self.module, self.taps, self.any_size)
            self._in_openvino = own
        return self._in_openvino

    @property
    def runtime(self) -> Literal["torch", "openvino"]:
        return "torch" if self._converted is None else "openvino"

    @usual_torch()
    def __call__(self, batch: torch.Tensor) -> list[torch.Tensor]:
        """Run the network on prepared images (B, C, H, W), from any device.

        Returns a map (B, C_l, h, w) per tap, on the device of the network.
        """
        if self._converted is not None:
            with self._lock, torch.inference_mode(False), torch.no_grad():
                found = self._converted(batch)
            if found is not None:
                return [layer.permute(0, 3, 1, 2) for layer in found]
        return self.in_torch(batch)

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
        handles = [
            layers[tap].register_forward_hook(lambda _m, _i, output, tap=tap: keep(tap, output))
            for tap in self.taps
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


class OpenVINONetwork:
    """A network that OpenVINO runs in torch's place, on CPUs about twice as fast.

    It is converted when it is first called, and its maps are compared with torch's. Unless one
    recording serves images of ``any_size``, those of the last eight sizes are kept.
    """

    def __init__(self, module: torch.nn.Module, taps: Sequence[str], any_size: bool) -> None:
        self._module, self._taps, self._any_size = module, taps, any_size
        self._n_threads = 0
        self._compiled: dict[tuple[int, ...], _Run | None] = {}

    def __call__(self, batch: torch.Tensor) -> list[torch.Tensor] | None:
        """Return maps (B, h_l, w_l, C_l) of a batch (B, C, H, W), or None if torch should run."""
        if not len(batch):
            return None
        if self._n_threads != torch.get_num_threads():
            self._n_threads = torch.get_num_threads()
            self._compiled.clear()
        size = () if self._any_size else tuple(batch.shape[1:])
        run = self._compiled.pop(size) if size in self._compiled else self._converted(batch)
        self._compiled[size] = run  # the last one used comes last
        if len(self._compiled) > _MAX_CONVERTED:
            del self._compiled[next(iter(self._compiled))]
        return None if run is None else run(batch)

    def _converted(self, batch: torch.Tensor) -> _Run | None:
        if self._any_size:
            batch = batch[:, :, :_RECORDED_SIDE, :_RECORDED_SIDE]
        try:
            network = self._network_for(batch.shape[2], batch.shape[3])
            network.own_maps(batch[:1])  # networks of timm find out what suits this size
            run = self._compile(network, batch)
        except Exception as error:  # whatever a library does not know about a network
            warn_user(f"OpenVINO cannot convert the network, so torch runs it ({reason_of(error)})")
            return None
        generator = torch.Generator().manual_seed(0)
        n, n_channels, height, width = batch.shape
        n = min(n, self._n_threads)  # enough for the streams of such batches
        for more in (0, 32) if self._any_size else (0,):
            images = torch.randn(n, n_channels, height + more, width, generator=generator)
            for found, expected in zip(run(images), network.own_maps(images), strict=True):
                difference, largest = (found - expected).abs().max(), expected.abs().max()
                if not difference <= _TOLERANCE * largest:
                    warn_user(
                        "OpenVINO's maps differ from torch's by "
                        f"{difference / largest:.0e} of their largest value, so torch runs the "
                        "network"
                    )
                    return None
        return run

    def _network_for(self, height: int, width: int) -> TappedNetwork:
        resampled_for = getattr(self._module, "resampled_for", None)
        module = self._module if resampled_for is None else resampled_for(height, width)
        return TappedNetwork(module, self._taps, digest="")

    def _compile(self, network: TappedNetwork, batch: torch.Tensor) -> _Run:
        import openvino
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

        class Recorded(torch.nn.Module):
            # Weights that it did not own would be recorded as constants, which torch keeps.
            def __init__(self) -> None:
                super().__init__()
                self.module = network.module

            def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
                return network.own_maps(images)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of branches that depend on the size
            recorded = torch.jit.trace(Recorded(), batch[:1], check_trace=False)
        decoder = TorchScriptPythonDecoder(recorded)
        frontend = FrontEndManager().load_by_framework("pytorch")
        model = frontend.convert(frontend.load(decoder))
        sides = [-1, -1] if self._any_size else list(batch.shape[2:])
        model.reshape({model.input(0): [1, batch.shape[1], *sides]})
        n_threads = self._n_threads

        @functools.cache
        def requests_of(n_streams: int) -> list[openvino.InferRequest]:
            settings = {
                "INFERENCE_NUM_THREADS": n_threads,
                "INFERENCE_PRECISION_HINT": "f32",
                "NUM_STREAMS": n_streams,
                # Pinned, the threads of two processes would all stay on the first cores.
                "ENABLE_CPU_PINNING": False,
            }
            compiled = openvino.Core().compile_model(model, "CPU", settings)
            return [compiled.create_infer_request() for _ in range(n_streams)]

        def run(images: torch.Tensor) -> list[torch.Tensor]:
            inputs = images.contiguous().numpy()
            # One thread for an image; of few images, all for one. No queue with callbacks: OpenVINO
            # waits for ever if it is deleted while a callback ends.
            requests = requests_of(n_threads if len(inputs) >= n_threads else 1)
            found = []
            for i in range(len(inputs) + len(requests)):
                request = requests[i % len(requests)]
                if len(requests) <= i:
                    request.wait()
                    found.append(
                        [torch.tensor(output.data[0]) for output in request.output_tensors]
                    )
                if i < len(inputs):
                    request.start_async([inputs[i : i + 1]], share_inputs=True)
            return [torch.stack(layer) for layer in zip(*found, strict=True)]

        return run


@dataclass(frozen=True)
class Reach:
    """The receptive field of a network.

    Attributes
    ----------
    stride : int
        Pixels from one cell of the coarsest tap to the next.
    margin : int or None
        Pixels around a cell that it may depend on: a multiple of the stride. None if cells depend
        on the whole image (attention, squeeze-and-excitation), on more than 1,344 pixels, or on
        where they are (windowed attention).
    """

    stride: int
    margin: int | None


def reach_of(network: TappedNetwork, n_channels: int = 3) -> Reach | None:
    """Measure the receptive field of a network; None if its cells do not form a regular grid.

    One pixel of an empty image is set to NaN, which spreads to exactly the cells that depend on it.

    >>> from hypervlad.features.backbones.network import build_network
    >>> from hypervlad.features.backbones.tapped_network import reach_of
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
