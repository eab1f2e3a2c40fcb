"""The server: what it answers, and every refusal."""

from __future__ import annotations

import io
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import pytest
import tifffile
from flask.testing import FlaskClient
from PIL import Image
from support.review_queues import write_picture, write_queue

from hypervlad.apps.review import Queue
from hypervlad.apps.review.server import HEADERS, MAX_BYTES, SCREEN, make_app
from hypervlad.images import ReadOptions

TOKEN, PORT = "a-secret-of-the-link", 8765
HOST = f"127.0.0.1:{PORT}"
CLIENT = "window-1"


@pytest.fixture
def pictured(make: Callable[..., Path]) -> Iterator[Queue]:
    opened = Queue(make(pictures=True))
    yield opened
    opened.close()


@pytest.fixture
def client(pictured: Queue) -> FlaskClient:
    return make_app(pictured, TOKEN, PORT).test_client()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Queue]:
    opened = Queue(write_queue(tmp_path_factory.mktemp("shared"), pictures=True))
    yield opened
    opened.close()


@pytest.fixture
def refusing(shared: Queue) -> Iterator[FlaskClient]:
    """A client of a queue that tests share, because none of them may change it."""
    yield make_app(shared, TOKEN, PORT).test_client()
    assert shared.progress().labelled == 0


def get(client: FlaskClient, path: str = "", *, token: str = TOKEN, host: str = HOST, **headers):
    return client.get(f"/{token}/{path}", headers={"Host": host, **headers})


def post(client: FlaskClient, action: str, body: object, *, token: str = TOKEN, **changes):
    """What the page sends, with changes: a header of None is left out."""
    headers = {"Host": HOST, "Origin": f"http://{HOST}", "Sec-Fetch-Site": "same-origin"}
    headers |= {"Content-Type": "application/json"} | changes.pop("headers", {})
    data = body if isinstance(body, bytes) else json.dumps(body)
    sent = {name: value for name, value in headers.items() if value is not None}
    return client.post(f"/{token}/{action}", data=data, headers=sent)


def label(item: object = 1, category: object = 2, **changes: object) -> dict[str, object]:
    facts = {"client": CLIENT, "click": "click-0001", "item": item, "category": category, "want": 2}
    return facts | changes


def sentence(answer) -> str:
    assert answer.is_json
    return answer.get_json()["error"]


# --- what it answers --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["", "labels.html", "common.js", "shared.js", "page.js", "labels.js", "page.css", "icon.svg"],
)
def test_files_of_the_page_are_served_with_strict_headers(refusing: FlaskClient, name: str) -> None:
    answer = get(refusing, name)
    assert answer.status_code == 200
    assert {key: answer.headers[key] for key in HEADERS} == HEADERS
    assert "Set-Cookie" not in answer.headers
    assert "ETag" not in answer.headers


