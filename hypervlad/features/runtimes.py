"""Networks made faster on CPUs: without batch normalisations, and run by OpenVINO."""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import itertools
import math
import os
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, TypeAlias, cast

from hypervlad.common.wording import reason_of, warn_user
from hypervlad.features.lazy_torch import torch

_TOLERANCE = 1e-4  # of the largest value of a map; float32 sums in another order differ by 2e-5
_MAX_CONVERTED = 8  # networks in memory, where each size of images has its own
_MAX_KEPT = 8  # networks on the disk, in this folder below torch's
_KEPT = "hypervlad-openvino"
_RECORDED_SIDE = 96  # pixels: where any size will do, a small one takes less time and memory

#: From a batch (B, C, H, W) to feature maps (B, h_l, w_l, C_l).
_Run: TypeAlias = "Callable[[torch.Tensor], list[torch.Tensor]]"


def fold_norms(
    module: torch.nn.Module, image: torch.Tensor, taps: Collection[str] = ()
) -> torch.nn.Module:
    """Return a network with folded batch normalisations, which shares all other tensors.

    They are found in a pass of the image. Convolutions whose output is that of a tap stay as they
    are; networks that use an output elsewhere must not be folded.
    """
    found = _conv_norm_pairs(module, image)
    pairs = [(conv, norm) for conv, norm, names in found if not names & set(taps)]
    if not pairs:
        return module
    tensors = itertools.chain(module.parameters(), module.buffers())
    folded = copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})
    for conv, norm in pairs:
        first, second = (cast(Any, folded.get_submodule(name)) for name in (conv, norm))
        fused = torch.nn.utils.fusion.fuse_conv_bn_eval(first, second)
        _replace(folded, conv, fused.requires_grad_(False))
        _replace(folded, norm, torch.nn.Identity())
    return folded


def _conv_norm_pairs(
    module: torch.nn.Module, image: torch.Tensor
) -> Iterator[tuple[str, str, set[str]]]:
    """Yield each convolution, the normalisation of its output, and the layers that return it."""
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

    with contextlib.ExitStack() as hooks:
        for name, layer in layers.items():
            hook = layer.register_forward_hook(lambda m, x, y, name=name: record(name, m, x, y))
            hooks.enter_context(hook)
        module(image)
    for norm, (conv, tensor) in found.items():
        names = {name for name, _ in outputs[tensor]}
        # A block that contains the convolution has its output; another layer may change it.
        if calls[conv] == calls[norm] == 1 and all(f"{conv}.".startswith(f"{n}.") for n in names):
            yield conv, norm, names


