"""One image and its label pass through few files, and CONTRIBUTING.md names each of them."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.paths import ROOT

from hypervlad import HypercolumnVLAD, MicrographClassifier

MAX_FILES = 22

# These files run as well, but neither an image nor a label passes through them: they hold
# parameters and their checks, names of files, networks and weights, modules of networks, whether
# there is a cache or a worker, progress bars, and torch.
DECLARATIONS = {
    "features/backbones/network.py",
    "features/backbones/registry.py",
    "features/backbones/weights.py",
    "common/base.py",
    "features/cache.py",
    "common/constraints.py",
    "features/encoder/parallel.py",
    "images/files.py",
    "images/options.py",
    "features/lazy_torch.py",
    "common/progress.py",
}
PACKAGE = ROOT / "hypervlad"


def functions_run(function: Callable[[], Any]) -> set[tuple[str, str]]:
    """Return the package's functions that run during a call, in any thread, with their files."""
    found: set[tuple[str, str]] = set()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        # Module bodies and class bodies run when they are imported: they are no steps of the path.
        if event == "call" and code.co_name != "<module>" and code.co_flags & 0x2:
            found.add((code.co_filename, code.co_qualname))

    before = sys.getprofile()
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(before)
        threading.setprofile(None)
    inside = [(Path(file), name) for file, name in found if Path(file).is_relative_to(PACKAGE)]
    return {(file.relative_to(PACKAGE).as_posix(), name) for file, name in inside}


@pytest.fixture(scope="module")
def calls(
    tmp_path_factory: pytest.TempPathFactory, texture_images: tuple[list[np.ndarray], np.ndarray]
) -> set[tuple[str, str]]:
    """Return the functions that run in ``fit`` and ``predict_proba`` of a classifier."""
    images, labels = texture_images
    paths = []
    folder = tmp_path_factory.mktemp("images")
    for number, image in enumerate(images):
        paths.append(folder / f"{number:02d}.png")
        Image.fromarray(np.round(255 * image).astype(np.uint8)).save(paths[-1])
    encoder = HypercolumnVLAD("tiny", weights="random", image_size=16, n_codewords=4, sampling=400)
    model = MicrographClassifier(encoder, random_state=0)

    def fit_and_predict() -> None:
        model.fit(paths, labels, groups=np.arange(len(paths)) // 2)
        model.predict_proba(paths[:3])

    return functions_run(fit_and_predict)


@pytest.fixture(scope="module")
def path_of_an_image(calls: set[tuple[str, str]]) -> set[str]:
    return {file for file, _ in calls}


def test_an_image_passes_through_few_files(path_of_an_image: set[str]) -> None:
    assert path_of_an_image >= DECLARATIONS
    assert len(path_of_an_image - DECLARATIONS) <= MAX_FILES, sorted(path_of_an_image)


def test_contributing_names_the_files_and_calls_of_the_path(
    path_of_an_image: set[str], calls: set[tuple[str, str]]
) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.split("## The path of an image")[1].split("\n## ")[0]
    functions = re.findall(r"`([\w.]+)`", section.split("From it,")[1].split("\n\n")[0])
    named = set(re.findall(r"`([\w/]+\.py)`", section))
    assert path_of_an_image == named - {"tests/documents/test_path_of_an_image.py"}
    assert functions
    assert set(functions) <= {name for _, name in calls}
