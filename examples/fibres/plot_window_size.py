"""
Which window size suits my fibres?
==================================

Whether fibres count as aligned depends on the size of the window in which they are compared. The
aligned fraction of two images is measured with windows of 8 to 96 pixels: in one image, 40 % of the
area has parallel wires, in the other none. Look for a window size that gives a low fraction for the
random wires and is still smaller than the areas of parallel wires.
"""

# %%
# The wires are 7 pixels wide on average.
import matplotlib.pyplot as plt
import numpy as np

from hypervlad import make_fibre_images
from hypervlad.fibres import aligned_fraction

windows = [8, 12, 16, 24, 32, 48, 64, 96]
images, found, true = {}, {}, {}
for share in (0.4, 0.0):
    (image,), (truth,) = make_fibre_images(
        1, aligned=share, cover=0.5, diameter=7, size=384, random_state=4
    )
    images[share] = image
    found[share] = [aligned_fraction(image, window=window) for window in windows]
    true[share] = [truth.aligned_fraction(window=window) for window in windows]

# %%
# A small window holds a single wire, and a straight wire is always aligned with itself. So small
# windows call most of the random wires aligned, and rightly so by this rule: the true directions
# (crosses) give similar fractions. Large windows extend beyond the areas of parallel wires, so the
# fraction falls below the area. Warnings say where windows of twice the size are aligned far less.
figure = plt.figure(figsize=(8, 5.4), layout="constrained")
top, bottom = figure.subfigures(2, 1, height_ratios=(1, 1.1))
for ax, window in zip(top.subplots(1, 3), (8, 32, 96), strict=True):
    labels = found[0.4][windows.index(window)].labels
    ax.imshow(images[0.4], cmap="gray")
    ax.imshow(np.ma.masked_less(labels > 0, 1), cmap="Blues_r", alpha=0.5)
    ax.set_title(f"aligned windows of {window} px", size=10)
    ax.set_axis_off()

ax = bottom.subplots()
for share, colour in ((0.4, "tab:blue"), (0.0, "tab:orange")):
    fractions = [each.fraction for each in found[share]]
    ax.plot(windows, fractions, "o-", color=colour, label=f"{share:.0%} of the area parallel")
    ax.plot(windows, [each.fraction for each in true[share]], "x", color=colour, ms=9)
    ax.axhline(share, color=colour, ls="--", lw=1)
ax.set_xscale("log", base=2)
ax.set_xticks(windows, [str(window) for window in windows])
ax.minorticks_off()
ax.set(xlabel="side of the window, pixels", ylabel="aligned fraction", ylim=(-0.03, 1.03))
ax.set_title(
    "Aligned fraction by window size (crosses: true directions, dashed: area of parallel wires)",
    size=10,
)
ax.legend()
plt.show()

# %%
# For these wires, 48 pixels is a good choice: about seven times their width. Use one size for all
# images that you compare, and state it with the fraction; ``window="500nm"`` of
# :class:`hypervlad.fibres.AlignmentRecipe` sets it in nanometres.
