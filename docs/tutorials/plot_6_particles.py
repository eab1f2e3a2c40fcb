"""
Count and size the particles of a mixture
=========================================

Each image shows many particles of several kinds. How many of each kind are there, and how large are
they? This tutorial goes from a folder of images to a table of counts with intervals: it outlines
the particles, classifies each of them, counts them, and shows which outlines to check.
"""

# %%
# 1. Collect fields
# -----------------
# A *field* is an image in which all particles are counted. Choose fields at random, or in a regular
# grid, and not where particles are: empty fields count as well. Record all at the same
# magnification. Five fields are few; with 20, intervals become useful.
#
# Here we write synthetic SEM images of spheres, rods and cubes into a temporary folder that stands
# in for yours. Eight fields are for training, the other 24 are counted. With your own images, keep
# the imports, let ``paths`` list your files, and leave out everything that uses ``truths``.
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import hypervlad
from hypervlad.evaluation import matched_labels
from hypervlad.particles import cut_particles, find_in_images, find_particles
from hypervlad.results import ParticleDisplay, write_particles_page

kinds = ["cube", "rod", "sphere"]
images, truths = hypervlad.make_particle_fields(
    32,
    classes=kinds,
    n_particles=(2, 14),
    size=320,
    extent=(25, 70),
    touching=0.1,
    random_state=0,
)
temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)
(folder / "fields").mkdir()
paths = [folder / "fields" / f"field{number:02d}.png" for number in range(len(images))]
for image, path in zip(images, paths, strict=True):
    Image.fromarray(np.uint8(255 * image)).save(path)
training, new = slice(8), slice(8, None)

# %%
# 2. Outline the particles
# ------------------------
# ``find_particles`` needs no training: it finds what is brighter or darker than the background.
# Look at a few fields before you go on. Here, some
# particles that touch have one outline: they will be counted as one.
figure, axes = plt.subplots(1, 3, figsize=(9, 3.1), layout="constrained")
for path, ax in zip(paths[training], axes, strict=False):
    ParticleDisplay(path, find_particles(path), pixel_size=5.0).plot(ax)
figure.suptitle("Outlines without training")
plt.show()

# %%
# If particles are missed or joined, train a segmenter with outlines that you have drawn
# (:doc:`/howto/particles`), and use its method ``find_particles`` in place of ``find_particles``.
#
# ``find_in_images`` writes the outlines and measures of all fields into a folder. It stores the
# outlines as label images, which you can correct in Fiji or napari. The pixel size, here 5 nm, is
# read from the file if it contains one.
found, left_out = find_in_images(
    folder / "found", paths[new], find_particles, root=folder / "fields", pixel_size=5.0
)
print(f"{len(found.table)} particles in {len(found.fields)} fields, {len(left_out)} not read")

# %%
# .. code-block:: console
#
#    $ hypervlad particles find fields/ -o found/ --pixel-size 5
#
# 3. Train a classifier of particles
# ----------------------------------
# ``cut_particles`` makes an image of each particle, and a classifier learns from these as from any
# images. Here the classes are those of the true particles that the outlines match; outlines that
# match none are left out. Your own classes you write into a copy of ``particles.csv``, in a column
# ``class``; the command ``train`` reads that table.
particles, classes = [], []
for path, truth in zip(paths[training], truths[training], strict=True):
    outlines = find_particles(path)
    pairs, _ = matched_labels(truth.labels, outlines.label_image())
    class_of = {label: truth.classes[true - 1] for true, label in pairs}
    for particle in cut_particles(path, outlines):
        if particle.label in class_of:
            particles.append(particle)
            classes.append(class_of[particle.label])
classifier = hypervlad.MicrographClassifier(random_state=0).fit(particles, classes)
held_out = classifier.held_out_evaluation()
print(f"{len(particles)} particles to learn from")
print(f"held out, {held_out.accuracy:.0%} of them have the right class")

# %%
# .. code-block:: console
#
#    $ hypervlad train found/labels.csv -o classes.hvlad
#
# Particles of one field are held out together, so that figure is one for new fields. Which classes
# are confused with which also corrects the counts below.
#
# 4. Classify and count
# ---------------------
# ``count`` is the number of particles in the area of all fields. From ``low`` to ``high`` is the
# 95 % interval of what as large an area of the same sample contains on average.
found.classify(classifier)
result = found.count()
print(result.counts[["class", "count", "low", "high", "per_um2"]].round(1).to_string(index=False))

# %%
# .. code-block:: console
#
#    $ hypervlad particles classify classes.hvlad found/
#    $ hypervlad particles count found/ -o counts.csv
#
# The true numbers of these synthetic fields are known:
true_classes = np.concatenate([truth.classes for truth in truths[new]])
true_counts = [(true_classes == kind).sum() for kind in kinds]
for kind, count in zip(kinds, true_counts, strict=True):
    print(f"{kind}: {count}")
print(f"all: {sum(true_counts)}")

# %%
# All are within their intervals, but the total is a tenth too low: where particles touch, two were
# outlined as one. No interval contains such an error, which is why you have to look at outlines.
#
# 5. Sizes
# --------
# D50 is the median diameter, of particles (by number) or of their area (by area); a tenth is
# smaller than D10 and a tenth larger than D90. Diameters are those of discs of the same area.
columns = ["class", "by", "d10", "d50", "d50_low", "d50_high", "d90"]
print(result.sizes[columns].round().to_string(index=False))

# %%
# 6. Look at what was counted
# ---------------------------
# The page shows counts, sizes, all fields with their outlines, and the particles that you should
# check: the least certain, the smallest, the largest and the least convex. Wrong outlines are among
# them more often than elsewhere. Correct them, and count again.
page = write_particles_page(folder / "particles.html", found)
print(f"{page.name}: {page.stat().st_size / 1e6:.1f} MB")

# %%
# .. code-block:: console
#
#    $ hypervlad particles count found/ --page particles.html
#
# Here are one field and the counts beside the true ones.
shown = max(found.fields, key=lambda field: (found.table["micrograph"] == field.micrograph).sum())
rows = found.table[found.table["micrograph"] == shown.micrograph]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
ParticleDisplay(
    found.image(shown.micrograph),
    found.outlines(shown.micrograph),
    rows["class"].tolist(),
    class_names=kinds,
    pixel_size=shown.pixel_size,
).plot(left)
counts = result.counts.set_index("class").loc[kinds]
bars = [counts["count"] - counts["low"], counts["high"] - counts["count"]]
right.errorbar(
    kinds, counts["count"], yerr=bars, fmt="o", capsize=4, label="counted, 95 % interval"
)
right.plot(kinds, true_counts, "k_", markersize=24, markeredgewidth=2, label="true")
right.set(ylim=(0, None), xlim=(-0.5, 2.5), ylabel="particles in 24 fields")
right.legend(loc="lower right")
plt.show()

# %%
# If the result looks bad
# -----------------------
# - *Intervals are wide*: fields differ from each other more than chance explains. More fields help,
#   more particles per field hardly do.
# - *Counts are too low*: particles overlap or are too faint, and no interval tells. Train a
#   segmenter on outlines of such places, or count where particles are sparser.
# - *Classes are wrong*: first look whether the outlines are. A particle with half of its neighbour
#   in its outline has no right class.
# - *Only some particles count*, such as long fibres: ``found.count("length > 5 um and aspect_ratio
#   >= 3")``, see :py:func:`~hypervlad.particles.match_rule`.
