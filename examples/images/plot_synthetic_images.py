"""
What do the synthetic images look like?
=======================================

hypervlad makes synthetic micrographs, one kind for each task, to try it out without images of your
own. For each image the truth is known: its class, its defects, the directions and diameters of its
fibres, or the outlines of its particles. Each row shows one kind.
"""

# %%
# TEM images have one of four classes.
import matplotlib.pyplot as plt

from hypervlad import add_defect, make_fibre_images, make_particle_fields, make_tem_images
from hypervlad.data import TEM_CLASSES

tem, labels = make_tem_images(24, size=192, random_state=5)
tem = [tem[list(labels).index(name)] for name in TEM_CLASSES]

# %%
# Fibres have known diameters and directions, and you choose the share of the area in which they are
# parallel.
shares = (0.0, 0.3, 0.7, 1.0)
fibres = [
    make_fibre_images(1, aligned=share, diameter=7, cover=0.5, size=192, random_state=seed)[0][0]
    for seed, share in enumerate(shares)
]

# %%
# A defect can be added to any image, with its mask. Four of the seven kinds are shown, outlined in
# orange.
kinds = ("film", "scratch", "blur", "pits")
mat = make_fibre_images(1, diameter=7, cover=0.8, size=192, random_state=0)[0][0]
defective = [add_defect(mat, kind, random_state=2) for kind in kinds]

# %%
# Particles have outlines, classes and sizes.
fields, _ = make_particle_fields(4, size=192, random_state=1)

# %%
figure, axes = plt.subplots(4, 4, figsize=(8, 8.6), layout="constrained")
rows = (
    (tem, [f"TEM: {name}" for name in TEM_CLASSES]),
    (fibres, [f"fibres: {share:.0%} parallel" for share in shares]),
    ([image for image, _ in defective], [f"defect: {kind}" for kind in kinds]),
    (fields, ["particles"] * 4),
)
figure.suptitle("Synthetic TEM images, fibres, defects and particles")
for row, (images, titles) in zip(axes, rows, strict=True):
    for ax, image, title in zip(row, images, titles, strict=True):
        ax.imshow(image, cmap="gray", vmin=0, vmax=1)
        ax.set_title(title, size=9)
        ax.set_axis_off()
for ax, (_, mask) in zip(axes[2], defective, strict=True):
    ax.contour(mask, [0.5], colors="tab:orange", linewidths=1)
plt.show()

# %%
# Use them to try things out, not to predict how accurate a model will be on your own images. The
# :doc:`API reference </reference/api>` lists their parameters.
