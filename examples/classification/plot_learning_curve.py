"""
How many images do I need?
==========================

A learning curve answers this for your own images: train on a part of them, test on the others,
and repeat with larger parts. If the curve still rises at its end, more images help.
"""

# %%
# All images are encoded once, with one codebook, which is learned without labels. Only the learner
# is fitted again for each part; it is that of :class:`~hypervlad.MicrographClassifier`.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import StratifiedShuffleSplit, cross_val_score

from hypervlad import BoostedSoftmaxClassifier, default_encoder, make_tem_images

images, labels = make_tem_images(280, size=96, random_state=0)
encoder = default_encoder(n_codewords=16, random_state=0)
vectors = encoder.fit_transform(images)

# %%
# Five random splits for each number of training images, always with 80 test images. Trees are left
# out: they hardly ever help with so few images.

learner = BoostedSoftmaxClassifier(n_estimators=0, random_state=0)
blocks = list(encoder.feature_blocks.values())  # each block of columns has its own linear part
numbers = [3, 6, 12, 25, 50]  # per class
scores = []
for n in numbers:
    splits = StratifiedShuffleSplit(5, train_size=4 * n, test_size=80, random_state=0)
    params = {"blocks": blocks}
    scores.append(cross_val_score(learner, vectors, labels, cv=splits, params=params))
    print(f"{n:2d} images per class: accuracy {np.mean(scores[-1]):.2f}")

# %%
# Each dot is a split; the line is their mean.

figure, ax = plt.subplots(figsize=(8, 4.5), layout="constrained")
for n, each in zip(numbers, scores, strict=True):
    ax.plot([n] * 5, each, "o", color="tab:blue", alpha=0.4)
ax.plot(numbers, np.mean(scores, axis=1), color="tab:blue", label="mean of five splits")
ax.axhline(0.25, color="grey", linestyle="--", label="chance")
ax.set(xscale="log", xlabel="training images per class", ylabel="accuracy", ylim=(0, 1))
ax.set_xticks(numbers, labels=numbers)
ax.minorticks_off()
ax.legend(loc="lower right")
ax.set_title("Accuracy on test images against the number of training images")
plt.show()

# %%
# Here the accuracy still grows at 50 images per class. If your images come in groups, such as
# samples, split by group (:doc:`/howto/groups`): further samples help more than further images of
# one. Advice for small sets is on the page :doc:`/howto/few_images`.
