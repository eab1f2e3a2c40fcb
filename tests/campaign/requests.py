"""Requests to the review server: other methods, paths, headers and bodies than the page's own."""

import contextlib
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from support.review_queues import Served, write_queue

from hypervlad.apps.review import Queue
from tests.campaign.case import Case

_N_PER_SEED = 300
_ACTIONS = ("next", "label", "skip", "undo", "again", "category", "release", "labels", "correct")
_FIELDS = ("client", "click", "item", "category", "want", "name", "items", "other")
_PATHS = (
    *("", "page.js", "review.css", "../page.js", "%2e%2e/page.js", "image/1", "whole/2"),
    *("training/0", "image/-1", "image/99999999999999999999", "image/1.5", "training/%00"),
    *("%ff", "a" * 5000),
)
_VALUES: tuple[Any, ...] = (
    *(None, True, 0, 1, -1, 2**31, 2**63, 2**70, 1e308, 0.5, "", "client-1", "click-001", "a" * 64),
    *("é", "\x00", "\ud800", "=1+1", "<script>", "../../x", [], {}, [[]], {"a": {}}, "a" * 3000),
)
_BODIES = (b"", b"[" * 3000, b'{"a":' * 700, b"\xff\xfe", b"NaN", b"1e999", b'"', b"{}", b"null")


def cases(seed: int, folder: Path) -> Iterator[Case]:
    rng = np.random.default_rng(seed)
    server = Served(write_queue(folder, 40, pictures=True))
    with contextlib.closing(Queue(server.folder)) as queue:
        for item in range(5, 41):
            queue.image_of(item).unlink()
        for _ in range(_N_PER_SEED):
            path, request = _random_request(rng)
            name = f"{request['method']} {path[:60]!a}"
            yield Case(name, partial(_send, server, queue, path, request))
    server.kill()


def _random_request(rng: np.random.Generator) -> tuple[str, dict[str, Any]]:
    def one(values: Any) -> Any:
        return values[int(rng.integers(len(values)))]

    path = one(_ACTIONS if rng.random() < 0.7 else _PATHS)
    headers = {}
    if rng.random() < 0.1:
        headers[one(("Host", "Origin", "Range", "Sec-Fetch-Site"))] = one(
            ("", "evil.example", "null", "bytes=0-", "9" * 30, "-1", "cross-site")
        )
    if rng.random() < 0.1:
        headers["Content-Type"] = one(("text/plain", "", "a/b"))
    own: dict[str, Any] = {"client": "client-01", "click": f"click-{rng.integers(9999):04d}"}
    own |= {"item": int(rng.integers(1, 41)), "category": int(rng.integers(1, 4)), "want": 1}
    content = {name: own.get(name, "a name") for name in _FIELDS if rng.random() < 0.8}
    if rng.random() < 0.7:
        content[one(_FIELDS)] = one(_VALUES)
    body = one(_BODIES) if rng.random() < 0.2 else json.dumps(content).encode()
    method = "POST" if rng.random() < 0.8 else one(("GET", "HEAD", "PUT", "DELETE", "OPTIONS"))
    return path, {"method": method, "headers": headers, "body": body}


def _send(server: Served, queue: Queue, path: str, request: dict[str, Any]) -> None:
    """The server answers, never with an error of its own, and still works."""
    answer = server.send(path, **request)
    assert answer.status < 500, f"{answer.status}: {answer.body[:200]!r}"
    assert b"Traceback" not in answer.body
    queue.images()
