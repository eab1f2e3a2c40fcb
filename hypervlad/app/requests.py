"""Which requests are accepted, what they hold, and what is answered to wrong ones."""

# Pages of other sites in the same browser must not be able to use the server (CSRF), nor to
# impersonate it by a name that resolves to 127.0.0.1 (DNS rebinding), as OWASP's "Cross-Site
# Request Forgery Prevention Cheat Sheet" describes. So the Host of a request must be a name of the
# server, its Origin must equal the Host, and what changes anything is JSON, which a foreign form
# cannot send. Other programs on this computer can connect without the secret: so a request must be
# complete within a few seconds, and of too many connections that wait, the oldest is closed.

from __future__ import annotations

import hmac
import re
import sqlite3
from collections.abc import Mapping
from typing import Any

from flask import Request, Response, abort, current_app, jsonify, request
from werkzeug.exceptions import HTTPException

from hypervlad.app.database import QueueError, StaleError, UnknownError
from hypervlad.app.previews import BusyError
from hypervlad.common.files import LockedError, parse_json
from hypervlad.common.limits import MAX_SAVED_BODY
from hypervlad.images import ImageReadError

_NAME = re.compile(r"[A-Za-z0-9_-]{8,64}")

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_STATUS: dict[type[Exception], int] = {UnknownError: 404, StaleError: 409, QueueError: 400}
_STATUS |= {ImageReadError: 422, BusyError: 503, LockedError: 503}


def check_request(request: Request, token: str, port: int, limit: int) -> None:
    """Refuse a request, whatever its body, unless it comes from the page of this server."""
    own = ["127.0.0.1", "localhost"]
    if port != 80:  # browsers leave out the default port
        own = [f"{name}:{port}" for name in own]
    if request.host not in own:
        abort(403, "this server answers to 127.0.0.1 and localhost only")
    given = request.path.lstrip("/").partition("/")[0]
    if not hmac.compare_digest(given.encode("utf-8", "replace"), token.encode()):
        abort(404, "no such page: use the link that the command printed")
    # Old browsers do not say where a request comes from.
    is_from_here = request.headers.get("Sec-Fetch-Site", "none") in ("same-origin", "none")
    asked = request.headers.get("Sec-Fetch-Mode"), request.headers.get("Sec-Fetch-Dest")
    # A person may have followed the link, for example in a terminal.
    opens_page = request.method == "GET" and asked == ("navigate", "document")
    if not (is_from_here or opens_page):
        abort(403, "requests from other pages are refused")
    if request.method != "POST":
        return
    if request.headers.get("Origin") != f"http://{request.host}":
        abort(403, "requests from other pages are refused")
    if request.mimetype != "application/json":
        abort(415, "expected JSON")
    is_long = request.path.startswith((f"/{token}/keep/", f"/{token}/group"))
    limit = MAX_SAVED_BODY if is_long else limit
    if (request.content_length or 0) > limit:
        abort(413, f"a request has at most {limit} bytes")


def body_of(fields: Mapping[str, type]) -> dict[str, Any]:
    """Return a request's JSON object, which must have exactly these fields, each of its type."""
    try:
        content = parse_json(request.get_data(cache=False))
    except ValueError:
        content = None
    if not isinstance(content, dict) or set(content) != set(fields):
        abort(400, f"expected a JSON object with {', '.join(fields)}")
    for name, kind in fields.items():
        if type(content[name]) is not kind:  # True is not a number here
            abort(400, f"expected {name} to be {kind.__name__}")
        if name in ("client", "click") and not _NAME.fullmatch(content[name]):
            abort(400, f"expected {name} to be 8 to 64 letters and digits")
    return content


def items_of(pairs: list[Any]) -> dict[int, int | None]:
    """Return images and their last events from pairs of whole numbers, or of one and null."""
    for pair in pairs:
        kinds = tuple(map(type, pair)) if isinstance(pair, list) else ()
        if kinds not in ((int, int), (int, type(None))):
            abort(400, "expected items to be pairs of an image and its last event")
    return dict(pairs)


def with_headers(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def error_response(error: Exception) -> tuple[Response, int]:
    """Return every error as a sentence that the page can show, never a traceback."""
    status, message = _error_message(error)
    response = jsonify({"error": message})
    if status == 503:
        response.headers["Retry-After"] = "1"
    return response, status


def _error_message(error: Exception) -> tuple[int, str]:
    for kind, status in _STATUS.items():
        if isinstance(error, kind):
            return status, str(error)
    if isinstance(error, sqlite3.Error):
        return 503, f"not saved: the file of it cannot be written now ({error})"
    if isinstance(error, HTTPException):
        return error.code or 500, error.description or error.name
    current_app.logger.error("server: %s %s", request.method, error, exc_info=error)
    return 500, "the server failed; nothing was changed"
