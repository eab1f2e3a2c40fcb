"""
What happens if a micrograph is on both sides of a split?
=========================================================

Crops of one micrograph look alike. If some are used for training and others for the test, the model
can recognise the micrograph instead of the class, and the accuracy is too high. Compare the bars of
the two splits. On the right, the labels are random: nothing can be learned, and only the split by
micrograph shows it.
"""

# %%
# Forty micrographs of four classes, and four overlapping crops of each. All crops of a micrograph
# have the same label, even if the labels are random.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_score

from hypervlad import BoostedSoftmaxClassifier, HypercolumnVLAD, make_tem_images

micrographs, classes = make_tem_images(40, size=224, random_state=0)
crops = [
    image[top : top + 160, left : left + 160]
    for image in micrographs
    for top in (0, 64)
    for left in (0, 64)
]
groups = np.repeat(np.arange(40), 4)
targets = {
    "true classes": np.repeat(classes, 4),
    "random labels": np.repeat(np.random.default_rng(0).permutation(classes), 4),
}

# %%
# The crops are encoded once: the codebook does not use the labels. Then the same learner is tested
# with both splits.

vectors = HypercolumnVLAD(n_codewords=32, random_state=0).fit_transform(crops)
learner = BoostedSoftmaxClassifier(n_estimators=0, random_state=0)
scores = {}
for name, y in targets.items():
    random = StratifiedKFold(5, shuffle=True, random_state=0)
    whole = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    found = cross_val_score(learner, vectors, y, cv=random)
    scores[name, "random split"] = found.mean()
    found = cross_val_score(learner, vectors, y, cv=whole, groups=groups, params={"groups": groups})
    scores[name, "split by micrograph"] = found.mean()
for key, score in scores.items():
    print(f"{', '.join(key)}: accuracy {score:.2f}")

# %%
figure, ax = plt.subplots(figsize=(8, 4.5), layout="constrained")
for split, offset, colour in (
    ("random split", -0.2, "tab:orange"),
    ("split by micrograph", 0.2, "tab:blue"),
):
    heights = [scores[name, split] for name in targets]
    bars = ax.bar(np.arange(2) + offset, heights, 0.36, color=colour, label=split)
    ax.bar_label(bars, fmt="{:.2f}", label_type="center", color="white", fontsize=12)
ax.axhline(0.25, color="grey", linestyle="--", zorder=0, label="chance")
ax.set_xticks([0, 1], labels=list(targets))
ax.set(ylim=(0, 1.25), yticks=[0, 0.25, 0.5, 0.75, 1], ylabel="accuracy in cross-validation")
ax.legend(loc="upper center", ncols=3)
ax.set_title("160 crops of 40 micrographs, split in two ways")
plt.show()

# %%
# The random split promises an almost perfect accuracy; on new micrographs it is far lower. With
# random labels it promises nearly as much, although there is nothing to learn. Pass the groups
# (micrograph, sample, paper) to ``fit`` and to your own evaluation: :doc:`/howto/groups` shows how.
