"""
Find defects without labelled defects
=====================================

Defects are rare and of many kinds, and usually nobody has drawn masks of them. Defect-free images
are easy to get. At the end of this tutorial, a model of defect-free images shows where new images
differ from them, and you know what defects it finds and how often it raises a false alarm.
"""

# %%
# 1. Collect defect-free images
# -----------------------------
# The model learns what is usual, so every image must be of the same kind of surface, at the same
# magnification, and free of defects. Include the whole range that counts as good: dense and sparse
# places, several samples, several days. Take 40 images or more if you can: the default rate of
# false alarms, 5 %, needs at least 19.
#
# Here we write synthetic SEM images of nanofibre mats into a temporary folder that stands in for
# yours. With your own images, keep the imports, set ``good`` and ``new`` to lists of their paths,
# and leave out everything that uses ``masks``.
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import hypervlad
from hypervlad.results import DefectMapDisplay, DetectionLimitsDisplay

temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)


def write(images, name):
    """Write images as 8-bit files into a folder, and return their paths."""
    (folder / name).mkdir()
    paths = [folder / name / f"{name}{number:02d}.png" for number in range(len(images))]
    for image, path in zip(images, paths, strict=True):
        Image.fromarray(np.uint8(255 * image)).save(path)
    return paths


mats, _ = hypervlad.make_fibre_images(56, diameter=7, cover=0.8, size=(174, 256), random_state=0)
good = write(mats[:40], "good")
unknown, masks = mats[40:], [np.zeros((174, 256), bool)] * 16
for number, kind in enumerate(["film", "film", "blur", "stain"] * 2):
    defective = hypervlad.add_defect(unknown[number], kind, random_state=number)
    unknown[number], masks[number] = defective
new = write(unknown, "new")

# %%
# 2. Train, and look at the worst training images
# -----------------------------------------------
# Each training image is also scored by a model that was trained without it. The threshold follows
# from these scores: with ``fpr=0.1``, about one in ten defect-free images of this kind may be
# called anomalous.
scorer = hypervlad.PatchDefectScorer(fpr=0.1, random_state=0).fit(good)
scorer.save(folder / "mat.hvlad")
held_out = scorer.held_out_
print(f"threshold {scorer.threshold_:.2f}")
n_above = held_out.n_images_above(scorer.threshold_)
share = held_out.share_above(scorer.threshold_)
print(f"{n_above} of {len(good)} training images reach it ({share}):")
for position in np.argsort(-held_out.scores)[:3]:
    print(f"  {good[held_out.images[position]].name}: score {held_out.scores[position]:.2f}")

# %%
# .. code-block:: console
#
#    $ hypervlad defects fit good/ --set fpr=0.1 -o mat.hvlad
#
# Look at the images that are listed. If one has a defect after all, remove it and train again,
# because it raises the threshold. If one is unusual but free of defects, add more images like it,
# so that the model accepts them.
#
# 3. What would it miss?
# ----------------------
# Without defective images you cannot measure how many defects are found. So ``fit`` makes some: it
# puts synthetic spots, scratches and stains, from small and faint to large and strong, on images
# that were held out, and counts those that are found. A defect is found if its image is called
# anomalous and a region lies on it.
for contrast in (0.2, 0.5):
    print(f"of defects that change grey levels by {contrast:.0%} of the range from black to white:")
    for kind, text in scorer.limits_.sentences(contrast).items():
        print(f"  {kind}: {text}")
DetectionLimitsDisplay.from_estimator(scorer)
plt.show()

# %%
# Above a line, nine in ten are found, and above a dashed line half; areas are in square pixels.
# Read these limits before you use the model. Fibres are bright on a dark ground themselves, and
# differ from image to image. Among them, most defects of 20 % contrast are missed, however large
# they are; of those of 50 %, more than half are found if they are large. On smoother surfaces,
# limits are lower (:doc:`/howto/defect_thresholds`). How to test other kinds, such as blurred
# areas, is shown in :doc:`/gallery/defects/plot_known_defects`, and :doc:`/benchmarks/defects` has
# figures for other surfaces.
#
# 4. Score new images
# -------------------
# ``find`` returns the score of an image, the map of scores, and, if the score reaches the
# threshold, the regions that stand out in the map. There is at least one, around the highest peak.
findings = [scorer.find(path) for path in new]
for path, found in zip(new, findings, strict=True):
    if found.is_defective:
        print(f"{path.name}: score {found.score:.2f}")
    for region in found.regions:
        print(f"    row {region.row}, column {region.column}: {region.area} px")

# %%
# .. code-block:: console
#
#    $ hypervlad defects score mat.hvlad new/ -o found/
#
# The command writes maps, masks, overlays and tables, and a page on which you can move the
# threshold and see what changes. Before you report an area, see :doc:`/howto/defect_thresholds`.
#
# For the synthetic images, the true defects are known, so we can count:
is_defective = np.array([mask.any() for mask in masks])
called = np.array([found.is_defective for found in findings])
print(f"defective images found: {(called & is_defective).sum()} of {is_defective.sum()}")
print(f"false alarms: {(called & ~is_defective).sum()} of {(~is_defective).sum()}")
located = [
    mask[np.unravel_index(found.map.argmax(), mask.shape)]
    for found, mask in zip(findings, masks, strict=True)
    if mask.any()
]
print(f"defective images with the highest score of the map in a defect: {sum(located)}")

# %%
# 5. Look at the maps
# -------------------
# These are the two defective images with the highest scores, and the two with the lowest. Orange
# outlines show what was found, blue ones the true defects. Opaque films stand out; stains do not.
# Maps of images below the threshold are worth a look, too: the brightest place may be a defect,
# although the image's score is too low for an alarm.
scores = np.array([found.score for found in findings])
order = [i for i in np.argsort(-scores) if is_defective[i]]
shown = [*order[:2], *order[-2:]]
figure, ax = plt.subplots(figsize=(8, 4.9), layout="constrained")
DefectMapDisplay.from_estimator(
    scorer,
    [new[i] for i in shown],
    masks=[masks[i] for i in shown],
    names=[f"{new[i].name}, score {scores[i]:.2f}" for i in shown],
    ax=ax,
)
figure.suptitle("Defective images with the highest and the lowest scores")
plt.show()

# %%
# If the result looks bad
# -----------------------
# - *Too many false alarms*: the training images do not cover all that counts as good, or the new
#   images were recorded with other settings. Add defect-free images to the training images, above
#   all those that were called anomalous.
# - *Defects are missed, but are bright in their maps*: lower the threshold with
#   ``scorer.set_threshold`` or a larger ``fpr``, and accept more false alarms. To decide which
#   images to look at first, you need no threshold: sort by score (:doc:`/howto/defect_thresholds`).
# - *Defects are invisible in the maps*: they may be too small or too faint for the image's size.
#   Record them at a higher magnification, or draw masks for a few dozen images: ``fit(images,
#   masks=masks)`` learns from both, but may miss kinds of defects that no mask shows
#   (:doc:`/howto/defect_thresholds`).
# - *Defects occur at particular places of a part*: if all images show the part in the same
#   position, use ``aligned=True``.
