"""Is a label lost when two windows label images on a server that is killed again and again?

Two clients send 50 labels per second in total to ``hypervlad review serve`` on 127.0.0.1; SIGKILL
ends it at random times, and it is started again on the same queue. A client that gets no answer
sends the same click again, as the page does. In the end the queue must hold every label that was
acknowledged, and none twice:

    python -m benchmarks.review.load --seconds 60 --json figures.json
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from benchmarks.common.results import save_result
from hypervlad.review import informativeness, rank
from hypervlad.review.database import FILE, make_queue
from hypervlad.review.records import Entry

CLASSES = ["fibre", "matrix", "particle"]
N_CLIENTS = 2
GRACE_SECONDS = 20.0  # after the end of the run; then clients give up


@dataclass
class Window:
    """A client: the labels acknowledged to it, and how long each took."""

    name: str
    acknowledged: dict[str, tuple[int, int, str]] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)
    sent_again: int = 0
    error: str = ""


class Server:
    """``review serve`` in a separate process that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.kills = folder, 0
        self.link = self.start()

    def start(self) -> str:
        command = [sys.executable, "-m", "hypervlad", "review", "serve", str(self.folder)]
        self._running = subprocess.Popen(
            [*command, "--no-open", "--quiet"], stdout=subprocess.PIPE, text=True
        )
        assert self._running.stdout is not None
        line = self._running.stdout.readline()
        if not line.startswith("open http://127.0.0.1:"):
            raise RuntimeError(f"review serve said {line!r}")
        return line.split()[1]

    def kill(self) -> None:
        """End it with SIGKILL: it cannot clean up."""
        self.stop()
        self.kills += 1

    def stop(self) -> None:
        if self._running.poll() is None:
            self._running.kill()
            self._running.communicate()


def fill(folder: Path, n_images: int) -> tuple[float, float]:
    """Make a queue of images that do not exist; return the seconds of ranking and writing."""
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(len(CLASSES)), n_images)
    points = rng.standard_normal((n_images, 256))
    started = time.perf_counter()
    places = np.argsort(rank(informativeness(shares, np.ones(n_images)), points)).tolist()
    ranked = time.perf_counter()
    entries = (
        Entry(
            name=f"new/{i:06d}.png",
            path=folder.absolute() / f"{i:06d}.png",
            place=places[i],
            kind="ambiguous",
            scores=sorted(zip(CLASSES, row.tolist(), strict=True), key=lambda s: -s[1]),
            reason="between two categories",
            novelty=1.0,
            nearest=[],
        )
        for i, row in enumerate(shares)
    )
    make_queue(folder, CLASSES, entries, [], {})
    return ranked - started, time.perf_counter() - ranked


def label(window: Window, link: str, rate: float, until: float, seed: int) -> None:
    """Label the images shown, at a steady rate, until the time is over or the queue is empty."""
    rng, connection = random.Random(seed), Connection(link)
    try:
        answer = connection.post("next", {"client": window.name, "want": 5}, until + GRACE_SECONDS)
        due = time.monotonic()
        while answer["items"] and time.monotonic() < until:
            item, category = answer["items"][0]["id"], 1 + rng.randrange(len(CLASSES))
            click = f"{window.name}-{len(window.acknowledged):06d}"
            body = {"client": window.name, "click": click, "item": item, "category": category}
            answer = connection.post("label", body | {"want": 5}, until + GRACE_SECONDS)
            window.acknowledged[click] = (item, category, answer["outcome"])
            window.latencies.append(connection.latency)
            due = max(due + 1 / rate, time.monotonic() - 1)
            time.sleep(max(0.0, due - time.monotonic()))
        window.sent_again = connection.sent_again
    except Exception as error:
        window.error = repr(error)
    finally:
        connection.close()


