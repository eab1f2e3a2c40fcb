"""
Where is the defect?
====================

A scorer learns from defect-free images alone how nanofibre mats look, and scores every position of
new images: the brighter the map, the more unusual the position. Blue outlines are true defects,
orange ones the regions that were found. Each image shows a different mat, which makes the task
hard: not all defects are found.
"""

# %%
# No more than one in twenty defect-free images may be called anomalous (``fpr=0.05``, the default).
# ``n_planted=0`` saves the time in which detection limits would be measured.
import matplotlib.pyplot as plt
import numpy as np

from hypervlad import PatchDefectScorer, add_defect, make_fibre_images
from hypervlad.results import DefectMapDisplay

size = (174, 256)
mats, _ = make_fibre_images(29, diameter=7, cover=0.8, size=size, random_state=0)
scorer = PatchDefectScorer(n_planted=0, random_state=0).fit(mats[:25])

# %%
# Three of the four new images have defects, two opaque films and a blurred area. ``find`` returns
# the regions that stand out in an image that is called anomalous. A region ends half-way between
# its peak and the usual score.
new, masks = mats[25:], [np.zeros(size, bool)] * 4
for number, kind in enumerate(["film", "blur", "film"]):
    new[number], masks[number] = add_defect(new[number], kind, random_state=number)
for number, (image, mask) in enumerate(zip(new, masks, strict=True)):
    found = scorer.find(image)
    share = f"{found.mask[mask].mean():.0%} of the defects" if mask.any() else "no defects"
    print(f"image {number}: {share}, {len(found.regions)} regions found")
    for region in found.regions:
        print(f"    at row {region.row}, column {region.column}, score {region.score:.1f}")

# %%
# The captions give the defective share of the area, and in brackets the difference between the
# found and the true share, in percentage points.
DefectMapDisplay.from_estimator(scorer, new, masks=masks)
plt.suptitle("Synthetic nanofibre mats, and the maps of their defect scores")
plt.show()

# %%
# :doc:`/howto/defect_thresholds` explains how to choose the threshold, and which areas may be
# reported.
