"""Queues of images that need not exist, judged by no network, and servers of them."""

import http.client
import io
import json
import multiprocessing
import runpy
import sqlite3
import sys
from functools import partial
from multiprocessing import forkserver
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from support.paths import ROOT
from support.waiting import PATIENCE

from hypervlad.apps.review import Queue, start_queue
from hypervlad.images import ReadOptions
from hypervlad.models import Judgement
from hypervlad.particles import find_in_images, find_particles

CLASSES = ["fibre", "matrix", "particle"]


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Judging:
    """In place of a classifier: it is sure of all but the first `n_doubtful` images.

    Doubtful ones are 60 % of one class and 30 % of the next, all as informative, so they are queued
    in their order. Sure ones follow each other from 90 % upwards.
    """

    def __init__(self, n_doubtful, names=()):
        self.n_doubtful, self.classes_ = n_doubtful, np.array(CLASSES)
        self.training_ = SimpleNamespace(names=list(names), labels=CLASSES[: len(names)])
        params = SimpleNamespace(read_options=ReadOptions())
        self.encoder_ = SimpleNamespace(fitted_params_=params)

    def check_calibrated(self, **_):
        """No answer of this model needs images that were held out."""

    def classify(self, images, **_):
        n = len(images)
        is_sure = np.arange(n) >= self.n_doubtful
        rest = 0.1 / np.maximum(np.arange(n) - self.n_doubtful + 1, 1)  # the later, the surer
        shares = [
            np.roll([1 - rest[i], rest[i], 0] if is_sure[i] else [0.6, 0.3, 0.1], i)
            for i in range(n)
        ]
        proba = np.array(shares).reshape(n, 3)
        best = [[CLASSES[k] for k in np.argsort(-row)] for row in proba]
        doubtful = np.where(np.arange(n) % 4 == 3, "out_of_distribution", "ambiguous")
        judged = Judgement(
            classes=self.classes_,
            proba=proba,
            kind=np.where(is_sure, "sure", doubtful),
            reasons=[f"between {first} (60 %) and {second} (30 %)" for first, second, _ in best],
            novelty=np.ones(n),
            nearest=np.array([[i % 3, (i + 1) % 3] for i in range(n)]),
            projected=np.eye(n, dtype=np.float32),
            confidence=proba.max(axis=1),
            threshold=0.9,
        )
        read, known = SimpleNamespace(positions=np.arange(n), skipped=()), np.zeros(n, bool)
        return SimpleNamespace(
            judgement=judged, proba=proba, images=read, in_training=known, warn=lambda: None
        )


def write_picture(path, seed, size=(300, 400)):
    """Write an image of stripes for each seed, each in its own direction."""
    path.parent.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[: size[0], : size[1]]
    wave = np.sin((x * np.cos(seed) + y * np.sin(seed)) / 8)
    noise = np.random.default_rng(seed).normal(0, 12, size)
    Image.fromarray(np.clip(128 + 70 * wave + noise, 0, 255).astype(np.uint8)).save(path)


def write_queue(folder, n=6, sure=2, *, pictures=False):
    """Write a queue of n doubtful and some sure images, with or without the files of images."""
    images = [folder / "new" / f"{i:03d}.png" for i in range(n + sure)]
    names = [f"{label}/{i}.png" for i, label in enumerate(CLASSES)]
    training = [folder / "training" / name for name in names]
    for path in training:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    if pictures:
        for i, path in enumerate([*images, *training]):
            write_picture(path, i)
    model: Any = Judging(n, names)
    start_queue(model, images, folder / "queue", root=folder, training=folder / "training")
    return folder / "queue"


def write_particle_queue(folder):
    """Write a queue of the particles of two fields: a small square, a large one, one at an edge."""
    for name in ("a.png", "b.png"):
        pixels = np.random.default_rng(0).integers(40, 60, (200, 240)).astype(np.uint8)
        for top, left, side in ((20, 30, 12), (70, 100, 70), (0, 60, 16)):
            pixels[top : top + side, left : left + side] += 120
        (folder / "fields").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / "fields" / name)
    fields = sorted((folder / "fields").iterdir())
    found, _ = find_in_images(folder / "found", fields, find_particles, root=folder / "fields")
    rows = [f"a.png,{number},{label}" for number, label in enumerate(CLASSES, 1)]
    table = folder / "found" / "labels.csv"
    table.write_text("\n".join(["micrograph,particle,class", *rows]), encoding="utf-8")
    model: Any = Judging(6, [f"a.png, particle {number}" for number in (1, 2, 3)])
    start_queue(model, found, folder / "queue", training=table)
    return folder / "queue"


