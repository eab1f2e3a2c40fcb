"""
Find defects without labelled defects
=====================================

Defects are rare and of many kinds, and usually nobody has drawn masks of them. Defect-free images
are easy to get. At the end of this tutorial, a model of defect-free images shows where new images
differ from them, and you know what kinds of defects it finds and how often it raises a false alarm.
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
# yours. With your own images, keep the imports, and set ``good``, ``spare`` and ``new`` to lists
# of their paths, and leave out everything that uses ``masks``.
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import hypervlad
from hypervlad.data import IMAGE_DEFECTS, add_defect
from hypervlad.results import DefectMapDisplay

temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)


def write(images, name):
    """Write images as 8-bit files into a folder, and return their paths."""
    (folder / name).mkdir()
    paths = [folder / name / f"{name}{number:02d}.png" for number in range(len(images))]
    for image, path in zip(images, paths, strict=True):
        Image.fromarray(np.uint8(255 * image)).save(path)
    return paths


mats, _ = hypervlad.make_nanofibre_images(52, defective=0, size=(174, 256), random_state=0)
good = write(mats[:40], "good")
spare = write(mats[40:], "spare")  # defect-free images that the model will not be trained on
unknown, masks = hypervlad.make_nanofibre_images(16, defective=0.5, size=(174, 256), random_state=5)
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
print(f"{held_out.n_images_above(scorer.threshold_)} of {len(good)} training images reach it:")
for position in np.argsort(-held_out.scores)[:3]:
    print(f"  {good[held_out.images[position]].name}: score {held_out.scores[position]:.2f}")

# %%
# .. code-block:: console
#
#    $ hypervlad defects fit good/ --rule fpr=0.1 -o mat.hvlad
#
# Look at the images that are listed. If one has a defect after all, remove it and train again,
# because it raises the threshold. If one is unusual but free of defects, add more images like it,
# so that the model accepts them.
#
# 3. Add known defects
# --------------------
# Without defective images you cannot measure how many defects are found. But you can add known
# defects to images that the model has not been trained on. ``add_defect`` makes six kinds, at
# random places, from subtle to strong. The table shows which kinds the model detects on your
# surface.
clean = scorer.score_samples(spare)
n_false = int((clean >= scorer.threshold_).sum())
print(f"no defect: {n_false} of {len(spare)} called anomalous")
for kind in IMAGE_DEFECTS:
    n_called = n_located = 0
    for seed, path in enumerate(spare):
        planted, mask = add_defect(hypervlad.read_image(path), kind, random_state=seed)
        found = scorer.find(planted)
        n_called += found.is_defective
        n_located += mask[np.unravel_index(found.map.argmax(), mask.shape)]
    print(f"{kind}: {n_called} of {len(spare)} called anomalous, {n_located} located")

# %%
# A defect is located if the highest score of the map lies in it. (For gradients this says little:
# each covers about a quarter of an image.) Read this table before you use the model. Kinds that
# raise no more alarms than images without a defect will not be found in your images either. Here
# that is true of most kinds: the crossing fibres differ from image to image, and the model notices
# half of the blurred areas, but no scratch of a pixel's width, no stain and no pit.
# :doc:`/benchmarks/defects` has such figures for other surfaces.
#
# 4. Score new images
# -------------------
# ``find`` returns the score of an image, the map of scores, and the regions that reach the
# threshold if the image does. Regions are larger than the defects: they show where to look, and do
# not measure areas.
findings = [scorer.find(path) for path in new]
for path, found in zip(new, findings, strict=True):
    if found.is_defective:
        region = found.regions[0]
        print(f"{path.name}: score {found.score:.2f}, at row {region.row}, column {region.column}")

# %%
# .. code-block:: console
#
#    $ hypervlad defects score mat.hvlad new/ -o found/
#
# The command writes maps, masks, overlays and tables, and a page on which you can move the
# threshold and see what changes.
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
# outlines show what was found, blue ones the true defects. Holes and other large defects stand out;
# small beads do not. Maps of images below the threshold are worth a look, too: the brightest place
# may be a defect, although the image's score is too low for an alarm.
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
