"""
Which images should a person look at?
=====================================

A model is trained on a few labelled images and classifies others. The least certain answers come
first: most errors are among them, and labelling them improves the model most.
"""

import argparse

import matplotlib

matplotlib.use("Agg")

from hypervlad import MicrographClassifier, make_tem_images
from hypervlad.displays import ContactSheetDisplay

parser = argparse.ArgumentParser()
parser.add_argument("--out", default="least_certain.png")
out = parser.parse_args().out

images, labels = make_tem_images(120, random_state=1)
train, new = slice(0, 80), slice(80, None)
model = MicrographClassifier(random_state=0).fit(images[train], labels[train])

proba = model.predict_proba(images[new])
display = ContactSheetDisplay.from_predictions(
    images[new], proba, classes=model.classes_, y_true=labels[new], n_images=12
)
display.figure_.savefig(out, dpi=110, bbox_inches="tight")
