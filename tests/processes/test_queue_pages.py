"""``hypervlad app`` of a queue: what it answers, and every refusal."""

import contextlib
import json
import socket
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
import waitress
from support.review_queues import Served, change, write_queue

from hypervlad.apps.review import Queue

Make = Callable[..., Path]
Serve = Callable[..., Served]
CLIENT = "window-1"
MAX_BYTES = 4096  # of the body of a request


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A queue that tests share, because none of them may change it."""
    server = Served(write_queue(tmp_path_factory.mktemp("shared"), pictures=True))
    yield server
    with contextlib.closing(Queue(server.folder)) as queue:
        assert queue.progress().labelled == 0
        assert len(queue.categories()) == 3
    server.stop()


def label(item: object = 1, category: object = 2, **changes: object) -> dict[str, object]:
    facts = {"client": CLIENT, "click": "click-0001", "item": item, "category": category, "want": 2}
    return facts | changes


def sentence(answer: SimpleNamespace) -> str:
    return str(json.loads(answer.body)["error"])


def test_files_of_the_page_have_strict_headers_and_nothing_they_forbid(shared: Served) -> None:
    scripts = "common.js", "shared.js", "page.js", "labels.js"
    for name in ("", "labels.html", *scripts, "base.css", "review.css", "icon.svg"):
        answer = shared.send(name)
        assert answer.status == 200, name
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        names = ["Referrer-Policy", "X-Content-Type-Options", "X-Frame-Options", "Cache-Control"]
        names += ["Cross-Origin-Resource-Policy", "Cross-Origin-Opener-Policy"]
        expected = "no-referrer nosniff DENY no-store same-origin same-origin"
        assert " ".join(answer.headers[each] for each in names) == expected
        assert not {"Set-Cookie", "ETag"} & set(answer.headers)
        if name in ("", "labels.html"):
            page = answer.body.decode()
            assert not any(word in page for word in ("style=", "<script>", token_of(shared)))
            assert "http" not in page.replace("http://www.w3.org", ""), "all links are relative"
    page = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    for place, status in (("document", 200), ("iframe", 403)):
        assert shared.send("", headers=page | {"Sec-Fetch-Dest": place}).status == status


def token_of(server: Served) -> str:
    return server.link.split("/")[-2]


WANTED = {"category": 0, "source": "model", "order": "least_sure", "start": 0, "n": 60}
CORRECTION = {"client": CLIENT, "click": "click-0001", "items": [[7, None]], "category": 2}


def test_an_image_that_cannot_be_shown_is_reported(make: Make, served: Serve) -> None:
    server = served(make(pictures=True))
    with contextlib.closing(Queue(server.folder)) as queue:
        missing, broken = queue.image_of(1), queue.image_of(2)
    assert server.send("image/1").status == 200, "kept, but only of this file"
    missing.unlink()
    broken.write_bytes(b"\x89PNG\r\n\x1a\n half")
    for item, path in ((1, missing), (2, broken)):
        answer = server.send(f"image/{item}")
        assert (answer.status, path.name in sentence(answer)) == (422, True)


def test_no_token_foreign_hosts_and_pages_are_refused(shared: Served) -> None:
    """Also a foreign name that resolves to 127.0.0.1 (DNS rebinding), and foreign forms (CSRF)."""
    token = token_of(shared)
    for other in ("", "wrong", token[:-1], token + "x", "%C3%BC", "%2e%2e", f"x/../{token}"):
        assert shared.send(f"/{other}/").status == shared.send(f"/{other}/image/1").status == 404
        assert shared.send(f"/{other}/label", label()).status == 404
    own = urlsplit(shared.link)
    others = ["evil.example", f"evil.example:{own.port}", "127.0.0.1", "[::1]:1"]
    for host in [*others, f"127.0.0.1:{(own.port or 0) + 1}"]:
        assert shared.send("", headers={"Host": host}).status == 403, host
        headers: dict[str, str | None] = {"Host": host, "Origin": f"http://{host}"}
        assert shared.send("label", label(), headers=headers).status == 403
    for origin in ("http://evil.example", None, "null", f"https://{own.netloc}"):
        assert shared.send("label", label(), headers={"Origin": origin}).status == 403, origin
    other = {"Origin": f"http://localhost:{own.port}"}
    assert shared.send("label", label(), headers=other).status == 403
    for site in ("cross-site", "same-site", "none-of-these"):
        answer = shared.send("label", label(), headers={"Sec-Fetch-Site": site})
        assert answer.status == 403
        assert "other pages" in sentence(answer)
    for kind in (None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert shared.send("label", label(), headers={"Content-Type": kind}).status == 415, kind


MALFORMED = (
    *(b"", b"{", b"[]", b"1", b"\xff\xfe", b"{}", b'{"client": "window-1"}'),
    *(b"[" * 3000, b'{"a":' * 700, b"\xff" * 3000, b'{"client": "' + b"\\" * 3000),
    b'{"client": "aaaaaaaaaaaa", "want": {}}',
    b'{"client": "aaaaaaaaaaaa", "want": 1e999}',
    b'{"client": "aaaaaaaaaaaa", "want": 1208925819614629174706176}',
    b'{"client": "aaaaaaaaaaaa", "want": 1, "want": 1}',
)
OF_ANOTHER_KIND = [
    *(("label", label(item=item)) for item in ("1", True, 1.0, None)),
    *(("label", label(client=client)) for client in ("x", "a b c d e f")),
    *(("label", label(click=click)) for click in ("c" * 65, 7)),
    *(("label", label(**other)) for other in ({"category": [2]}, {"want": "2"}, {"more": 1})),
    *(("correct", CORRECTION | {"items": items}) for items in ([], [7], {"7": None})),
    *(("correct", CORRECTION | {"items": [each]}) for each in ([7], [7, None, None])),
    *(("correct", CORRECTION | {"items": [each]}) for each in (["7", None], [7, True])),
    ("correct", CORRECTION | {"items": [[i, None] for i in range(1, 200)]}),
    *(("correct", CORRECTION | other) for other in ({"category": "2"}, {"client": "x"})),
    *(("labels", WANTED | other) for other in ({"order": "secret"}, {"source": "secret"})),
    *(("category", {"name": " "}), ("category", b'{"name": "\\ud800"}')),
]
UNKNOWN = [
    *(("label", label(item=item)) for item in (99, -1, 2**62, 2**63)),
    ("label", label(category=99)),
    *(("correct", CORRECTION | {"items": [[item, None]]}) for item in (99, 2**63)),
    ("correct", CORRECTION | {"category": 99}),
    *(("labels", WANTED | {name: 2**63}) for name in ("category", "start")),
]


def test_bodies_that_no_page_of_ours_sends_are_refused(shared: Served) -> None:
    for body in MALFORMED:
        answer = shared.send("next", body)
        assert answer.status == 400, body
        assert "expected" in sentence(answer)
    for action, content in OF_ANOTHER_KIND:
        assert shared.send(action, content).status == 400, (action, content)
    for action, content in UNKNOWN:
        answer = shared.send(action, content)
        assert answer.status == 404, (action, content)
        assert "the queue has n" in sentence(answer)
    assert shared.send("category", {"name": "x" * MAX_BYTES}).status == 413


def test_no_path_leads_to_another_file_and_clicks_are_posts(shared: Served) -> None:
    above = ["..%2f..%2fetc%2fpasswd", "image/..%2f..%2fetc%2fpasswd", "../../etc/passwd"]
    odd = ["image/1%00", "image/new%2f000.png", "image/-1", "training/..%5c..%5cqueue.sqlite"]
    digits = [f"{kind}/{'9' * n}" for kind in ("image", "training") for n in (2, 16, 30, 5000)]
    for path in (*above, *odd, "server.py", "index.html", "queue.sqlite", *digits):
        answer = shared.send(path)
        assert answer.status == 404, path
        assert b"root:" not in answer.body
        assert b"SQLite" not in answer.body

    actions = "next label skip undo again category release labels correct restore"
    for action in actions.split():
        assert shared.send(action).status in (404, 405)
        assert shared.send(action, method="PUT").status == 405
    for path in ("", "image/1", "page.js"):
        assert shared.send(path, {}).status == 405


def fail_with_a_secret() -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("/home/somebody/secret")

    Queue.label = fail  # type: ignore[assignment, method-assign]


def wait_for_no_lock() -> None:
    connect = sqlite3.connect

    def impatient(path: Path, **options: Any) -> sqlite3.Connection:
        return connect(path, **options | {"timeout": 0.05})

    sqlite3.connect = impatient  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("trouble", "status", "words"),
    [
        ("a bug", 500, "the server failed; nothing was changed"),
        ("another program", 503, "not saved"),
        ("damage", 400, "damaged, or no queue"),  # a page sends a click again only after 503
    ],
)
def test_an_error_is_reported_and_reveals_no_secrets(
    make: Make, served: Serve, trouble: str, status: int, words: str
) -> None:
    folder = make()
    before = {"a bug": fail_with_a_secret, "another program": wait_for_no_lock}.get(trouble)
    server = served(folder, before=before)
    with contextlib.ExitStack() as stack:
        if trouble == "damage":
            change(folder, "UPDATE items SET reason = CAST(x'ff' AS TEXT)")
        elif trouble == "another program":
            holder = sqlite3.connect(folder / "queue.sqlite")
            stack.callback(holder.close)
            holder.execute("BEGIN IMMEDIATE")
        answer = server.send("label", label())
    assert answer.status == status
    assert words in sentence(answer)
    assert b"secret" not in answer.body
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Retry-After"] == ("1" if status == 503 else None)


# --- the process ------------------------------------------------------------------------------


def test_no_label_is_lost_in_a_kill_and_links_stay_the_same(make: Make, served: Serve) -> None:
    folder = make()
    first = served(folder)
    second = served(folder)
    assert second.link != first.link, "the port is taken, so another one is"
    assert token_of(second) == token_of(first)
    first.post("label", **label())
    first.kill()
    with contextlib.closing(Queue(folder)) as queue:
        assert queue.images()[0].label == "matrix"
    link = first.link
    first.start()
    assert first.link == link, "windows that were left open are on this one"
    again = first.post("label", **label(category=3))
    assert (again["outcome"], again["progress"]["labelled"]) == ("kept", 1), "the click came again"
    late = second.post("label", **label(category=3, client="window-2", click="click-0002"))
    assert (late["outcome"], late["progress"]["labelled"]) == ("late", 1)
    for server in (first, second):
        server.stop()
    if sys.platform != "win32":
        assert (first.running.exitcode, second.running.exitcode) == (0, 0)


UNFINISHED = {
    "nothing": b"",
    "half a header": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-More: ",
    "half a body": b"POST /x/next HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n{",
    "half a chunk": b"POST /x/next HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
}


def be_patient() -> None:
    """Let the server wait for a request for days."""
    create = waitress.create_server
    waitress.create_server = lambda app, **known: create(app, **known | {"channel_timeout": 10**6})


@pytest.mark.parametrize("start", UNFINISHED.values(), ids=UNFINISHED)
def test_unfinished_connections_do_not_block_it(make: Make, served: Serve, start: bytes) -> None:
    """Of too many, the oldest are closed at once, and not only when the server's patience ends."""
    server = served(make(1), before=be_patient)
    with contextlib.ExitStack() as stack:
        for _ in range(120):
            connection = socket.create_connection(("127.0.0.1", urlsplit(server.link).port))
            stack.enter_context(connection).sendall(start)
        assert server.send("").status == 200
