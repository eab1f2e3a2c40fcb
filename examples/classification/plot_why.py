"""
Why did the model choose this class?
====================================

A model is trained on 80 labelled images and explains its answers for four others. Red positions
are evidence for the predicted class, blue ones against it. Check whether the red positions are
where you would look yourself.
"""

# %%
# Explanations need no held-out predictions. ``calibrate=False`` leaves them out and is faster.

import matplotlib.pyplot as plt

from hypervlad import MicrographClassifier, make_tem_images
from hypervlad.results import EvidenceDisplay

images, labels = make_tem_images(96, random_state=1)
train, new = slice(0, 80), slice(80, None)
model = MicrographClassifier(calibrate=False, random_state=0).fit(images[train], labels[train])

# %%
# :meth:`~hypervlad.MicrographClassifier.explain` splits the margin of each class into a
# contribution of each position. The split is exact: the map, the bias of the class and the trees,
# if there are any, add up to the margin.

explanation = model.explain(images[80])
print(explanation)

# %%
# One new image of each class. The numbers beneath a map are log-odds.

shown = [list(labels).index(name, new.start) for name in model.classes_]
display = EvidenceDisplay.from_estimator(
    model,
    [images[i] for i in shown],
    y_true=labels[shown],
    names=[f"image {i}" for i in shown],
)
display.figure_.suptitle("Evidence for the predicted class, by position")
plt.show()

# %%
# Networks pad images with zeros, so borders and corners may have evidence of their own. If the
# evidence lies on the support film or the information bar, the model has learned something other
# than the specimen: vary it among the training images, or remove it. The figure is described in
# :class:`~hypervlad.results.EvidenceDisplay`.