def change(folder, statement, *values):
    """Change the database of a queue, as no command does."""
    connection = sqlite3.connect(folder / "queue.sqlite")
    with connection:
        connection.execute(statement, values)
    connection.close()


# A process that has imported what a server needs, which takes seconds, and is forked for each.
_FORKING = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
_OTHERS = "flask", "jinja2", "waitress", "tifffile", "typer._adapters"
_FORKING.set_forkserver_preload([__name__, "support.commands", *_OTHERS])


def _start_forking():
    """Start that process with the path of the tests, which it does not take over by itself."""
    if sys.platform != "win32":
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", str(ROOT / "tests"))
            forkserver.ensure_running()


class _Printed(io.StringIO):
    """A stream that sends what is printed to another process."""

    def __init__(self, sending):
        super().__init__()
        self.sending = sending

    def flush(self):
        self.sending.send(self.getvalue())


def _serve(folder, lease, sending, before):
    if before is not None:
        before()
    Queue.lease = lease
    sys.stdout = _Printed(sending)
    sys.argv[1:] = ["app", str(folder), "--no-open", "--quiet"]
    runpy.run_module("hypervlad", run_name="__main__")


class Served:
    """``hypervlad app`` of a folder, until it is stopped; `before` runs first in its process."""

    def __init__(self, folder, lease=Queue.lease, before=None):
        self.folder, self.lease, self.before = folder, lease, before
        self.start()

    def start(self):
        _start_forking()
        self.printed, sending = _FORKING.Pipe(duplex=False)
        arguments = self.folder, self.lease, sending, self.before
        self.running = _FORKING.Process(target=_serve, args=arguments, daemon=True)
        self.running.start()
        sending.close()
        line = self.printed.recv()
        assert line.startswith("open http://127.0.0.1:"), line
        self.link = line.split()[1]

    def stop(self):
        self.running.terminate()
        self.running.join(PATIENCE)
        self.running.kill()

    def kill(self):
        self.running.kill()
        self.running.join()

    def send(self, path, body=None, *, method="", headers=None):
        """Send what the page sends, with changes: a header of None is left out.

        `path` is below the link, or begins with a slash. A body is sent by POST, as JSON unless it
        is bytes.
        """
        parts = urlsplit(self.link)
        sent: dict[str, str | None] = {"Host": parts.netloc}
        if body is not None:
            sent |= {"Origin": f"http://{parts.netloc}", "Sec-Fetch-Site": "same-origin"}
            sent |= {"Content-Type": "application/json"}
        sent |= headers or {}
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=PATIENCE)
        address = path if path.startswith("/") else parts.path + path
        connection.putrequest(
            method or ("GET" if body is None else "POST"),
            address,
            skip_host=True,
            skip_accept_encoding=True,
        )
        for name, value in sent.items():
            if value is not None:
                connection.putheader(name, value)
        if data is not None and "Content-Length" not in sent:
            connection.putheader("Content-Length", str(len(data)))
        connection.endheaders(data)
        with connection.getresponse() as answer:
            content = answer.read()
        connection.close()
        return SimpleNamespace(status=answer.status, headers=answer.headers, body=content)

    def post(self, action, /, **fields):
        """Send what a click sends; return the answer, which must be no error."""
        answer = self.send(action, fields)
        assert answer.status == 200, answer.body
        found: dict[str, Any] = json.loads(answer.body)
        return found


# --- fixtures, which a conftest.py imports ------------------------------------------------------


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def make(tmp_path):
    """Make a queue in a new folder; see `write_queue`."""
    return partial(write_queue, tmp_path)


@pytest.fixture
def queue(make, clock):
    opened = Queue(make())
    opened.now = clock
    yield opened
    opened.close()


@pytest.fixture
def served():
    running = []

    def start(folder, **options):
        running.append(Served(folder, **options))
        return running[-1]

    yield start
    for server in running:
        server.stop()
