"""
Why did the model choose this class?
====================================

A model is trained on a few labelled images and explains its answers for others. Its margins are
split exactly: red positions are evidence for the predicted class, blue ones against it.
"""

import argparse

import matplotlib

matplotlib.use("Agg")

from hypervlad import MicrographClassifier, make_tem_images
from hypervlad.displays import EvidenceDisplay

parser = argparse.ArgumentParser()
parser.add_argument("--out", default="why.png")
out = parser.parse_args().out

images, labels = make_tem_images(120, random_state=1)
train, new = slice(0, 80), slice(80, None)
model = MicrographClassifier(random_state=0).fit(images[train], labels[train])

explanation = model.explain(images[new.start])
print(explanation)
print({block: evidence.round(2).tolist() for block, evidence in explanation.totals.items()})

shown = [list(labels).index(name, new.start) for name in model.classes_]
display = EvidenceDisplay.from_estimator(
    model,
    [images[i] for i in shown],
    y_true=labels[shown],
    names=[f"image {i}" for i in shown],
)
display.figure_.savefig(out, dpi=110, bbox_inches="tight")
