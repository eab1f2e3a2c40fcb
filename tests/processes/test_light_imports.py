"""What imports do not load."""

from __future__ import annotations

import subprocess
import sys

from support.paths import ROOT


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


def test_the_package_with_the_weights_is_never_imported() -> None:
    code = (
        "import sys; from hypervlad.backbones import find_weights, WeightsNotFoundError\n"
        "try: find_weights('mobilenet_v2', download=False)\n"
        "except WeightsNotFoundError: pass\n"
        "assert not any(name.startswith('fdet') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
