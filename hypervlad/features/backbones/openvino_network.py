"""A network that OpenVINO runs in torch's place, on CPUs about twice as fast."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Protocol

import torch

from hypervlad.common.wording import reason_of, warn_user

_TOLERANCE = 1e-5  # of the largest value of a map; float32 sums in another order differ by 1e-6
_MAX_CONVERTED = 8  # networks in memory, where each size of images has its own
_RECORDED_SIDE = 128  # pixels: where any size will do, a small one takes less time and memory

#: From a batch (B, C, H, W) to feature maps (B, h_l, w_l, C_l).
Run = Callable[[torch.Tensor], list[torch.Tensor]]


class Network(Protocol):
    """What is converted: a module, and its maps (B, h_l, w_l, C_l) of a batch (B, C, H, W)."""

    module: torch.nn.Module

    def own_maps(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]: ...


class OpenVINONetwork:
    """Converts a network when it is first called, and checks that maps are the same.

    ``network_for`` maps the height and width of images to the network for them. Unless one
    recording serves ``any_size``, those of the last eight sizes are kept.
    """

    def __init__(self, network_for: Callable[[int, int], Network], any_size: bool) -> None:
        self._network_for, self._any_size = network_for, any_size
        self._n_threads = 0
        self._compiled: dict[tuple[int, ...], Run | None] = {}

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

    def _converted(self, batch: torch.Tensor) -> Run | None:
        """Return a function that does in OpenVINO what torch does, or None."""
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

    def _compile(self, network: Network, batch: torch.Tensor) -> Run:
        import openvino
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of branches that depend on the size
            recorded = torch.jit.trace(_Module(network), batch[:1], check_trace=False)
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


class _Module(torch.nn.Module):
    """A network as a module, as tracing wants it.

    Weights that it did not own would be recorded as constants, which torch keeps until the end.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.module = network.module
        self._own_maps = network.own_maps

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self._own_maps(images)
