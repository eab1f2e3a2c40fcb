"""
Which defects would my scorer find?
===================================

A scorer measures this itself: ``fit`` puts synthetic spots, scratches and stains on held-out
images, and looks for them. For other kinds, :func:`hypervlad.add_defect` adds known defects to
defect-free images. In the lower panel of the second figure, each point is an image, and those that
reach the threshold are orange: some kinds of defects are mostly missed.
"""

# %%
# All images show mats of equally thick fibres. The scorer is trained on half of them.
import matplotlib.pyplot as plt
import numpy as np

from hypervlad import PatchDefectScorer, make_fibre_images
from hypervlad.data import IMAGE_DEFECTS, add_defect
from hypervlad.results import DetectionLimitsDisplay

images, _ = make_fibre_images(50, diameter=6, cover=0.8, size=160, random_state=0)
good, test = images[:25], images[25:]
scorer = PatchDefectScorer(random_state=0).fit(good)

# %%
# Above a line, nine in ten defects are found, and above a dashed line half. What is bright itself,
# as fibres are, hides bright spots and stains.
DetectionLimitsDisplay.from_estimator(scorer)
plt.show()

# %%
# Each of the seven kinds of ``add_defect`` is added once to each of the other images.
examples, scores = {}, {"no defect": scorer.score_samples(test)}
for kind in IMAGE_DEFECTS:
    changed = [add_defect(image, kind, random_state=seed) for seed, image in enumerate(test)]
    examples[kind] = changed[0]
    scores[kind] = scorer.score_samples([image for image, mask in changed])
for kind, values in scores.items():
    n_found = np.sum(values >= scorer.threshold_)
    print(f"{kind}: {n_found} of {len(values)} called anomalous")

# %%
# An opaque film stands out among fibres. Scratches and stains are of the kind of the fibres
# themselves, and are mostly missed.
figure = plt.figure(figsize=(8, 5), layout="constrained")
top, bottom = figure.subfigures(2, 1, height_ratios=(1, 2))
for ax, (kind, (image, mask)) in zip(top.subplots(1, 7), examples.items(), strict=True):
    ax.imshow(image, cmap="gray", vmin=0, vmax=1)
    ax.contour(mask, [0.5], colors="tab:orange", linewidths=1)
    ax.set_title(kind, size=10)
    ax.set_axis_off()

ax = bottom.subplots()
rng = np.random.default_rng(0)
for row, values in enumerate(scores.values()):
    is_found = values >= scorer.threshold_
    y = row + rng.uniform(-0.2, 0.2, len(values))
    ax.scatter(values, y, s=16, c=np.where(is_found, "tab:orange", "tab:blue"))
    ax.text(1.01, row, f"{is_found.mean():.0%}", transform=ax.get_yaxis_transform(), va="center")
ax.axvline(scorer.threshold_, color="black", ls=":", label="threshold for fpr=0.05")
ax.set_yticks(range(len(scores)), list(scores))
ax.invert_yaxis()
ax.set(
    xlabel="score of the image",
    title="Scores by kind of defect (right: share of images called anomalous)",
)
ax.legend()
plt.show()

# %%
# Do the same with your own images, and do not rely on a scorer for kinds of defects that it misses;
# the :doc:`benchmarks </benchmarks/defects>` show which kinds are found on other surfaces.
