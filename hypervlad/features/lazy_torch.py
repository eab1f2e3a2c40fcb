"""torch, which takes seconds to import, when it is first used, its settings and devices."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hypervlad.common.progress import shared_by_threads

__all__ = ["check_device", "seeded_torch", "torch", "usual_torch"]

if TYPE_CHECKING:
    import torch
else:

    class _LazyTorch:
        def __getattr__(self, name: str) -> Any:
            import torch as module

            return getattr(module, name)

    torch = _LazyTorch()

_seeding = threading.RLock()  # random numbers belong to the process


@contextlib.contextmanager
def usual_torch() -> Iterator[None]:
    """Compute with torch's usual settings, whatever others have set in this process.

    New tensors are float32 on the CPU, precision is whole, and there is no inference mode.
    """
    with _usual_process(), contextlib.ExitStack() as stack:
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


@shared_by_threads
@contextlib.contextmanager
def _usual_process() -> Iterator[None]:
    outside = _set_for_process(torch.float32, "highest")
    try:
        yield
    finally:
        _set_for_process(*outside)


@contextlib.contextmanager
def seeded_torch(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch's random numbers on the CPU and on a device; later, they are as they were before.

    Of the process, one thread at a time.
    """
    gpu = [device] if device is not None and device.type == "cuda" else []
    with _seeding, torch.random.fork_rng(devices=gpu):
        # Not torch.manual_seed, which seeds all GPUs.
        torch.default_generator.manual_seed(seed)
        for each in gpu:
            with torch.cuda.device(each):
                torch.cuda.manual_seed(seed)
        yield


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


def _set_for_process(dtype: torch.dtype, precision: str | None) -> tuple[torch.dtype, str | None]:
    """Set the type of new tensors and the precision of products; return those before."""
    before = torch.get_default_dtype()
    if before != dtype:
        torch.set_default_dtype(dtype)
    try:
        precision_before = torch.get_float32_matmul_precision()
        if precision not in (None, precision_before):
            torch.set_float32_matmul_precision(precision)
    except RuntimeError:  # somebody sets it by processor, which torch does not let us read here
        precision_before = None
    return before, precision_before