def _replace(module: torch.nn.Module, name: str, layer: torch.nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(module.get_submodule(parent), own, layer)


class OpenVINONetwork:
    """A network that OpenVINO runs in torch's place, on CPUs about twice as fast.

    It is converted when it is first called, and its maps are compared with torch's. Unless one
    recording serves images of ``any_size``, those of the last eight sizes stay in memory; it is a
    tenth faster where images have the `usual` size. With a ``key``, which stands for all that maps
    depend on, it is kept for other processes, in the folder of torch's downloads.
    """

    def __init__(
        self,
        network_for: Callable[[int, int], Any],
        any_size: bool,
        usual: tuple[int, int] | None,
        key: str,
    ) -> None:
        self._network_for, self._any_size, self._key = network_for, any_size, key
        self._usual = usual
        self._n_threads = 0
        self._compiled: dict[tuple[int, ...], _Run | None] = {}
        self._models: dict[tuple[int, ...], list[Any]] = {}  # of the same sizes

    def __call__(self, batch: torch.Tensor) -> list[torch.Tensor] | None:
        """Return maps (B, h_l, w_l, C_l) of a batch (B, C, H, W), or None if torch should run."""
        if not len(batch):
            return None
        if self._n_threads != torch.get_num_threads():
            self._n_threads = torch.get_num_threads()
            self._compiled.clear()
            self._models.clear()
        is_own_size = not self._any_size or batch.shape[2:] == self._usual
        size = tuple(batch.shape[1:]) if is_own_size else ()
        run = self._compiled.pop(size) if size in self._compiled else self._prepared(batch, size)
        self._compiled[size] = run  # the last one used comes last
        if len(self._compiled) > _MAX_CONVERTED:
            oldest = next(iter(self._compiled))
            del self._compiled[oldest]
            self._models.pop(oldest, None)
        return None if run is None else run(batch)

    def release_memory(self) -> None:
        """Give back the memory of the last images, which is that of the largest."""
        for model in itertools.chain(*self._models.values()):
            model.release_memory()

    def _prepared(self, batch: torch.Tensor, size: tuple[int, ...]) -> _Run | None:
        part = batch[:, :, :_RECORDED_SIDE, :_RECORDED_SIDE] if self._any_size else batch
        batch = batch if size else part
        network = self._network_for(part.shape[2], part.shape[3])
        network.own_maps(part[:1])  # networks of timm find out what suits this size
        try:
            path = self._path(batch) if self._key else None
            if path is not None and path.exists():
                with contextlib.suppress(Exception):  # it is damaged, or deleted just now
                    run = self._compile(_kept(path), size, path.parent)
                    if self._difference(run, network, batch, size) <= _TOLERANCE:
                        return run
                shutil.rmtree(path.parent, ignore_errors=True)
            model = self._converted(network, part)
            if path is not None:
                _keep(model, path)
            run = self._compile(model, size)
            difference = self._difference(run, network, batch, size)
        except Exception as error:  # whatever a library does not know about a network
            warn_user(f"OpenVINO cannot convert the network, so torch runs it ({reason_of(error)})")
            return None
        if difference <= _TOLERANCE:
            return run
        warn_user(
            f"OpenVINO's maps differ from torch's by {difference:.0e} of their largest value, so "
            "torch runs the network"
        )
        return None

    def _difference(
        self, run: _Run, network: Any, batch: torch.Tensor, size: tuple[int, ...]
    ) -> float:
        """Return how far OpenVINO's maps are from torch's, relative to their largest values."""
        generator = torch.Generator().manual_seed(0)
        n, n_channels, height, width = batch.shape
        n = min(n, self._n_threads)  # enough for the streams of such batches
        largest = 0.0
        for more in (0,) if size else (0, 32):
            images = torch.randn(n, n_channels, height + more, width, generator=generator)
            for found, expected in zip(run(images), network.own_maps(images), strict=True):
                own = (found - expected).abs().max() / expected.abs().max().clamp_min(1e-30)
                largest = max(largest, float(own.nan_to_num(math.inf)))
        return largest

    def _path(self, batch: torch.Tensor) -> Path:
        """Return where a network for such images is kept."""
        import openvino

        facts = (self._key, batch.shape[1], openvino.__version__, torch.__version__)
        name = hashlib.sha256(repr(facts).encode()).hexdigest()[:32]
        return Path(torch.hub.get_dir()) / _KEPT / name / "network.xml"

    def _converted(self, network: Any, batch: torch.Tensor) -> Any:
        """Convert a network for such images."""
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

        class Recorded(torch.nn.Module):
            # Weights that it did not own would be recorded as constants, which torch keeps.
            def __init__(self) -> None:
                super().__init__()
                self.module = network.module

            def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
                maps: tuple[torch.Tensor, ...] = network.own_maps(images)
                return maps

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of branches that depend on the size
            recorded = torch.jit.trace(Recorded(), batch[:1], check_trace=False)
        decoder = TorchScriptPythonDecoder(recorded)
        frontend = FrontEndManager().load_by_framework("pytorch")
        model = frontend.convert(frontend.load(decoder))
        sides = [-1, -1] if self._any_size else list(batch.shape[2:])
        model.reshape({model.input(0): [1, batch.shape[1], *sides]})
        return model

    def _compile(self, model: Any, size: tuple[int, ...], folder: Path | None = None) -> _Run:
        """Return what runs a network, for images of one size or any; a folder keeps the result."""
        import openvino

        n_threads = self._n_threads
        if size:
            model.reshape({model.input(0): [1, *size]})

        @functools.cache
        def requests_of(n_streams: int) -> list[openvino.InferRequest]:
            settings = {
                "INFERENCE_NUM_THREADS": n_threads,
                "INFERENCE_PRECISION_HINT": "f32",
                "NUM_STREAMS": n_streams,
                # Pinned, the threads of two processes would all stay on the first cores.
                "ENABLE_CPU_PINNING": False,
            }
            compiled = None
            if folder is not None and folder.exists():
                with contextlib.suppress(RuntimeError):  # deleted just now, or the disk is full
                    kept = settings | {"CACHE_DIR": folder}
                    compiled = openvino.Core().compile_model(model, "CPU", kept)
            compiled = compiled or openvino.Core().compile_model(model, "CPU", settings)
            self._models.setdefault(size, []).append(compiled)
            return [compiled.create_infer_request() for _ in range(n_streams)]

        def run(images: torch.Tensor) -> list[torch.Tensor]:
            inputs = images.contiguous().numpy()
            # One thread for an image; of few images, all for one. No queue with callbacks: OpenVINO
            # waits for ever if it is deleted while a callback ends.
            requests = requests_of(n_threads if len(inputs) >= n_threads else 1)
            found: list[torch.Tensor] = []
            for i in range(len(inputs) + len(requests)):
                request = requests[i % len(requests)]
                if len(requests) <= i:
                    request.wait()
                    outputs = [torch.from_numpy(each.data) for each in request.output_tensors]
                    found = found or [o.new_empty(len(inputs), *o.shape[1:]) for o in outputs]
                    for layer, output in zip(found, outputs, strict=True):
                        layer[i - len(requests)] = output[0]
                if i < len(inputs):
                    request.start_async([inputs[i : i + 1]], share_inputs=True)
            return found

        return run


def _kept(path: Path) -> Any:
    """Read a network that is kept, which is then forgotten last."""
    import openvino

    with contextlib.suppress(OSError):
        os.utime(path.parent)
    return openvino.Core().read_model(path)


def _keep(model: Any, path: Path) -> None:
    """Keep a network, if there is room, and forget those that have not been used for longest."""
    import openvino

    folder = path.parent.parent
    with contextlib.suppress(OSError, RuntimeError):  # the latter are OpenVINO's
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix="new-") as new:
            openvino.save_model(model, Path(new) / path.name, compress_to_fp16=False)
            os.rename(new, path.parent)  # whole, or, if another process was first, not at all
        kept = sorted(folder.iterdir(), key=lambda each: each.stat().st_mtime)
        for old in kept[:-_MAX_KEPT]:
            shutil.rmtree(old, ignore_errors=True)
