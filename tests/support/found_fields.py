"""Two fields with squares, which the app serves to be corrected."""

import itertools
import json

import numpy as np
from PIL import Image
from support.few_crops import few_crops
from support.forked_commands import fork_commands
from support.review_queues import Served
from support.waiting import wait_until

from hypervlad.particles import find_in_images

SQUARES = ((20, 30, 30), (20, 100, 30), (90, 60, 40))  # top, left and side
SHAPE = (160, 200)


def write_found(root, *more, pixel_size=2.0):
    """Write, or with `more` resume, a folder of fields with three squares found to the pixel."""
    labels = np.zeros(SHAPE, int)
    for seed, name in enumerate(("a.png", "b.png", *more)):
        pixels = np.random.default_rng(seed).integers(40, 50, SHAPE).astype(np.uint8)
        for number, (top, left, side) in enumerate(SQUARES, 1):
            labels[top : top + side, left : left + side] = number
        pixels[labels > 0] += 150
        (root / "fields").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / "fields" / name)
    fields = sorted((root / "fields").iterdir())
    options = {"root": root / "fields", "pixel_size": pixel_size, "resume": bool(more)}
    find_in_images(root / "found", fields, lambda _: labels, **options)
    return root / "found"


def fork_with_few_crops():
    with few_crops():
        fork_commands()


class App(Served):
    """``hypervlad app`` of a folder; `version` is that of the image that was asked for last."""

    def __init__(self, folder, **options):
        self.version, self.clicks = 0, 0
        super().__init__(folder, **{"before": fork_with_few_crops} | options)

    def image(self, image=1):
        shown = self.post("outlines", image=image)
        self.version = shown["version"]
        return shown

    def ended(self, kind, **choices):
        """Start a task; return the answer to the page's first question after its end."""
        self.post(f"start/{kind}", **choices)
        states = (self.post("images") for _ in itertools.count())
        return wait_until(
            lambda: (found := next(states))["task"]["state"] != "running" and found, kind
        )

    def areas(self, image=1):
        return {each["label"]: each["area"] for each in self.image(image)["outlines"]}

    def body(self, action="delete", **changes):
        self.clicks += 1
        known = {"client": "window-1", "click": f"click-{self.clicks:04d}", "image": 1}
        known |= {"version": self.version, "action": action, "labels": [], "stroke": []}
        return known | {"reach": 3, "name": ""} | changes

    def edit(self, action, labels, stroke=(), **more):
        """Edit the outlines of an image; return what the page says."""
        flat = np.ravel(stroke).tolist()
        answer = self.post("edit", **self.body(action, labels=labels, stroke=flat, **more))
        self.version = answer["version"]
        assert answer["note"] == "", answer["note"]
        return str(answer["message"])

    def mark(self, image, is_done):
        self.image(image)
        return str(json.loads(self.undo("mark", image, is_done=is_done).body)["message"])

    def written(self):
        """Wait until all edits are in the folder's files, and return the folder."""
        wait_until(lambda: not (self.folder / ".unwritten").exists(), "the files of outlines")
        return self.folder

    def undo(self, way="undo", image=1, **more):
        body = self.body(image=image)
        own = {name: body[name] for name in ("client", "click", "image", "version")}
        answer = self.send(way, own | more)
        self.version = json.loads(answer.body).get("version", self.version)
        return answer
