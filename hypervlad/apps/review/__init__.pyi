from hypervlad.app.creation import NewQueue, informativeness, rank, start_queue
from hypervlad.app.database import QueueError
from hypervlad.app.labels import Labels, export_labels
from hypervlad.app.store import Queue

__all__ = [
    "Labels",
    "NewQueue",
    "Queue",
    "QueueError",
    "export_labels",
    "informativeness",
    "rank",
    "start_queue",
]
