"""
What happens to images unlike the training images?
==================================================

A classifier names one of its classes for every image, even for noise, and often with a high
probability. The model therefore compares each image with its training images, and flags those that
are far from all of them. Look at the probabilities of the flagged images, and at what is not
flagged.
"""

# %%
# The model knows four classes of synthetic TEM images. ``calibrate=False`` leaves out held-out
# predictions, which the flag does not need.

import matplotlib.pyplot as plt
import numpy as np

from hypervlad import (
    MicrographClassifier,
    make_fibre_images,
    make_particle_fields,
    make_tem_images,
)
from hypervlad.results import ContactSheetDisplay

images, labels = make_tem_images(82, size=128, random_state=0)
model = MicrographClassifier(calibrate=False, random_state=0).fit(images[:80], labels[:80])

# %%
# Two new images of known classes, three images without content, and three of other specimens.

rng = np.random.default_rng(0)
new = {
    f"TEM, {labels[80]}": images[80],
    f"TEM, {labels[81]}": images[81],
    "noise": rng.normal(0.5, 0.1, (128, 128)).clip(0, 1),
    "empty": np.full((128, 128), 0.5),
    "uneven illumination": np.tile(np.linspace(0.3, 0.7, 128), (128, 1)),
    "SEM, mat of fibres": make_fibre_images(1, cover=0.8, size=128, random_state=0)[0][0],
    "SEM, few fibres": make_fibre_images(1, cover=0.2, size=128, random_state=0)[0][0],
    "SEM, particles": make_particle_fields(1, size=128, random_state=0)[0][0],
}
found = model.classify(list(new.values()))

# %%
# ``novelty`` is the distance of an image from the training images, divided by a limit. The captions
# give it in brackets; above 1, the image is flagged.

captions, colours = [], []
for name, p, novelty in zip(new, found.proba, found.novelty, strict=True):
    flag = "unlike training" if novelty > 1 else "like training"
    label = model.classes_[p.argmax()]
    captions.append([name, f"{flag} ({novelty:.2f})", f"{label}, {p.max():.0%}"])
    colours.append("tab:red" if novelty > 1 else "tab:green")
sheet = ContactSheetDisplay(list(new.values()), captions, colours=colours, n_columns=4).plot()
sheet.figure_.suptitle("What the model reports about eight images: flag, class and probability")
plt.show()

# %%
# How many of 20 further images of each kind are flagged?

many = {
    "TEM images like the training images": make_tem_images(20, size=128, random_state=1)[0],
    "mats of fibres": make_fibre_images(20, cover=0.8, size=128, random_state=1)[0],
    "few fibres": make_fibre_images(20, cover=0.2, size=128, random_state=1)[0],
    "particles": make_particle_fields(20, size=128, random_state=1)[0],
}
for name, others in many.items():
    print(f"{name}: {model.classify(others).unlike_training.sum()} of 20 flagged")

# %%
# Images without content are flagged. Images of other specimens may not be, although no class of the
# model has any: fibres resemble tubes. About 5 % of images like the training images are flagged
# too. So read ``unlike_training`` before you use a probability, and
# do not rely on it to find every image of another kind: see :doc:`/explanation/doubt`.
