from .creation import NewQueue, informativeness, rank, start_queue
from .database import QueueError
from .labels import Labels, export_labels
from .store import Queue

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
