"""What a unit test must not do: start a process or build a large network.

``tests/conftest.py`` imports the hook below. It also covers fixtures of any scope that a unit test
is the first to use.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Generator
from typing import Any

import joblib
import pytest
import threadpoolctl
import torch

_STARTS = {
    "subprocess.Popen": "starts the process",
    "os.system": "starts the process",
    "os.posix_spawn": "starts the process",
    "os.exec": "replaces this process by",
    "os.fork": "forks",
    "os.forkpty": "forks",
}
UNIT = ("tests/unit/", "tests/conformance/")
_active: list[str] = []  # the unit test that runs now, if any


def _check_event(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _STARTS and _active:
        what = next((str(argument) for argument in arguments[1::-1] if argument), "")
        pytest.fail(
            f"{_active[-1]} {_STARTS[event]} {what}: a unit test must not. Move it to "
            "tests/processes (or tests/integration, tests/documents).",
        )


_NETWORK = re.compile(r"torchvision\.models|hypervlad\..*mobilenet")
_build_module = torch.nn.Module.__init__


def _check_module(module: torch.nn.Module, *args: Any, **kwargs: Any) -> None:
    if _active and _NETWORK.match(type(module).__module__):
        pytest.fail(
            f"{_active[-1]} builds a {type(module).__name__}, a large network. "
            'In a unit test, use the backbone "tiny", or move the test to tests/networks.',
        )
    _build_module(module, *args, **kwargs)


def _watch() -> None:
    """Watch this process, once: an audit hook cannot be removed."""
    if torch.nn.Module.__init__ is _build_module:
        joblib.cpu_count(only_physical_cores=True)  # runs lscpu, once in a process
        threadpoolctl.threadpool_info()  # old versions run ldconfig, once in a process
        importlib.import_module("numpy.testing")  # runs lscpu
        sys.addaudithook(_check_event)
        torch.nn.Module.__init__ = _check_module  # type: ignore[method-assign]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    if not item.nodeid.startswith(UNIT):
        return (yield)
    _watch()
    _active.append(item.nodeid)
    try:
        return (yield)
    finally:
        _active.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_active.clear)
