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

answers = model.classes_[proba.argmax(axis=1)]
captions = [
    [
        f"image {60 + i}",
        f"{'✗' if wrong[i] else '✓'} {answers[i]}, {proba[i].max():.0%}",
        f"true: {labels[60 + i]}",
    ]
    for i in first
]
colours = ["#b42318" if wrong[i] else "#1a7f37" for i in first]
shown = [images[60 + i] for i in first]
display = ContactSheetDisplay(shown, captions, colours=colours).plot()
display.figure_.suptitle("The 12 least certain of 60 answers")
plt.show()

# %%
# About half of these 12 answers are wrong, and about a fifth of the other 48. A person who looks at
# a fifth of the images thus finds two fifths of the errors. The tutorial :doc:`/learn/plot_4_label`
# shows how to label such images in the browser and train again.