@pytest.mark.parametrize("name", ["", "labels.html"])
def test_the_page_has_nothing_that_its_policy_forbids(refusing: FlaskClient, name: str) -> None:
    page = get(refusing, name).get_data(as_text=True)
    assert "style=" not in page
    assert " on" not in page.replace(" only", "").split("<body>")[0]
    assert "<script>" not in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert TOKEN not in page, "all links are relative"
    policy = HEADERS["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy


def test_a_label_is_saved_and_the_next_images_come(client: FlaskClient, pictured: Queue) -> None:
    first = post(client, "next", {"client": CLIENT, "want": 2}).get_json()
    assert [item["id"] for item in first["items"]] == [1, 2]
    answer = post(client, "label", label()).get_json()
    assert (answer["outcome"], answer["item"]) == ("kept", 1)
    assert [item["id"] for item in answer["items"]] == [2, 3]
    assert answer["progress"]["labelled"] == pictured.progress().labelled == 1
    assert answer["categories"][1]["name"] == "matrix"
    assert answer["lease"] == pictured.lease, "so that the page knows how often to send something"
    assert answer["items"][0]["nearest"][0]["label"] == "matrix"


def test_all_clicks_have_an_address(client: FlaskClient) -> None:
    name = 'tube {open} [x"y\\]'  # brackets that are no nesting
    made = post(client, "category", {"name": name}).get_json()
    assert made["name"] == name
    assert post(client, "label", label(category=made["id"])).get_json()["outcome"] == "kept"
    click = {"client": CLIENT, "want": 1}
    localhost = {"Host": f"localhost:{PORT}", "Origin": f"http://localhost:{PORT}"}
    assert get(client, host=localhost["Host"]).status_code == 200
    skip = click | {"click": "click-0002", "item": 2}
    skipped = post(client, "skip", skip, headers=localhost).get_json()
    assert skipped["progress"]["skipped"] == 1
    assert post(client, "undo", click | {"click": "click-0003"}).get_json()["item"] == 2
    assert post(client, "again", click | {"click": "click-0004"}).get_json()["outcome"] == "kept"
    assert post(client, "release", {"client": CLIENT}).get_json() == {}


WANTED = {"category": 0, "source": "model", "order": "least_sure", "start": 0, "n": 60}
CORRECTION = {"client": CLIENT, "click": "click-0001", "items": [[7, None]], "category": 2}


def test_labels_are_listed_corrected_and_restored(client: FlaskClient, pictured: Queue) -> None:
    found = post(client, "labels", WANTED).get_json()
    assert [label["id"] for label in found["labels"]] == [7, 8]
    assert (found["total"], found["labels"][0]["by"]) == (2, "model")
    assert found["categories"][1]["name"] == "matrix"
    both = CORRECTION | {"items": [[7, None], [8, None]]}
    answer = post(client, "correct", both).get_json()
    assert answer == {"outcome": "kept", "message": "2 images labelled “matrix”"}
    assert [image.label for image in pictured.images()[6:]] == ["matrix"] * 2
    (event, _) = [
        each["event"]
        for each in post(client, "labels", WANTED | {"source": "person"}).get_json()["labels"]
    ]
    again = CORRECTION | {"click": "click-0002", "items": [[7, event]], "category": 1}
    assert post(client, "correct", again).get_json()["outcome"] == "kept"
    restored = post(client, "restore", {"client": CLIENT, "click": "click-0003"}).get_json()
    assert restored["outcome"] == "kept"
    assert pictured.images()[6].label == "matrix"
    assert get(client, "small/7").mimetype == "image/jpeg"


def test_images_are_jpeg_and_fit_the_screen(
    client: FlaskClient, pictured: Queue, tmp_path: Path
) -> None:
    write_picture(pictured.image_of(1), 0, size=(1500, 3000))
    for kind, size in (("image", (SCREEN, SCREEN // 2)), ("whole", (3000, 1500))):
        answer = get(client, f"{kind}/1")
        assert answer.mimetype == "image/jpeg"
        (tmp_path / "answer.jpg").write_bytes(answer.data)
        with Image.open(tmp_path / "answer.jpg") as picture:
            assert picture.size == size
    assert get(client, "training/0").mimetype == "image/jpeg"


def test_the_picture_is_the_one_that_the_model_has_judged(
    client: FlaskClient, pictured: Queue
) -> None:
    """Also after the model was retrained with other options, while the page is open."""
    black, stripes = np.zeros((64, 64), np.uint8), np.tile(np.uint8([0, 255]), (64, 32))
    pictured.image_of(1).unlink()
    with tifffile.TiffWriter(pictured.image_of(1)) as tiff:
        tiff.write(black)
        tiff.write(stripes)
    brightest = []
    for page in (0, 1):
        pictured.set_facts(reading=json.dumps({"page": page}))
        with Image.open(io.BytesIO(get(client, "image/1").data)) as picture:
            brightest.append(np.asarray(picture).max() > 200)
    assert brightest == [False, True]


def test_pictures_being_made_leave_threads_for_clicks(
    pictured: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, go_on = threading.Semaphore(0), threading.Event()

    def slow(path: Path, side: int, options: ReadOptions) -> bytes:
        busy.release()
        assert go_on.wait(30)
        return b"picture"

    monkeypatch.setattr("hypervlad.apps.review.server.jpeg", slow)
    app = make_app(pictured, TOKEN, PORT)

    def status(item: int) -> int:
        return get(app.test_client(), f"image/{item}").status_code

    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(status, 1 + number % 3) for number in range(6)]
        for _ in range(2):
            assert busy.acquire(timeout=30)
        refused = next(as_completed(asked, timeout=30)).result()
        answer = get(app.test_client(), "image/4")
        assert (refused, answer.status_code) == (503, 503)
        assert answer.headers["Retry-After"] == "1"
        assert post(app.test_client(), "label", label()).status_code == 200
        go_on.set()
        assert sorted(each.result() for each in asked) == [200] * 4 + [503] * 2
    assert get(app.test_client(), "image/4").status_code == 200, "its turn has come"


@pytest.mark.parametrize("damage", ["missing", "broken"])
def test_an_image_that_cannot_be_shown_is_reported_and_can_be_skipped(
    client: FlaskClient, pictured: Queue, damage: str
) -> None:
    path = pictured.image_of(1)
    path.unlink() if damage == "missing" else path.write_bytes(b"\x89PNG\r\n\x1a\n half")
    answer = get(client, "image/1")
    assert answer.status_code == 422
    assert path.name in sentence(answer)
    skip = {"client": CLIENT, "click": "click-0001", "item": 1, "want": 1}
    assert post(client, "skip", skip).get_json()["outcome"] == "kept"


def test_a_link_may_be_followed_from_another_page(refusing: FlaskClient) -> None:
    came = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert get(refusing, **came, **{"Sec-Fetch-Dest": "document"}).status_code == 200
    assert get(refusing, **came, **{"Sec-Fetch-Dest": "iframe"}).status_code == 403


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], TOKEN + "x", "ü", "%2e%2e", "static"])
def test_without_the_token_there_is_nothing(refusing: FlaskClient, token: str) -> None:
    for path in ("", "image/1", "page.js"):
        answer = get(refusing, path, token=token)
        assert answer.status_code == 404
        assert TOKEN not in answer.get_data(as_text=True)
    assert post(refusing, "label", label(), token=token).status_code == 404
    for path in ("/", f"/x/../{TOKEN}/"):
        assert refusing.get(path, headers={"Host": HOST}).status_code == 404


@pytest.mark.parametrize(
    "host",
    ["evil.example", f"evil.example:{PORT}", "127.0.0.1", f"127.0.0.1:{PORT + 1}", "[::1]:1"],
)
def test_a_foreign_host_is_refused(refusing: FlaskClient, host: str) -> None:
    """A foreign name that resolves to 127.0.0.1 is refused (DNS rebinding)."""
    assert get(refusing, host=host).status_code == 403
    headers = {"Host": host, "Origin": f"http://{host}"}
    assert post(refusing, "label", label(), headers=headers).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": None},
        {"Origin": "null"},
        {"Origin": f"https://{HOST}"},
        {"Origin": f"http://localhost:{PORT}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none-of-these"},
    ],
)
def test_a_foreign_page_is_refused(refusing: FlaskClient, headers: dict[str, str | None]) -> None:
    answer = post(refusing, "label", label(), headers=headers)
    assert answer.status_code == 403
    assert "other pages" in sentence(answer)


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "json"]
)
def test_only_json_is_taken(refusing: FlaskClient, kind: str | None) -> None:
    answer = post(refusing, "label", label(), headers={"Content-Type": kind})
    assert answer.status_code == 415


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"1", b"\xff\xfe", b"{}", b'{"client": "window-1"}'),
        *(b"[" * 3000, b'{"a":' * 700, b"\xff" * 3000, b'{"client": "' + b"\\" * 3000),
        b'{"client": "aaaaaaaaaaaa", "want": {}}',
        b'{"client": "aaaaaaaaaaaa", "want": 1e999}',
        b'{"client": "aaaaaaaaaaaa", "want": 1208925819614629174706176}',
        b'{"client": "aaaaaaaaaaaa", "want": 1, "want": 1}',
    ],
)
def test_malformed_json_is_refused(
    refusing: FlaskClient, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    answer = post(refusing, "next", body)
    assert answer.status_code == 400
    assert "expected" in sentence(answer)
    assert not caplog.records
    assert post(refusing, "category", {"name": "x" * MAX_BYTES}).status_code == 413


@pytest.mark.parametrize(
    ("action", "body"),
    [
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
    ],
)
def test_fields_of_another_kind_are_refused(
    refusing: FlaskClient, action: str, body: object
) -> None:
    assert post(refusing, action, body).status_code == 400


@pytest.mark.parametrize(
    ("action", "body"),
    [
        *(("label", label(item=item)) for item in (99, -1, 2**62, 2**63)),
        ("label", label(category=99)),
        *(("correct", CORRECTION | {"items": [[item, None]]}) for item in (99, 2**63)),
        ("correct", CORRECTION | {"category": 99}),
        *(("labels", WANTED | {name: 2**63}) for name in ("category", "start")),
    ],
)
def test_unknown_images_and_categories_are_refused(
    refusing: FlaskClient, action: str, body: object
) -> None:
    answer = post(refusing, action, body)
    assert answer.status_code == 404
    assert "the queue has n" in sentence(answer)


@pytest.mark.parametrize("kind", ["image", "small", "whole", "training"])
def test_a_number_of_no_image_is_no_page(
    refusing: FlaskClient, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    for digits in (2, 16, 30, 5000):
        assert get(refusing, f"{kind}/{'9' * digits}").status_code == 404
    assert not caplog.records


@pytest.mark.parametrize(
    "path",
    [
        "..%2f..%2fetc%2fpasswd",
        "image/..%2f..%2fetc%2fpasswd",
        "image/1%00",
        "image/new%2f000.png",
        "image/-1",
        "training/..%5c..%5cqueue.sqlite",
        "server.py",
        "index.html",
    ],
)
def test_no_path_leads_to_another_file(refusing: FlaskClient, path: str) -> None:
    answer = get(refusing, path)
    assert answer.status_code == 404
    assert b"root:" not in answer.data
    assert b"SQLite" not in answer.data


ACTIONS = "next label skip undo again category release labels correct restore"


@pytest.mark.parametrize("action", ACTIONS.split())
def test_clicks_are_posts_and_files_are_not(refusing: FlaskClient, action: str) -> None:
    assert get(refusing, action).status_code in (404, 405)
    for method in ("PUT", "DELETE", "PATCH"):
        answer = refusing.open(f"/{TOKEN}/{action}", method=method, headers={"Host": HOST})
        assert answer.status_code == 405
    for path in ("", "image/1", "page.js"):
        assert post(refusing, path, {}).status_code == 405


def test_a_damaged_queue_is_named_once(client: FlaskClient, pictured: Queue) -> None:
    """The page sends a click again only after 503."""
    pictured.connection.execute("UPDATE items SET reason = CAST(x'ff' AS TEXT)")
    answer = post(client, "next", {"client": CLIENT, "want": 2})
    assert answer.status_code == 400
    assert "damaged, or no queue" in sentence(answer)


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (RuntimeError("/home/somebody/secret"), 500, "the server failed; nothing was changed"),
        (sqlite3.OperationalError("disk I/O error"), 503, "not saved"),
    ],
)
def test_an_error_is_reported_and_reveals_no_secrets(
    client: FlaskClient,
    pictured: Queue,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    status: int,
    words: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(pictured, "label", fail)
    answer = post(client, "label", label())
    assert answer.status_code == status
    assert words in sentence(answer)
    assert "secret" not in answer.get_data(as_text=True)
    assert answer.headers["Cache-Control"] == "no-store"
