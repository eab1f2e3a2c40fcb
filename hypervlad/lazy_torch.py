"""torch, imported when something of it is first used.

Its import takes seconds, and a model is loaded and described without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["torch"]

if TYPE_CHECKING:
    import torch
else:

    class _LazyTorch:
        def __getattr__(self, name: str) -> Any:
            import torch as module

            return getattr(module, name)

    torch = _LazyTorch()
