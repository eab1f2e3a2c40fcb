from .creation import NewQueue, start_queue
from .labels import Labels, export_labels
from .ranking import informativeness, rank
from .records import QueueError
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
