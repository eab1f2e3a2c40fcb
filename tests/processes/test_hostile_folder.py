"""Files in the current folder that have the names of weights, networks, classes and modules."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.commands import TINY, run
from support.paths import ROOT

import hypervlad
from hypervlad import make_fibre_images
from hypervlad.data import load_features
from hypervlad.models import AlignmentClassifier, default_alignment_encoder
from hypervlad.models.presets import modarres2017

Images = tuple[list[np.ndarray], np.ndarray]

NAMES = ["pretrained", "imagenet", "micronet", "image-micronet", "random", "tiny", "mobilenet_v2"]
NAMES += ["stripes", "rings", "flat", "aligned", "not aligned", "normal", "anomalous", "lgo"]
NAMES += ["structure_tensor", "auto", "cpu", "joint", "finest", "numpy", "torch", "hypervlad"]


def answers(images: list[np.ndarray], labels: np.ndarray, folder: Path) -> list[Any]:
    """Return what models say that are made, saved and used in the current folder."""
    run("train", folder, "-o", "n.hvlad", *TINY, "-q")
    model = hypervlad.load("n.hvlad")
    run("extract", folder, "-m", "n.hvlad", "-o", "f.parquet", "-q")
    wires = make_fibre_images(2, size=64, random_state=0)[0]
    encoder = default_alignment_encoder(weights="random")
    aligned = AlignmentClassifier(encoder, random_state=0).fit(wires, ["aligned", "not aligned"])
    transfer = modarres2017("features", backbone="tiny", weights="random", random_state=0)
    transfer.fit(images, labels).save("t.hvlad")
    found = [model.predict_proba(images), load_features("f.parquet")[0], aligned.predict(wires)]
    return [*found, hypervlad.load("t.hvlad").predict_proba(images)]


@pytest.mark.full  # four models, twice
@pytest.mark.filterwarnings("ignore:Classes with only one")
def test_files_with_the_names_of_weights_and_classes_change_nothing(
    texture_images: Images, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second name is a file, the others are folders."""
    monkeypatch.chdir(tmp_path)
    expected = answers(*texture_images, folder)
    (tmp_path / "hostile").mkdir()
    monkeypatch.chdir(tmp_path / "hostile")
    for number, name in enumerate(NAMES):
        Path(name).touch() if number % 2 else Path(name).mkdir()
    found = answers(*texture_images, folder)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.full  # a command with two workers, and each imports torch
def test_a_command_runs_no_code_from_its_folder(model: Path, folder: Path, tmp_path: Path) -> None:
    """Nor do its workers, which Python would start with that folder first on their path."""
    for name in ("numpy", "joblib", "signal"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('code from this folder')")
    script = tmp_path / "elsewhere" / "start.py"
    script.parent.mkdir()
    script.write_text(
        f"import sys; sys.path[:1] = [r'{ROOT}', r'{ROOT / 'tests'}']\n"
        "from support.tiny import register_tiny; register_tiny()\n"
        "import runpy; runpy.run_module('hypervlad', run_name='__main__')\n"
    )
    command = ["extract", str(folder), "-m", str(model), "-o", "f.parquet", "--jobs", "2", "-q"]
    done = subprocess.run(
        [sys.executable, str(script), *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": ""},
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "f.parquet").exists()
