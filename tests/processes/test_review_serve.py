"""``hypervlad review serve`` in separate processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from support.review_queues import Served


def test_serving_imports_no_network_and_needs_no_model() -> None:
    code = "import hypervlad.review.server, sys; print('torch' in sys.modules)"
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert printed.strip() == "False"


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
        server.running.communicate(timeout=30)
    if sys.platform != "win32":
        assert (first.running.returncode, second.running.returncode) == (0, 0)
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