class Connection:
    """Send a request until there is an answer, as the page does."""

    def __init__(self, link: str) -> None:
        parts = urlsplit(link)
        self.host, self.path = parts.netloc, parts.path
        assert self.host.startswith("127.0.0.1:")
        self._open: http.client.HTTPConnection | None = None
        self.sent_again, self.latency = 0, 0.0

    def post(self, action: str, body: dict[str, object], deadline: float) -> dict[str, object]:
        """Return the answer; `latency` is the time of the successful attempt."""
        while time.monotonic() < deadline:
            started = time.monotonic()
            try:
                status, content = self._send(action, json.dumps(body))
            except (OSError, http.client.HTTPException):
                self.close()
                self.sent_again += 1
                time.sleep(0.05)
                continue
            self.latency = time.monotonic() - started
            if status == 503:
                time.sleep(0.05)
                continue
            if status != 200:
                raise RuntimeError(f"{action}: {status} {content!r}")
            return json.loads(content)
        raise TimeoutError(action)

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
        self._open = None

    def _send(self, action: str, body: str) -> tuple[int, bytes]:
        if self._open is None:
            self._open = http.client.HTTPConnection(self.host, timeout=10)
        headers = {"Content-Type": "application/json", "Origin": f"http://{self.host}"}
        self._open.request("POST", self.path + action, body, headers)
        answer = self._open.getresponse()
        return answer.status, answer.read()


def run(
    seconds: float,
    *,
    rate: float = 50.0,
    seed: int = 0,
    pause: float = 4.0,
    n_images: int = 10_000,
) -> dict[str, object]:
    """Label images, kill the server meanwhile, and count labels.

    Parameters
    ----------
    seconds : float
    rate : float
        Labels per second, of all windows.
    seed : int
    pause : float
        Maximum time between a start and the next kill.
    n_images : int
        Images in the queue.

    Returns
    -------
    dict
        The figures; ``lost``, ``twice`` and ``wrong`` must be 0.
    """
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        queue = Path(folder, "queue")
        ranked, written = fill(queue, n_images)
        server = Server(queue)
        try:
            windows = [Window(f"window-{number}") for number in range(N_CLIENTS)]
            until = time.monotonic() + seconds
            threads = [
                threading.Thread(
                    target=label, args=(w, server.link, rate / N_CLIENTS, until, seed + i)
                )
                for i, w in enumerate(windows)
            ]
            for thread in threads:
                thread.start()
            while time.monotonic() < until - 1:
                time.sleep(min(rng.uniform(0.3, pause), max(0.0, until - 1 - time.monotonic())))
                server.kill()
                link = server.start()
                if link != server.link:
                    raise RuntimeError(f"the link has changed from {server.link} to {link}")
            for thread in threads:
                thread.join(timeout=seconds + 2 * GRACE_SECONDS)
            server.kill()  # the last labels must be on the disk by now, too
        finally:
            server.stop()
        times = {"rank": round(ranked, 2), "write": round(written, 2)}
        facts = {"images": n_images, "seconds_to_start": times, "seconds": seconds}
        return facts | figures(queue / FILE, windows, server, seconds)


def figures(file: Path, windows: list[Window], server: Server, seconds: float) -> dict[str, object]:
    """Compare the acknowledged labels with the queue."""
    with contextlib.closing(sqlite3.connect(file)) as connection:
        kept = connection.execute(
            "SELECT click, item, category FROM events WHERE what = 'label' AND outcome = 'kept'"
        ).fetchall()
        clicks = {row[0]: row for row in connection.execute("SELECT click, outcome FROM events")}
        held = dict(connection.execute("SELECT id, category FROM items WHERE state = 'labelled'"))
    acknowledged = {click: fact for w in windows for click, fact in w.acknowledged.items()}
    effective = [fact for fact in acknowledged.values() if fact[2] == "kept"]
    latencies = np.array([latency for w in windows for latency in w.latencies])
    return {
        "acknowledged": len(acknowledged),
        "per_second": round(len(acknowledged) / seconds, 1),
        "late": len(acknowledged) - len(effective),
        "lost": sum(click not in clicks for click in acknowledged),
        "wrong": sum(held.get(item) != category for item, category, _ in effective),
        "twice": len(kept) - len({item for _, item, _ in kept}),
        "kills": server.kills,
        "sent_again": sum(w.sent_again for w in windows),
        "latency_ms": {
            f"{share:.0%}": round(1e3 * float(np.quantile(latencies, share)), 1)
            for share in (0.5, 0.9, 0.99, 1.0)
        },
        "errors": [w.error for w in windows if w.error],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = run(given.seconds, rate=given.rate, seed=given.seed) | {"cores": os.cpu_count()}
    print(json.dumps(found, indent=1))
    if given.json is not None:
        save_result(given.json, found)
    return int(bool(found["lost"] or found["wrong"] or found["twice"] or found["errors"]))


if __name__ == "__main__":
    sys.exit(main())
