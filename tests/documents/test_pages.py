"""The README and the documentation's pages: all their blocks run as a reader would run them.

The blocks of a page run in their order, in a folder of their own, which has what `workplace` made.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from support.documents import PAGES, blocks, run
from support.paths import ROOT

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork"),
]

# Imports once what all blocks import, which takes seconds; each block then has a process of its
# own, in which it is the main module, as if it had been started with ``python -c``, and so has
# each command that is not part of a pipe.
FORKING = """
import glob, json, os, shlex, subprocess, sys, types
import hypervlad
from hypervlad.cli import main as command_line
for name in hypervlad.__all__:
    getattr(hypervlad, name)

def run(language, block):
    if language == "python":
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(block, "<page>", "exec"), vars(main))
    elif block.startswith("hypervlad ") and not set("|><$&;") & set(block):
        words = shlex.split(block)
        sys.argv = [own for word in words for own in sorted(glob.glob(word)) or [word]]
        sys.exit(command_line())
    else:
        subprocess.run(["bash", "-euc", block], check=True)

for language, block in json.load(sys.stdin):
    if not os.fork():
        run(language, block)
        break
    _, status = os.wait()
    if status:
        sys.exit(f"failed:\\n{block}")
"""
# The few images here leave few held-out groups, for early stopping and for sure answers.
STRICT = ["-W", "error", "-W", "ignore:fine-tuning is validated on"]
STRICT += ["-W", "ignore:no answer is sure", "-W", "ignore:the threshold is extrapolated"]
# Another test may run a cluster at the same time: dask then takes another port.
STRICT += ["-W", "ignore:Port 8787 is already in use"]


def label_all(arguments: list[str], folder: Path) -> None:
    """Serve a queue, label its images as the page does, and stop the server."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "hypervlad", *arguments]
    serving = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert serving.stdout is not None
        link = serving.stdout.readline().split()[1]
        answer = post(link, "next", client="window-1", want=1)
        while answer["items"]:
            item = answer["items"][0]["id"]
            click = {"client": "window-1", "click": f"click-{item:04d}", "want": 1}
            answer = post(link, "label", item=item, category=1, **click)
        assert answer["progress"]["labelled"]
        serving.terminate()
        serving.communicate(timeout=60)
        assert serving.returncode == 0
    finally:
        serving.kill()
        serving.communicate()


def post(link: str, action: str, **body: object) -> dict[str, Any]:
    origin = link[: link.index("/", len("http://"))]
    headers = {"Content-Type": "application/json", "Origin": origin}
    request = urllib.request.Request(link + action, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def steps(page: Path) -> list[tuple[str, str]]:
    """Return the blocks of a page, those of commands line by line."""
    found = []
    for language, block in blocks(page):
        lines = block.replace("\\\n", " ").splitlines()
        found += [(language, own) for own in (lines if language == "console" else [block])]
    return found


def is_server(step: tuple[str, str]) -> bool:
    """Return whether a command runs until Ctrl-C, and needs a user."""
    return step[1].startswith("hypervlad review serve")


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if blocks(page)],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_all_blocks_run(page: Path, workplace: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    shutil.copytree(workplace, folder)
    waiting: list[tuple[str, str]] = []
    for step in [*steps(page), None]:
        if step is not None and not is_server(step):
            waiting.append(step)
            continue
        run([sys.executable, *STRICT, "-c", FORKING], folder, input=json.dumps(waiting))
        waiting = []
        if step is not None:
            label_all(step[1].split()[1:], folder)
