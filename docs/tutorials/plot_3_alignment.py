"""
Measure the alignment of fibres
===============================

How well are the wires, fibres or tubes in these micrographs aligned, and in which direction? At the
end of this tutorial, you have a table with the aligned fraction and the mean direction of each
image, and you know how far the numbers can be trusted. No model is trained, and no labels are
needed.
"""

# %%
# 1. Collect the images and their pixel size
# ------------------------------------------
# Here we write synthetic SEM images of nanowires into a temporary folder that stands in for yours:
# six samples, from hardly aligned to fully aligned. With your own images, keep the imports, set
# ``folder``, let ``paths`` list your files, and leave out everything that uses ``truths``. The
# pixel size is read from the files; ``pixel_size=`` is for files that do not contain it
# (:doc:`/howto/pixel_size`). Cut off an information bar with ``banner="remove"``, because its
# letters have directions, too.
import csv
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import hypervlad
from hypervlad.fibres import AlignmentRecipe
from hypervlad.results import OrientationDisplay

temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)
(folder / "wires").mkdir()
paths, truths = [], []
for number, aligned in enumerate(np.linspace(0, 1, 6)):
    (image,), (truth,) = hypervlad.make_fibre_images(
        1,
        aligned=aligned,
        cover=0.55,
        diameter=7,
        look="round",
        contrast_to_noise=10,
        random_state=number,
    )
    paths.append(folder / "wires" / f"sample{number}.png")
    Image.fromarray(np.uint8(255 * image)).save(paths[-1])
    truths.append(truth)

# %%
# 2. Look at one image first
# --------------------------
# Before you measure a hundred images, see whether the directions of one are right. Each hue is a
# direction. Follow a few wires by eye, and compare their colours with the rim of the rose, which is
# the legend. The paler the colour, the more the directions vary within a few pixels. Outlines
# surround regions of aligned windows.
figure, ax = plt.subplots(figsize=(8.6, 3.5), layout="constrained")
OrientationDisplay.from_image(paths[3], pixel_size=4.0, window="128nm", ax=ax)
figure.suptitle("Directions and aligned regions of one sample")
plt.show()

# %%
# 3. Choose the window and the tolerance
# --------------------------------------
# The image is divided into windows. A window is aligned if its directions vary by less than the
# tolerance. The aligned fraction has no meaning without the window and the tolerance: report them
# with it, and never compare fractions that were measured with different ones. A window with a
# single wire nearly always counts as aligned, so make windows several wires wide, and at least as
# long as the straight parts of a wire. Angles are counter-clockwise from the horizontal, from 0° to
# 180°: in degrees in tables (``direction_deg``), in radians in maps and in Python.
for window in (8, 16, 32, 64):
    fraction = AlignmentRecipe(window=window).find(paths[0]).aligned.fraction
    print(f"window of {window} pixels: {fraction:.2f} of a sample without aligned domains")

# %%
# The wires are 7 pixels wide. Windows of 8 and 16 pixels contain one or two of them, so they often
# count as aligned where no domain is. In windows of 32 pixels, a few wires are sometimes parallel
# by chance. In windows of 64 pixels they hardly ever are, but such windows are too coarse for small
# domains. We use 32 pixels, which are 128 nm.
#
# 4. Measure all images
# ---------------------
# A recipe holds all choices, so that every image is measured in the same way. The mean direction
# and the order parameter (0 for random directions, 1 for parallel ones) have intervals.
recipe = AlignmentRecipe(window="128nm", tolerance=np.deg2rad(20), pixel_size=4.0)
results = [recipe.find(path) for path in paths]
table = [("image", "aligned", "direction", "order", "low", "high")]
for path, result in zip(paths, results, strict=True):
    found = result.statistics
    interval = found.order_interval
    numbers = (result.aligned.fraction, np.rad2deg(found.mean), found.order)
    values = (*numbers, interval.low, interval.high)
    table.append((path.name, *(f"{value:.2f}" for value in values)))
with (folder / "alignment.csv").open("w", newline="") as stream:
    csv.writer(stream).writerows(table)
for row in table:
    print(*(f"{cell:>11}" for cell in row))

# %%
# .. code-block:: console
#
#    $ hypervlad align wires/ -o directions/ --window 128nm --pixel-size 4
#
# The command writes this table with more columns, a table of regions, maps of directions, and a
# figure for each image. The mean direction of a sample without order means nothing, so look at
# the order first.
#
# 5. Can the numbers be trusted?
# ------------------------------
# With synthetic images, the true directions are known. If you measure some that resemble yours,
# with the same wire width, density and noise, you know the error to expect.
measured = np.array([result.aligned.fraction for result in results])
true = np.array([truth.aligned_fraction(window=32).fraction for truth in truths])
noisy = []
for number, aligned in enumerate(np.linspace(0, 1, 6)):
    (image,), _ = hypervlad.make_fibre_images(
        1,
        aligned=aligned,
        cover=0.55,
        diameter=7,
        look="round",
        contrast_to_noise=1.5,
        random_state=number,
    )
    noisy.append(AlignmentRecipe(window=32).find(image).aligned.fraction)
print(f"mean error with little noise: {np.abs(measured - true).mean():.3f}")
print(f"mean error with as much noise as contrast: {np.abs(noisy - true).mean():.3f}")

# %%
# 6. The result
# -------------
# The left panel compares the measured with the true fraction: points on the line are right. The
# right panel shows the order parameter of each sample with its 95 % interval. Sample 5 has the
# largest aligned fraction but not the largest order, because its domains have different
# directions.
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 4), layout="constrained")
left.plot([0, 1], [0, 1], color="0.6", linewidth=1)
left.plot(true, measured, "o", color="tab:blue", label="signal-to-noise ratio 8")
left.plot(true, noisy, "s", color="tab:orange", fillstyle="none", label="signal-to-noise ratio 1")
left.set(xlabel="true aligned fraction", ylabel="measured aligned fraction", aspect="equal")
left.set_title("Aligned fraction")
left.legend(frameon=False, fontsize=9)
orders = np.array([result.statistics.order for result in results])
limits = [result.statistics.order_interval for result in results]
below = orders - [limit.low for limit in limits]
above = [limit.high for limit in limits] - orders
right.errorbar(range(6), orders, yerr=(below, above), fmt="o", color="tab:blue", capsize=4)
right.set(xlabel="sample", ylabel="order parameter", ylim=(0, 1))
right.set_title("Order, with 95 % intervals")
figure.suptitle("Alignment of six samples of nanowires")
plt.show()

# %%
# If the result looks bad
# -----------------------
# - *Colours do not follow the wires*: wires much wider than 10 pixels have two edges with an empty
#   middle; give a larger ``sigma``, or downsample the image. Charging and scan lines have
#   directions, too: cut them off or mask them.
# - *Everything is aligned*: the window is too small. *Nothing is*: it spans several domains, or
#   the tolerance is too strict.
# - *The images are noisy*: the measured fraction of well-aligned samples is too low. A trained
#   :class:`~hypervlad.AlignmentClassifier` had half the error on noisy synthetic wires
#   (:doc:`/benchmarks/alignment`):
#   ``hypervlad align-train wires/ --masks aligned/ -o alignment.hvlad``,
#   then ``hypervlad align wires/ --model alignment.hvlad -o directions/``.
# - *The order and the fraction disagree*: they answer different questions. The fraction says how
#   much is aligned locally, the order whether the whole image has one direction.
