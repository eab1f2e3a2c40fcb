"""torch, imported when something of it is first used, and its settings while the package computes.

Its import takes seconds, and a model is loaded and described without it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

__all__ = ["torch", "usual_torch"]

if TYPE_CHECKING:
    import torch
else:

    class _LazyTorch:
        def __getattr__(self, name: str) -> Any:
            import torch as module

            return getattr(module, name)

    torch = _LazyTorch()

_lock = threading.Lock()  # the default type of numbers belongs to the process
_n_running = 0
_dtype_outside: Any = None


@contextlib.contextmanager
def usual_torch() -> Iterator[None]:
    """Compute with torch's usual settings, whatever others have set in this process.

    These are new tensors of type float32 on the CPU, no mixed precision, and no inference mode, in
    which nothing can be trained. Can decorate a function. Afterwards, the settings are as before.
    """
    global _n_running, _dtype_outside
    with _lock:
        if not _n_running:
            _dtype_outside = torch.get_default_dtype()
            _set_dtype(torch.float32)
        _n_running += 1
    try:
        with contextlib.ExitStack() as stack:
            if torch.get_default_device().type != "cpu":
                stack.enter_context(torch.device("cpu"))
            if torch.is_inference_mode_enabled():
                stack.enter_context(torch.inference_mode(False))
            for kind in ("cpu", "cuda"):
                if torch.is_autocast_enabled(kind):
                    stack.enter_context(torch.autocast(kind, enabled=False))
            yield
    finally:
        with _lock:
            _n_running -= 1
            if not _n_running:
                _set_dtype(_dtype_outside)


def _set_dtype(dtype: torch.dtype) -> None:
    if torch.get_default_dtype() != dtype:
        torch.set_default_dtype(dtype)
