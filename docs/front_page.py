"""The picture of the front page: answers for four images, a defect map, and directions of fibres.

python docs/front_page.py
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from hypervlad import (
    MicrographClassifier,
    PatchDefectScorer,
    add_defect,
    make_fibre_images,
    make_tem_images,
)
from hypervlad.fibres import aligned_fraction

WORDS = {"sure": "sure", "ambiguous": "not sure", "out_of_distribution": "unlike training"}
COLOURS = {"sure": "#2e7d32", "ambiguous": "#b26a00", "out_of_distribution": "#c62828"}

images, labels = make_tem_images(160, random_state=0)
model = MicrographClassifier(random_state=0).fit(images[:120], labels[:120])
new = [*images[120:], np.random.default_rng(0).normal(0.5, 0.1, (224, 224)).clip(0, 1)]
found = model.classify(new, max_error=0.1)
kinds, truth = np.asarray(found.judgement.kind), np.append(labels[120:], "none, it is noise")
answers = model.classes_[found.proba.argmax(axis=1)]
sure = [
    np.flatnonzero((kinds == "sure") & (answers == truth) & (truth == name))[0]
    for name in ("matrix", "cluster")
]
shown = [*sure, np.flatnonzero((kinds == "ambiguous") & (answers != truth))[0], len(new) - 1]

figure = plt.figure(figsize=(12, 6.4), layout="constrained")
top, bottom = figure.subfigures(2, 1, height_ratios=[1.32, 1], hspace=0.03)
top.suptitle("Which class is it, and is the answer sure?", fontweight="bold")
axes = top.subplots(2, 4, height_ratios=[2.4, 1])
for (picture, bars), i in zip(axes.T, shown, strict=True):
    kind = kinds[i]
    picture.imshow(new[i], cmap="gray", vmin=0, vmax=1)
    picture.set_axis_off()
    picture.set_title(WORDS[kind], color=COLOURS[kind], fontweight="bold")
    bars.barh(model.classes_, found.proba[i], color=COLOURS[kind])
    bars.set(xlim=(0, 1), xticks=[], xlabel=f"true class: {truth[i]}")
    bars.invert_yaxis()
    bars.spines[["top", "right", "bottom"]].set_visible(False)
    bars.tick_params(axis="y", length=0)
    for row, p in enumerate(found.proba[i]):
        bars.text(p + 0.02, row, f"{p:.0%}", va="center", fontsize=9)

mats, _ = make_fibre_images(26, diameter=7, cover=0.8, size=(348, 512), random_state=0)
scorer = PatchDefectScorer(n_planted=0, random_state=0).fit(mats[:25])
mat, _ = add_defect(mats[25], "film", random_state=6)
scores = scorer.score_map(mat)
(wires,), _ = make_fibre_images(1, aligned=0.6, diameter=7, cover=0.5, random_state=3)
directions = aligned_fraction(wires, window=32)

left, right = bottom.subfigures(1, 2)
left.suptitle("Where is a defect? Learnt from defect-free images", fontweight="bold")
before, after = left.subplots(1, 2)
before.imshow(mat, cmap="gray")
after.imshow(mat, cmap="gray")
after.imshow(scores, cmap="inferno", alpha=0.65)
right.suptitle(f"How much is aligned? {directions.fraction:.0%} here", fontweight="bold")
first, second = right.subplots(1, 2)
first.imshow(wires, cmap="gray")
second.imshow(wires, cmap="gray")
extent = (0, wires.shape[1], wires.shape[0], 0)
regions = np.ma.masked_less(directions.labels, 1)
second.imshow(regions, cmap="tab20", alpha=0.55, extent=extent, interpolation="nearest")
for ax in (before, after, first, second):
    ax.set_axis_off()
figure.savefig(Path(__file__).with_suffix(".jpg"), dpi=110, pil_kwargs={"quality": 88})
