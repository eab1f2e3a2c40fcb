"""What drawing does to the state of matplotlib."""

import subprocess
import sys


def test_drawing_leaves_the_backend_alone():
    code = (
        "import io, sys, numpy as np, matplotlib\n"
        "before = dict.__getitem__(matplotlib.rcParams, 'backend')\n"
        "from hypervlad.displays import ContactSheetDisplay, save_png\n"
        "sheet = ContactSheetDisplay([np.eye(4)], [['a']])\n"
        "save_png(lambda ax: sheet.plot(ax=ax), io.BytesIO())\n"
        "assert dict.__getitem__(matplotlib.rcParams, 'backend') is before\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
