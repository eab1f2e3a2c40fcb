"""The server of the page: this machine only, behind a link that holds a secret."""

from __future__ import annotations

import contextlib
import socket
import sqlite3
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flask import Flask, Response, abort, current_app, jsonify, request
from werkzeug.exceptions import HTTPException

from hypervlad.images import ImageReadError
from hypervlad.review.guard import HEADERS, MOST_BYTES, Guard, RefusedError, body_of
from hypervlad.review.previews import SCREEN, THUMBNAIL, WHOLE, BusyError, Previews
from hypervlad.review.records import Answer, QueueError, UnknownError
from hypervlad.review.store import Queue

HOST = "127.0.0.1"
_PAGE = Path(__file__).parent / "page"
# Named here, not guessed: what Windows guesses of ".js" depends on what else is installed.
_KINDS = {
    "index.html": "text/html",
    "page.css": "text/css",
    "page.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
_THREADS = 8


def make_app(queue: Queue, token: str, port: int) -> Flask:
    """Make the application that serves a queue under ``/token/``.

    Parameters
    ----------
    queue : Queue
    token : str
        The secret of the link.
    port : int
        Requests must name it in their ``Host``.

    Returns
    -------
    Flask
    """
    app = Flask(__name__, static_folder=None, template_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MOST_BYTES
    app.url_map.merge_slashes = False
    guard = Guard(token, port)
    app.before_request(lambda: guard.check(request))
    app.after_request(_with_headers)
    app.register_error_handler(Exception, _told)
    _add_files(app)
    _add_pictures(app, queue, Previews())
    _add_clicks(app, queue)
    return app


def serve(
    queue: Queue, *, port: int | None = None, ready: Callable[[str], Any] = lambda _: None
) -> None:
    """Serve a queue until Ctrl-C.

    Parameters
    ----------
    queue : Queue
    port : int, optional
        If not given, the queue's own, which is the last one given or the first that was free, so
        that open windows go on; another free one if that is taken.
    ready : callable
        Called with the link once the server listens.

    Raises
    ------
    OSError
        If the port is taken.
    """
    from waitress import create_server

    listening = _listen(queue, port)
    try:
        taken: int = listening.getsockname()[1]
        token = queue.secret()
        if port is not None or queue.fact("port") is None:
            queue.note(port=str(taken))
        server = create_server(
            make_app(queue, token, taken),
            sockets=[listening],
            threads=_THREADS,
            ident="",
            max_request_body_size=16 * MOST_BYTES,
        )
        ready(f"http://{HOST}:{taken}/{token}/")
        server.run()
    finally:
        listening.close()


def _listen(queue: Queue, port: int | None) -> socket.socket:
    """Return a socket on a port; one that was only remembered may be taken by now."""
    if port is None:
        with contextlib.suppress(OSError):
            return _bound(int(queue.fact("port", "0") or 0))
    return _bound(port or 0)


def _bound(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows, where REUSEADDR would share a port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, port))
    except OSError as error:
        listening.close()
        raise OSError(
            f"port {port} of this computer cannot be had ({error.strerror}): is the page served "
            "already? Give another one with --port, or none"
        ) from error
    return listening


def _add_files(app: Flask) -> None:
    def page(token: str) -> Response:
        return _file("index.html")

    def file(token: str, name: str) -> Response:
        return _file(name) if name in _KINDS and name != "index.html" else abort(404)

    app.add_url_rule("/<token>/", "page", page)
    app.add_url_rule("/<token>/<name>", "file", file)


def _file(name: str) -> Response:
    return Response((_PAGE / name).read_bytes(), content_type=f"{_KINDS[name]}; charset=utf-8")


def _add_pictures(app: Flask, queue: Queue, previews: Previews) -> None:
    def picture(path: Path, side: int) -> Response:
        return Response(previews.get(path, side), mimetype="image/jpeg")

    @app.get("/<token>/image/<int:item>")
    def image(token: str, item: int) -> Response:
        return picture(queue.path_of(item), SCREEN)

    @app.get("/<token>/whole/<int:item>")
    def whole(token: str, item: int) -> Response:
        return picture(queue.path_of(item), WHOLE)

    @app.get("/<token>/training/<int:row>")
    def training(token: str, row: int) -> Response:
        return picture(queue.path_of_training(row), THUMBNAIL)


def _add_clicks(app: Flask, queue: Queue) -> None:
    def answered(answer: Answer) -> Response:
        categories = [asdict(category) for category in queue.categories()]
        return jsonify(asdict(answer) | {"categories": categories})

    @app.post("/<token>/next")
    def next_items(token: str) -> Response:
        asked = body_of(request, {"client": str, "want": int})
        return answered(queue.next(**asked))

    @app.post("/<token>/label")
    def label(token: str) -> Response:
        fields = {"client": str, "click": str, "item": int, "category": int, "want": int}
        return answered(queue.label(**body_of(request, fields)))

    @app.post("/<token>/skip")
    def skip(token: str) -> Response:
        fields = {"client": str, "click": str, "item": int, "want": int}
        return answered(queue.skip(**body_of(request, fields)))

    @app.post("/<token>/undo")
    def undo(token: str) -> Response:
        return answered(queue.undo(**body_of(request, {"client": str, "click": str, "want": int})))

    @app.post("/<token>/again")
    def again(token: str) -> Response:
        return answered(queue.again(**body_of(request, {"client": str, "click": str, "want": int})))

    @app.post("/<token>/category")
    def category(token: str) -> Response:
        return jsonify(asdict(queue.add_category(**body_of(request, {"name": str}))))

    @app.post("/<token>/release")
    def release(token: str) -> Response:
        queue.release(**body_of(request, {"client": str}))
        return jsonify({})


def _with_headers(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers[name] = value
    return response


def _told(error: Exception) -> tuple[Response, int]:
    """Turn every error into a sentence that the page can show; no traceback leaves the server."""
    status, words = _in_words(error)
    response = jsonify({"error": words})
    if status == 503:
        response.headers["Retry-After"] = "1"
    return response, status


def _in_words(error: Exception) -> tuple[int, str]:
    status, words = 500, "the server failed; nothing was changed"
    if isinstance(error, RefusedError):
        status, words = error.status, str(error)
    elif isinstance(error, UnknownError):
        status, words = 404, str(error)
    elif isinstance(error, ImageReadError):
        status, words = 422, str(error)
    elif isinstance(error, QueueError):
        status, words = 400, str(error)
    elif isinstance(error, BusyError):
        status, words = 503, str(error)
    elif isinstance(error, sqlite3.Error):
        status, words = 503, f"not saved: the queue's file cannot be written now ({error})"
    elif isinstance(error, HTTPException):
        status, words = error.code or 500, error.description or error.name
    else:
        current_app.logger.error("review serve: %s %s", request.method, error, exc_info=error)
    return status, words
