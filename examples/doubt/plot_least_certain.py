"""
Which images should a person look at?
=====================================

A model that was trained on 60 labelled images classifies 60 others. The least certain answers come
first. Look at the crosses: errors are more frequent here than elsewhere, but confident errors are
not among them.
"""

# %%
# The true labels of the new images are known here; the model does not use them.

import matplotlib.pyplot as plt
import numpy as np

from hypervlad import MicrographClassifier, make_tem_images
from hypervlad.results import ContactSheetDisplay

images, labels = make_tem_images(120, size=128, random_state=1)
train, new = slice(0, 60), slice(60, None)
model = MicrographClassifier(random_state=0).fit(images[train], labels[train])
proba = model.predict_proba(images[new])

# %%
# How many of all errors are among the 12 least certain answers?

wrong = model.classes_[proba.argmax(axis=1)] != labels[new]
first = np.argsort(proba.max(axis=1))[:12]
print(
    f"{wrong.sum()} of {len(wrong)} answers are wrong, {wrong[first].sum()} of the 12 least certain"
)

# %%
# The same 12 images, with the predicted class, its probability, and the true class.

display = ContactSheetDisplay.from_predictions(
    images[new],
    proba,
    classes=model.classes_,
    y_true=labels[new],
    n_images=12,
    names=[f"image {i}" for i in range(60, 120)],
)
display.figure_.suptitle("The 12 least certain of 60 answers")
plt.show()

# %%
# About half of these 12 answers are wrong, and about a fifth of the other 48. A person who looks at
# a fifth of the images thus finds two fifths of the errors. The tutorial :doc:`/learn/plot_4_label`
# shows how to label such images in the browser and train again.
