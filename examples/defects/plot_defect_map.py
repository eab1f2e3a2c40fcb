"""
Where is the defect?
====================

A scorer learns from defect-free images alone how nanofibre mats look, and scores every position of
new images: the brighter the map, the more unusual the position. Blue outlines are true defects,
orange ones what was found. Each image shows a different mat, which makes the task hard: not all
defects are found.
"""

# %%
# With ``fpr=0.2``, one in five defect-free images may be called anomalous: more than you would
# accept every day, but here we want to see maps.
import matplotlib.pyplot as plt

from hypervlad import PatchDefectScorer, make_nanofibre_images
from hypervlad.results import DefectMapDisplay

good, _ = make_nanofibre_images(25, defective=0, size=192, random_state=0)
scorer = PatchDefectScorer(fpr=0.2, random_state=0).fit(good)

# %%
# Three of the four new images have defects. ``find`` returns the regions that stand out in the
# images called anomalous.
new, masks = make_nanofibre_images(4, defective=0.75, size=192, random_state=6)
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
# Use the regions to see where to look, not to measure defects; :doc:`/howto/defect_thresholds`
# explains how to choose the threshold.
