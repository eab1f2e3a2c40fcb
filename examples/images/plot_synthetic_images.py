"""
What do the synthetic images look like?
=======================================

hypervlad makes synthetic micrographs of four kinds, for tests, examples and your own experiments.
For each image the truth is known: its class, its defects, the directions of its wires, or its
crystal. Each row shows one kind.
"""

# %%
# TEM images have one of 4 classes, or of 8 with ``n_classes=8``.
import matplotlib.pyplot as plt

from hypervlad import (
    make_lattice_images,
    make_nanofibre_images,
    make_nanowire_images,
    make_tem_images,
)
from hypervlad.data import NANOFIBRE_DEFECTS, TEM_CLASSES

tem, labels = make_tem_images(24, size=192, random_state=5)
tem = [tem[list(labels).index(name)] for name in TEM_CLASSES]

# %%
# Nanofibre mats have masks of their defects. Four of the six kinds are shown, outlined in orange.
mats = [
    make_nanofibre_images(1, defective=1, defects=(kind,), size=192, random_state=2)
    for kind in NANOFIBRE_DEFECTS[:4]
]

# %%
# For nanowires, the true direction is known at each pixel of a wire, and you choose the share of
# the area with parallel wires.
shares = (0.0, 0.3, 0.7, 1.0)
wires = [
    make_nanowire_images(1, aligned=share, size=192, random_state=seed)[0][0]
    for seed, share in enumerate(shares)
]

# %%
# Lattices come in samples: the images of one sample show different places of one crystal.
lattices, samples = make_lattice_images(4, images_per_sample=2, size=192, random_state=1)

# %%
figure, axes = plt.subplots(4, 4, figsize=(8, 8.6), layout="constrained")
rows = (
    (tem, [f"TEM: {name}" for name in TEM_CLASSES]),
    ([image for (image,), _ in mats], [f"mat: {kind}" for kind in NANOFIBRE_DEFECTS[:4]]),
    (wires, [f"nanowires: {share:.0%} parallel" for share in shares]),
    (lattices, [f"lattice: sample {sample}" for sample in samples]),
)
figure.suptitle("Synthetic TEM images, nanofibre mats, nanowires and lattices")
for row, (images, titles) in zip(axes, rows, strict=True):
    for ax, image, title in zip(row, images, titles, strict=True):
        ax.imshow(image, cmap="gray", vmin=0, vmax=1)
        ax.set_title(title, size=9)
        ax.set_axis_off()
for ax, (_, (mask,)) in zip(axes[1], mats, strict=True):
    ax.contour(mask, [0.5], colors="tab:orange", linewidths=1)
plt.show()

# %%
# Use them to try things out, not to predict how accurate a model will be on your own images. The
# :doc:`API reference </reference/api>` lists their parameters.
