"""
Which way do the wires lie, and how many of them lie together?
==============================================================

Each hue is a direction, and is the paler the more directions differ within a few pixels. Outlined
are the regions whose windows are each coherently aligned, and point like their neighbours.
"""

import argparse

import matplotlib

matplotlib.use("Agg")

from hypervlad import make_nanowire_images
from hypervlad.displays import OrientationDisplay

parser = argparse.ArgumentParser()
parser.add_argument("--out", default="directions.png")
out = parser.parse_args().out

(image,), (truth,) = make_nanowire_images(1, aligned=0.6, random_state=3)
display = OrientationDisplay.from_image(image, pixel_size=4.0, name="synthetic nanowires")
print(f"aligned: {display.aligned.fraction:.2f}; truly {truth.aligned_fraction().fraction:.2f}")
display.figure_.savefig(out, dpi=110, bbox_inches="tight")
