"""Requests to the review server: other methods, paths, headers and bodies than the page's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from flask.testing import FlaskClient
from support.review_queues import CLASSES, entry, write_picture

from hypervlad.apps.review import Queue
from hypervlad.apps.review.database import make_queue
from hypervlad.apps.review.server import make_app
from tests.campaign.case import Case

_N_PER_SEED = 300
_PORT, _TOKEN = 8123, "token"
_ACTIONS = ("next", "label", "skip", "undo", "again", "category", "release")
_FIELDS = ("client", "click", "item", "category", "want", "name", "other")
_PATHS = (
    *("", "page.js", "page.css", "../page.js", "%2e%2e/page.js", "image/1", "whole/2"),
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
    entries = [entry(folder, i, i) for i in range(40)]
    for image in entries[:4]:  # the other files are missing
        write_picture(image.image, image.place or 0)
    make_queue(folder / "queue", CLASSES, entries, [], {"max_error": "0.05"})
    queue = Queue(folder / "queue")
    app = make_app(queue, _TOKEN, _PORT)
    app.logger.disabled = True
    client = app.test_client()
    for _ in range(_N_PER_SEED):
        request = _random_request(rng)
        name = f"{request['method']} {request['path'][:60]!a}"
        yield Case(name, partial(_send, client, queue, request))
    queue.close()


def _random_request(rng: np.random.Generator) -> dict[str, Any]:
    def one(values: Any) -> Any:
        return values[int(rng.integers(len(values)))]

    action = one(_ACTIONS)
    path = f"/{_TOKEN}/{action}" if rng.random() < 0.7 else f"/{_TOKEN}/{one(_PATHS)}"
    headers = {"Host": f"127.0.0.1:{_PORT}", "Origin": f"http://127.0.0.1:{_PORT}"}
    if rng.random() < 0.1:
        headers[one(("Host", "Origin", "Content-Length", "Range", "Sec-Fetch-Site"))] = one(
            ("", "evil.example", "null", "bytes=0-", "9" * 30, "-1", "cross-site")
        )
    own: dict[str, Any] = {"client": "client-01", "click": f"click-{rng.integers(9999):04d}"}
    own |= {"item": int(rng.integers(1, 41)), "category": int(rng.integers(1, 4)), "want": 1}
    content = {name: own.get(name, "a name") for name in _FIELDS if rng.random() < 0.8}
    if rng.random() < 0.7:
        content[one(_FIELDS)] = one(_VALUES)
    body = one(_BODIES) if rng.random() < 0.2 else json.dumps(content).encode()
    method = "POST" if rng.random() < 0.8 else one(("GET", "HEAD", "PUT", "DELETE", "OPTIONS"))
    kind = "application/json" if rng.random() < 0.9 else one(("text/plain", "", "a/b"))
    request = {"method": method, "path": path, "headers": headers}
    return request | {"data": body, "content_type": kind}


def _send(client: FlaskClient, queue: Queue, request: dict[str, Any]) -> None:
    """The server answers, never with an error of its own, and still works."""
    response = client.open(**request)
    assert response.status_code < 500, f"{response.status_code}: {response.data[:200]!r}"
    assert b"Traceback" not in response.data
    queue.images()
