"""What runs a network fastest on a CPU? torch in several forms, ONNX Runtime and OpenVINO.

The maps of a network's default taps for a batch of images, on a quiet machine, and beside another
process that keeps one core busy. The methods take turns. Besides the times: how far the maps are
from those of torch, relative to the largest value of a map, and how long the first call takes,
which converts or compiles the network.

    pip install onnx onnxruntime  # not part of any extra; without them a method is left out
    python -m benchmarks.speed.runtimes
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import hypervlad  # noqa: F401 - before torch: its threads then sleep while they wait

# isort: split
import torch

from benchmarks.common.results import RESULTS, save_result
from benchmarks.common.sources import machine, versions
from benchmarks.speed.encoding import unfolded
from benchmarks.speed.tables import runtimes_table
from hypervlad.backbones import TappedNetwork, build_network

NETWORKS = ("mobilenet_v2", "resnet50", "vgg16")
EAGER = "torch, as torchvision builds it"
BUSY = "while True: pass"

Maps = Sequence[torch.Tensor | np.ndarray]
Run = Callable[[torch.Tensor], Maps]


class Taps(torch.nn.Module):
    """The maps of a network as a module's outputs, as tracers and compilers want it."""

    def __init__(self, network: TappedNetwork) -> None:
        super().__init__()
        self.module, self.taps = network.module, network.taps

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the maps (B, C_l, h_l, w_l)."""
        maps: list[torch.Tensor] = []
        layers = dict(self.module.named_modules())
        handles = [
            layers[tap].register_forward_hook(lambda _m, _i, output: maps.append(output.clone()))
            for tap in self.taps
        ]
        try:
            self.module(images)
        finally:
            for handle in handles:
                handle.remove()
        return tuple(maps)


def methods(network: TappedNetwork, batch: torch.Tensor, folder: Path) -> dict[str, Run]:
    """Return functions from images (B, C, H, W) to maps, by name."""
    plain = unfolded(network)
    network = network.run_by("openvino")  # when it is called; `in_torch` stays in torch

    def in_bfloat16(images: torch.Tensor) -> Maps:
        with torch.autocast("cpu", torch.bfloat16):
            return network.in_torch(images)

    found: dict[str, Run] = {
        EAGER: plain.in_torch,
        "torch, folded, channels last": network.in_torch,
        "the same, bfloat16": in_bfloat16,
        "torch.jit.optimize_for_inference": optimized(network, batch),
        "torch.compile": torch.compile(Taps(network)),
        "OpenVINO, an image per thread": network,  # as in this package
        "OpenVINO, all threads for the batch": openvino_batch(network, batch, "f32"),
        "the same, in bfloat16": openvino_batch(network, batch, "bf16"),
    }
    if find_spec("onnxruntime") is not None and find_spec("onnx") is not None:
        found["ONNX Runtime"] = onnx_runtime(network, batch, folder)
    return found


def traced(network: TappedNetwork, batch: torch.Tensor) -> Any:
    """Return a recording of the network."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(Taps(network).eval(), batch[:1], check_trace=False)


def optimized(network: TappedNetwork, batch: torch.Tensor) -> Run:
    """Return torch's own fusion of operations for oneDNN."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated
        run: Run = torch.jit.optimize_for_inference(torch.jit.freeze(traced(network, batch)))
    return run


def openvino_batch(network: TappedNetwork, batch: torch.Tensor, precision: str) -> Run:
    """Return OpenVINO with all threads for the batch, instead of one thread for an image."""
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,
    }
    model = openvino.convert_model(traced(network, batch), example_input=batch[:1])
    compiled = openvino.Core().compile_model(model, "CPU", settings)

    def run(images: torch.Tensor) -> Maps:
        outputs = compiled([images.contiguous().numpy()])
        return [outputs[i] for i in range(len(compiled.outputs))]

    return run


def onnx_runtime(network: TappedNetwork, batch: torch.Tensor, folder: Path) -> Run:
    """Return ONNX Runtime on as many threads as torch has."""
    import onnxruntime

    path = folder / "network.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            traced(network, batch),
            (batch[:1],),
            path,
            dynamo=False,
            input_names=["images"],
            dynamic_axes={"images": {0: "n"}},
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images.contiguous().numpy()})


def difference(found: Maps, expected: Maps) -> float:
    """Return the largest difference of two lists of maps, relative to a map's largest value."""
    pairs = (
        (torch.as_tensor(a).float(), torch.as_tensor(b))
        for a, b in zip(found, expected, strict=True)
    )
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


def measure(name: str, size: int, n_rounds: int, n_busy: int) -> dict[str, Any]:
    """Return a row: a network's times by method in both states, differences and first calls."""
    network = build_network(name, "random" if name != "mobilenet_v2" else "pretrained")
    batch = torch.randn(8, 3, size, size, generator=torch.Generator().manual_seed(0))
    row: dict[str, Any] = {"network": name, "size": size, "first": {}, "difference": {}}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        runs = methods(network, batch, Path(folder))
        expected = [layer.clone() for layer in runs[EAGER](batch)]
        for method, run in list(runs.items()):
            started = time.perf_counter()
            try:
                maps = run(batch)
                seconds = time.perf_counter() - started
                row["difference"][method] = difference(maps, expected)
            except Exception as error:  # or maps without values, of a type that processors lack
                print(f"{name}: {method} fails: {str(error).splitlines()[0]}", flush=True)
                del runs[method]
                continue
            row["first"][method] = seconds
        for state, n in (("quiet", 0), ("busy", n_busy)):
            row[state] = {method: [] for method in runs}
            with ExitStack() as stack:
                for _ in range(n):
                    other = stack.enter_context(subprocess.Popen([sys.executable, "-c", BUSY]))
                    stack.callback(other.kill)
                for turn in range(n_rounds + 1):
                    for method, run in runs.items():
                        started = time.perf_counter()
                        run(batch)
                        if turn:  # the first round warms up
                            ms = 1e3 * (time.perf_counter() - started) / len(batch)
                            row[state][method].append(ms)
    return row


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS, metavar="NAME")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--busy", type=int, default=1, help="processes that keep a core busy")
    parser.add_argument("--out", type=Path, default=RESULTS / "speed" / "runtimes.json")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    rows = [
        measure(name, arguments.size, arguments.rounds, arguments.busy)
        for name in arguments.networks
    ]
    facts = {"rows": rows, "busy": arguments.busy, "versions": versions()}
    facts["machine"] = machine(os.cpu_count() or 1)
    save_result(arguments.out, facts)
    print(runtimes_table(facts))


if __name__ == "__main__":
    main()
