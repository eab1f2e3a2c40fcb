"""The README's commands, run as a reader would run them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from support.paths import ROOT
from support.readme import blocks, run

pytestmark = pytest.mark.real


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


def test_shell_commands(workplace: Path) -> None:
    for line in "".join(blocks("console")).splitlines():
        if line.startswith("hypervlad review serve"):  # runs until Ctrl-C, and needs a user
            label_all(line.split()[1:], workplace)
            continue
        command = re.sub(r"^hypervlad", f'"{sys.executable}" -m hypervlad', line)
        run(["bash", "-c", command], workplace)
    lines = (workplace / "predictions.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 3
    columns = "path,label,confidence,unlike_training,novelty,possible,kind,reason,p_"
    assert lines[0].startswith(columns)
    assert (workplace / "classified.html").is_file()
    assert (workplace / "report" / "index.html").is_file()
    assert (workplace / "found" / "scores.csv").is_file()
    assert (workplace / "defects.html").is_file()
    assert (workplace / "directions" / "alignment.csv").is_file()
    assert (workplace / "directions" / "learned" / "alignment.csv").is_file()
    assert "person" in (workplace / "labels.csv").read_text(encoding="utf-8")
    assert (workplace / "better.hvlad").is_file()
