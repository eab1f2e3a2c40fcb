"""
Can I trust a confidence of 90 %?
=================================

Of the answers with a confidence of about 90 %, nine of ten should be right. The left diagram checks
this on new images like the training images, the right one on the same images with noise added. Look
at how far the dots are from the diagonal.
"""

# %%
# Half of 240 synthetic TEM images are for training. ``calibrate=False`` saves time by leaving
# out held-out predictions, which are not needed here.

import matplotlib.pyplot as plt
import numpy as np

from hypervlad import MicrographClassifier, default_encoder, make_tem_images
from hypervlad.results import ReliabilityDisplay

images, labels = make_tem_images(240, size=96, random_state=0)
train, new = slice(0, 120), slice(120, None)
encoder = default_encoder(n_codewords=32)
model = MicrographClassifier(encoder, calibrate=False, random_state=0).fit(
    images[train], labels[train]
)

# %%
# A dot is the share of right answers among those with a confidence in one range. The vertical line
# is its 95 % interval, which is wide where there are few images. Their number is above the diagram.

rng = np.random.default_rng(0)
cases = {
    "like the training images": images[new],
    "with noise added": [(x + rng.normal(0, 0.1, x.shape)).clip(0, 1) for x in images[new]],
}
figure, axes = plt.subplots(1, 2, figsize=(9, 4.7), layout="constrained")
for ax, (name, shown) in zip(axes, cases.items(), strict=True):
    found = model.classify(shown)
    ReliabilityDisplay.from_predictions(labels[new], found.proba, classes=model.classes_, ax=ax)
    ax.set_title(name, pad=22)
    right = model.classes_[found.proba.argmax(axis=1)] == labels[new]
    print(f"{name}: mean confidence {found.proba.max(axis=1).mean():.0%}, {right.mean():.0%} right")
    print(f"  {found.unlike_training.mean():.0%} reported as unlike all training images")
figure.suptitle("Confidence and share of correct predictions")
plt.show()

# %%
# Probabilities hold for images like the training images, not for other conditions or another
# instrument. Here the model reports nearly all noisy images as unlike the training images, so check
# ``unlike_training`` first. What a probability promises, and how often the flag fails, is on the
# page :doc:`/explanation/doubt`.
