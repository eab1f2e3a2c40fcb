"""
What does the model see in a micrograph?
========================================

Every position of an image is assigned to a codeword. Here each layer of the network has its own
codewords: fine texture in the first, whole structures in the last. Similar codewords have similar
colours.
"""

import argparse

import matplotlib

matplotlib.use("Agg")

from hypervlad import HypercolumnVLAD, make_tem_images
from hypervlad.displays import CodewordMapDisplay

parser = argparse.ArgumentParser()
parser.add_argument("--out", default="codeword_maps.png")
out = parser.parse_args().out

images, labels = make_tem_images(40, random_state=3)
encoder = HypercolumnVLAD(n_codewords=24, codebook="per_layer", random_state=0).fit(images)

shown = [list(labels).index(name) for name in ("fiber", "cluster", "matrix-surface")]
display = CodewordMapDisplay.from_estimator(
    encoder, [images[i] for i in shown], names=[str(labels[i]) for i in shown]
)
display.figure_.savefig(out, dpi=110, bbox_inches="tight")
