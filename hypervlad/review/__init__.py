"""Which images a person must look at, the page where they do it, and what comes back from it.

The page alone needs Flask and waitress, which ``pip install "hypervlad[review]"`` brings; it needs
no model, so that PyTorch is imported only where images are judged.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hypervlad.review.records import QueueError
from hypervlad.review.store import Queue

if TYPE_CHECKING:
    from hypervlad.review.exporting import exported
    from hypervlad.review.ranking import informativeness, rank
    from hypervlad.review.starting import Started, start_queue

__all__ = [
    "Queue",
    "QueueError",
    "Started",
    "exported",
    "informativeness",
    "rank",
    "start_queue",
]

_FILE_OF = {
    "Started": "starting",
    "exported": "exporting",
    "informativeness": "ranking",
    "rank": "ranking",
    "start_queue": "starting",
}


def __getattr__(name: str) -> Any:
    if name in _FILE_OF:
        return getattr(importlib.import_module(f"hypervlad.review.{_FILE_OF[name]}"), name)
    raise AttributeError(f"module 'hypervlad.review' has no attribute {name!r}")
