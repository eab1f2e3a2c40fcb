"""Who may speak to the page's server: the page that it served itself, on this machine, no other.

The link holds a secret. Beyond that, a foreign page in the same browser must not be able to use the
server (CSRF), nor to pose as it under a name of its own that leads to 127.0.0.1 (DNS rebinding), as
OWASP's *Cross-Site Request Forgery Prevention Cheat Sheet* describes: the ``Host`` is compared with
the names that the server has, the ``Origin`` with the ``Host``, and what changes anything is JSON,
which no foreign form can send.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import Request

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
MOST_BYTES = 4096  # of a request's body
_NAME = re.compile(r"[A-Za-z0-9_-]{8,64}")


class RefusedError(Exception):
    """A request is refused; `status` is the HTTP status to say so with."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class Guard:
    """Lets requests pass, or raises `RefusedError`.

    Parameters
    ----------
    token : str
        The first part of every path.
    port : int
    """

    token: str
    port: int

    def check(self, request: Request) -> None:
        """Look at all but the content."""
        own = ["127.0.0.1", "localhost"]
        if self.port != 80:  # which hosts leave out
            own = [f"{name}:{self.port}" for name in own]
        if request.host not in own:
            raise RefusedError(403, "this server answers to 127.0.0.1 and localhost only")
        given = request.path.lstrip("/").partition("/")[0]
        if not hmac.compare_digest(given.encode("utf-8", "replace"), self.token.encode()):
            raise RefusedError(404, "no such page: use the link that 'review serve' printed")
        if not (_from_our_page(request) or _opens_a_window(request)):
            raise RefusedError(403, "requests from other pages are refused")
        if request.method == "POST":
            self._check_post(request)

    def _check_post(self, request: Request) -> None:
        if request.headers.get("Origin") != f"http://{request.host}":
            raise RefusedError(403, "requests from other pages are refused")
        if request.mimetype != "application/json":
            raise RefusedError(415, "expected JSON")
        if (request.content_length or 0) > MOST_BYTES:
            raise RefusedError(413, f"a request has at most {MOST_BYTES} bytes")


def _from_our_page(request: Request) -> bool:
    """Say whether the browser, if it says so at all, says that the page itself is asking."""
    return request.headers.get("Sec-Fetch-Site", "none") in ("same-origin", "none")


def _opens_a_window(request: Request) -> bool:
    """Say whether somebody has followed the link, from a notebook's terminal for instance."""
    asked = (request.headers.get("Sec-Fetch-Mode"), request.headers.get("Sec-Fetch-Dest"))
    return request.method == "GET" and asked == ("navigate", "document")


def body_of(request: Request, fields: Mapping[str, type]) -> dict[str, Any]:
    """Return a request's JSON object, checked field by field.

    Raises
    ------
    RefusedError
        If it is no JSON object with these fields, each of its type, and no others.
    """
    content = request.get_json(silent=True)
    if not isinstance(content, dict) or set(content) != set(fields):
        raise RefusedError(400, f"expected a JSON object with {', '.join(fields)}")
    for name, kind in fields.items():
        if type(content[name]) is not kind:  # True is no number here
            raise RefusedError(400, f"expected {name} to be {kind.__name__}")
        if name in ("client", "click") and not _NAME.fullmatch(content[name]):
            raise RefusedError(400, f"expected {name} to be 8 to 64 letters and digits")
    return content
