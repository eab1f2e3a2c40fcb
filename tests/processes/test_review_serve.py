"""``hypervlad review serve`` in separate processes."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from support.review_queues import Served


def test_it_ends_on_request_and_has_the_same_link_again(
    make: Callable[..., Path], served: Callable[[Path], Served]
) -> None:
    folder = make()
    first = served(folder)
    second = served(folder)
    assert second.link != first.link, "the port is taken, so another one is"
    assert second.link.split("/")[-2] == first.link.split("/")[-2]
    for server in (first, second):
        server.running.terminate()
        server.running.join(timeout=30)
    if sys.platform != "win32":
        assert (first.running.exitcode, second.running.exitcode) == (0, 0)
    assert served(folder).link == first.link, "windows that were left open are on this one"


def test_a_port_that_is_taken_is_reported(
    make: Callable[..., Path], served: Callable[[Path], Served]
) -> None:
    folder = make()
    port = served(folder).link.split(":")[2].split("/")[0]
    command = [sys.executable, "-m", "hypervlad", "review", "serve", str(folder), "--no-open"]
    done = subprocess.run([*command, "--port", port], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert f"port {port}" in done.stderr
    assert "Traceback" not in done.stderr


UNFINISHED = {
    "nothing": b"",
    "half a header": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-More: ",
    "half a body": b"POST /x/next HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n{",
    "half a chunk": b"POST /x/next HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
}


def test_unfinished_connections_do_not_block_the_page(
    make: Callable[..., Path], served: Callable[[Path], Served]
) -> None:
    link = served(make()).link
    port = int(link.split(":")[2].split("/")[0])
    for what, start in UNFINISHED.items():
        with contextlib.ExitStack() as stack:
            for _ in range(120):
                connection = socket.create_connection(("127.0.0.1", port))
                stack.enter_context(connection).sendall(start)
            began = time.monotonic()
            with urllib.request.urlopen(link, timeout=30) as page:
                assert page.status == 200
            assert time.monotonic() - began < 2, what


@pytest.mark.slow  # waits until the server's patience ends
def test_a_request_that_arrives_byte_by_byte_is_cut_off(
    make: Callable[..., Path], served: Callable[[Path], Served]
) -> None:
    link = served(make()).link
    port = int(link.split(":")[2].split("/")[0])
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port)) as slow:
        slow.sendall(UNFINISHED["half a header"])
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - began < 30:
                slow.sendall(b"x")
                time.sleep(0.1)
    assert 4 < time.monotonic() - began < 10
