"""What imports do not load, and what drawing does not change."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.paths import ROOT

from hypervlad import HypercolumnVLAD, make_tem_images


def test_import_is_light():
    code = (
        "import sys, hypervlad.images; "
        "print([m for m in ('torch', 'tifffile', 'skimage', 'sklearn', 'mrcfile', 'ncempy') "
        "if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )

    assert result.stdout.strip() == "[]"


def test_a_model_file_is_read_without_torchvision(tmp_path: Path) -> None:
    """It takes as long to import as torch."""
    images, _ = make_tem_images(8, size=64, random_state=0)
    encoder = HypercolumnVLAD(weights="random", image_size=64, n_codewords=2)
    encoder.fit(images).save(tmp_path / "encoder.hvlad")
    code = "import sys, hypervlad; hypervlad.load(sys.argv[1]); print('torchvision' in sys.modules)"
    command = [sys.executable, "-c", code, str(tmp_path / "encoder.hvlad")]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "False"


def test_drawing_leaves_the_backend_of_matplotlib_alone():
    code = (
        "import io, sys, numpy as np, matplotlib\n"
        "before = dict.__getitem__(matplotlib.rcParams, 'backend')\n"
        "from hypervlad.results import ContactSheetDisplay, save_png\n"
        "sheet = ContactSheetDisplay([np.eye(4)], [['a']])\n"
        "save_png(lambda ax: sheet.plot(ax=ax), io.BytesIO())\n"
        "assert dict.__getitem__(matplotlib.rcParams, 'backend') is before\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
