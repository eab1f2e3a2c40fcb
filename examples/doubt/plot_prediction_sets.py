"""
Which classes are possible?
===========================

A prediction set lists the classes that an image may belong to. The true class is in a requested
share of the sets, here in 90 %. The bars are the probabilities of eight new images, and the classes
in the set are shaded. Look at the images with more than one possible class.
"""

# %%
# Train on 120 images, and ask for the sets of 60 others.

import matplotlib.pyplot as plt
import numpy as np

from hypervlad import MicrographClassifier, make_tem_images

images, labels = make_tem_images(180, size=128, random_state=5)
train, new = slice(0, 120), slice(120, None)
model = MicrographClassifier(random_state=0).fit(images[train], labels[train])
found = model.classify(images[new], coverage=0.9)

# %%
# How often is the true class in the set, and how many classes does a set have?

codes = np.searchsorted(model.classes_, labels[new])
sizes = found.sets.sum(axis=1)
print(f"the true class is in {found.sets[np.arange(60), codes].sum()} of 60 sets")
for size in range(1, 5):
    print(f"classes in the set: {size}, images: {(sizes == size).sum()}")
print(f"{found.unlike_training.sum()} images are unlike the training images")

# %%
# Three images with a small set, and five with a large one.

order = np.argsort(sizes, kind="stable")
shown = [*order[:3], *order[-7:-2]]
figure, axes = plt.subplots(4, 4, figsize=(9, 5.4), layout="constrained")
for i, (left, right) in zip(shown, axes.reshape(8, 2), strict=True):
    left.imshow(images[new][i], cmap="gray")
    left.axis("off")
    right.barh(model.classes_, 1, color=np.where(found.sets[i], "#cfe0f0", "white"))
    right.barh(model.classes_, found.proba[i], 0.45, color="tab:blue")
    right.set(xlim=(0, 1), xticks=[])
    right.invert_yaxis()
    right.tick_params(left=False, labelsize=9)
    right.get_yticklabels()[codes[i]].set_fontweight("bold")
    right.spines[["top", "right", "bottom"]].set_visible(False)
figure.suptitle("Probability of each class, from 0 to 1; shaded: in the set; bold: true")
plt.show()

# %%
# Most sets have one class, and about nine of ten contain the true one, as requested. An image
# unlike the training images has all classes in its set, however high one probability is. Let a
# person look at images with several possible classes. What is guaranteed is described in
# :meth:`~hypervlad.MicrographClassifier.predict_set`.
