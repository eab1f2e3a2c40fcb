from hypervlad.app.creation import NewQueue as NewQueue
from hypervlad.app.creation import informativeness as informativeness
from hypervlad.app.creation import rank as rank
from hypervlad.app.creation import start_queue as start_queue
from hypervlad.app.database import QueueError as QueueError
from hypervlad.app.labels import Labels as Labels
from hypervlad.app.labels import export_labels as export_labels
from hypervlad.app.store import Queue as Queue
