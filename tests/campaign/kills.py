"""Kills: review ends without warning at any moment.

It is first run undisturbed, which tells how long it takes. Then servers are killed at moments
spread over that time. Extraction is killed at each of its steps in ``tests/processes/extraction``.
"""

import contextlib
import http.client
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from support.review_queues import Served, write_queue

from hypervlad.apps.review import Queue
from tests.campaign.case import Case

_N_MOMENTS = 4  # of each seed
_N_ITEMS = 60  # of a queue


def cases(seed: int, folder: Path) -> Iterator[Case]:
    """Kill a review in each quarter of its run, at a random moment."""
    if sys.platform == "win32":
        return
    rng, scenario = np.random.default_rng(seed), Review(folder)
    scenario.run_whole(folder / "first")  # it starts what is started once, which takes seconds
    began = time.monotonic()
    scenario.run_whole(folder / "whole")
    seconds = time.monotonic() - began
    for number in range(_N_MOMENTS):
        moment = seconds * (number + rng.random()) / _N_MOMENTS
        name = f"a review killed after {moment:.2f} s of {seconds:.2f} s"
        yield Case(name, partial(scenario.attack, folder / str(number), moment))


class Review:
    """No label whose click was answered is lost."""

    def __init__(self, folder: Path) -> None:
        self.queue = write_queue(folder, _N_ITEMS, 0)

    def run_whole(self, place: Path) -> None:
        shutil.copytree(self.queue, place)
        assert len(self.labelled_until_killed(place, 300.0)) == _N_ITEMS

    def attack(self, place: Path, moment: float) -> None:
        shutil.copytree(self.queue, place)
        answered = self.labelled_until_killed(place, moment)
        with contextlib.closing(Queue(place)) as queue:
            kept = {each.item: each.label for each in queue.images() if each.label is not None}
        missing = [item for item, label in answered.items() if kept.get(item) != label]
        assert not missing, f"{len(missing)} of {len(answered)} answered clicks are lost"
        assert len(kept) <= len(answered) + 1, "labels that nobody gave"
        again = self.labelled_until_killed(place, 300.0)
        assert len(again) == _N_ITEMS - len(kept), "the rest cannot be labelled"
        shutil.rmtree(place)

    def labelled_until_killed(self, place: Path, seconds: float) -> dict[int, str]:
        """Serve a queue and label what it offers until the server is killed; return the labels."""
        server, answered = Served(place), {}
        killer = threading.Timer(seconds, server.running.kill)
        killer.start()
        try:
            with contextlib.suppress(OSError, http.client.HTTPException):
                found = server.post("next", client="client-1", want=1)
                while found["items"]:
                    item = found["items"][0]["id"]
                    category = found["categories"][item % 3]
                    facts: dict[str, Any] = {"client": "client-1", "click": f"click-{item:04d}"}
                    facts |= {"item": item, "category": category["id"], "want": 1}
                    found = server.post("label", **facts)
                    answered[item] = str(category["name"])
        finally:
            killer.cancel()
            server.kill()
        return answered
