"""Which images a person must look at, the page where they do it, and what comes back from it.

The server alone needs Flask and waitress, which ``pip install "hypervlad[review]"`` brings.
"""

from hypervlad.review.exporting import exported
from hypervlad.review.ranking import informativeness, rank
from hypervlad.review.records import QueueError
from hypervlad.review.starting import Started, start_queue
from hypervlad.review.store import Queue

__all__ = [
    "Queue",
    "QueueError",
    "Started",
    "exported",
    "informativeness",
    "rank",
    "start_queue",
]
