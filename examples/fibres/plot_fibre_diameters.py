"""
Are the fibres of two mats equally thick?
=========================================

Three images of each of two mats are measured, whose fibres have medians of 8 and 11 pixels. Look at
the cross lines, which should end on the edges of fibres, and at the histograms, which show how much
of the visible length has which diameter.
"""

# %%
# One pixel is 12.5 nm wide.
import matplotlib.pyplot as plt
import numpy as np

from hypervlad.data import make_fibre_images
from hypervlad.fibres import compare_groups, cross_lines, fibre_diameters

PIXEL_SIZE = 12.5
images, names = [], []
for name, diameter in (("thin", 8), ("thick", 11)):
    made, _ = make_fibre_images(
        3, diameter=diameter, cover=0.3, contrast_to_noise=20, size=256, random_state=diameter
    )
    images += made
    names += [name] * len(made)
found = [fibre_diameters(image, pixel_size=PIXEL_SIZE) for image in images]

# %%
# A place in one image says little about the next image, so groups are compared by the medians of
# their images.
compared = compare_groups(found, names)
ratio = compared.ratio("thick", "thin")

figure, (above, below) = plt.subplots(2, 2, figsize=(8, 7), layout="constrained")
for ax, row in zip(above, (0, 3), strict=True):
    ax.imshow(images[row], cmap="gray")
    for (y1, x1), (y2, x2) in cross_lines(found[row], PIXEL_SIZE):
        ax.plot([x1, x2], [y1, y2], color="tab:cyan", lw=1)
    ax.set_title(names[row], size=10)
    ax.set_axis_off()
bins = np.geomspace(40, 400, 25)
for ax, group in zip(below, compared.groups, strict=True):
    ax.hist(group.places.diameters, bins, weights=group.places.weights, color="tab:blue")
    ax.axvline(group.median, color="black", ls="--", lw=1)
    ax.axvspan(group.interval.low, group.interval.high, color="0.85", lw=0, zorder=0)
    ax.set_xscale("log")
    ax.set_xticks([50, 100, 200, 400], ["50", "100", "200", "400"])
    ax.minorticks_off()
    ax.set(xlabel="diameter, nm", ylabel="visible length", yticks=[], xlim=(bins[0], bins[-1]))
    ax.set_title(f"{group.name}: median {group.median:.0f} nm, with its 95 % interval", size=10)
figure.suptitle(ratio.text("Median diameter"))
plt.show()

# %%
# The interval of the ratio is wide with three images of each mat. ``n_to_halve`` of a group is the
# number of images that would halve the interval of its median.
print([(group.name, group.n_to_halve) for group in compared.groups])
