"""
What are the directions of the wires, and how many are aligned?
===============================================================

Each hue is a direction; it is paler where directions vary within a few pixels. Outlines show
regions of coherently aligned windows with similar directions.
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
print(
    f"aligned: {display.aligned.fraction:.2f}; true value {truth.aligned_fraction().fraction:.2f}"
)
display.figure_.savefig(out, dpi=110, bbox_inches="tight")
