"""All commands and examples of the README, run as a reader would run them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.paths import ROOT

from hypervlad import make_nanofibre_images, make_tem_images

README = (ROOT / "README.md").read_text(encoding="utf-8")

pytestmark = pytest.mark.real


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, mobilenet_weights: Path) -> Path:
    """A folder with the images, groups and scans that the README uses."""
    folder = tmp_path_factory.mktemp("readme")
    images, labels = make_tem_images(40, size=96, random_state=0)
    rows = ["path,group"]
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = "images" if i < 24 else "others"
        path = folder / place / label / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.round(255 * image).astype(np.uint8)).save(path)
        if place == "images":
            rows.append(f"{label}/{path.name},sample{i // 2}")
    for i, place in enumerate(["new", "scans"]):
        (folder / place).mkdir()
        Image.fromarray(np.round(255 * images[i]).astype(np.uint8)).save(folder / place / "a.png")
    write_mats(folder / "mats")
    (folder / "groups.csv").write_text("\n".join(rows), encoding="utf-8")
    return folder


def write_mats(folder: Path) -> None:
    """Write defect-free fibre mats, defective ones, and masks of their defects."""
    mats, masks = make_nanofibre_images(9, defective=0.34, size=96, random_state=0)
    for place in ("good", "new", "masks"):
        (folder / place).mkdir(parents=True)
    good = [mat for mat, mask in zip(mats, masks, strict=True) if not mask.any()]
    for i, mat in enumerate(good):
        Image.fromarray(np.round(255 * mat).astype(np.uint8)).save(folder / "good" / f"{i}.png")
    for i, (mat, mask) in enumerate(zip(mats, masks, strict=True)):
        if mask.any():
            Image.fromarray(np.round(255 * mat).astype(np.uint8)).save(folder / "new" / f"{i}.png")
            Image.fromarray(255 * mask.astype(np.uint8)).save(folder / "masks" / f"{i}.png")


def run(command: list[str], folder: Path, **kwargs: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


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


def test_python_examples(workplace: Path) -> None:
    # The few images here leave few held-out groups for early stopping.
    strict = ["-W", "error", "-W", "ignore:fine-tuning is validated on"]
    # Another test may run a cluster at the same time: dask then takes another port.
    strict += ["-W", "ignore:Port 8787 is already in use"]
    for block in blocks("python"):  # in order: some use the results of earlier ones
        run([sys.executable, *strict, "-c", block], workplace)
    assert (workplace / "words.png").is_file()


def test_shell_commands(workplace: Path) -> None:
    for line in "".join(blocks("console")).splitlines():
        if line.startswith("hypervlad review serve"):  # runs until Ctrl-C, and needs a user
            label_all(line.split()[1:], workplace)
            continue
        command = re.sub(r"^hypervlad", f'"{sys.executable}" -m hypervlad', line)
        run(["bash", "-c", command], workplace)
    lines = (workplace / "predictions.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("path,label,confidence,possible,kind,reason,p_")
    assert (workplace / "classified.html").is_file()
    assert (workplace / "report" / "index.html").is_file()
    assert (workplace / "found" / "scores.csv").is_file()
    assert (workplace / "defects.html").is_file()
    assert (workplace / "directions" / "alignment.csv").is_file()
    assert (workplace / "directions" / "learned" / "alignment.csv").is_file()
    assert "person" in (workplace / "labels.csv").read_text(encoding="utf-8")
    assert (workplace / "better.hvlad").is_file()


def test_links_have_targets() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    assert all((ROOT / target).exists() for target in targets if "://" not in target)


def test_all_networks_are_named() -> None:
    (paragraph,) = re.findall(r"Networks by name: (.*?)and your own", README, flags=re.DOTALL)
    # In a separate process, since tests register further networks in this one.
    script = "from hypervlad.backbones import backbone_names; print(*backbone_names())"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(re.findall(r"`(\w+)`", paragraph)) == set(done.stdout.split())


def test_the_makefile_installs_the_same_as_the_readme() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (weights,) = re.findall(r"--no-deps (\S+)", README.split("<!-- install -->")[1])
    assert f"WEIGHTS := {weights}" in makefile


@pytest.mark.parametrize(
    "script", sorted((ROOT / "examples").glob("plot_*.py")), ids=lambda p: p.stem
)
def test_examples_write_a_figure(script: Path, tmp_path: Path, mobilenet_weights: Path) -> None:
    run([sys.executable, "-W", "error", str(script), "--out", "picture.png"], tmp_path)
    with Image.open(tmp_path / "picture.png") as picture:
        assert min(picture.size) > 200
