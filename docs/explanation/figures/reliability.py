"""Confidence and sure answers of a small model, on new synthetic images."""

import warnings

import matplotlib.pyplot as plt
import numpy as np

from hypervlad import MicrographClassifier, default_encoder, make_tem_images
from hypervlad.evaluation import Evaluation, wilson_interval

images, labels = make_tem_images(280, size=96, random_state=0)
train, new = slice(0, 120), slice(120, None)
encoder = default_encoder(image_size=96, n_codewords=16, sampling=3000, turns=1)
model = MicrographClassifier(encoder, random_state=0).fit(images[train], labels[train])
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # for a small accepted error, no answer is sure
    vectors = model.encoder_.transform(images[new])
    judged = {error: model.judge_vectors(vectors, error) for error in (0.05, 0.1, 0.2, 0.3)}
truth = labels[new]
proba = judged[0.2].proba
confidence, shares, counts = Evaluation(truth, proba, model.classes_).reliability_bins(5)

figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.9), layout="constrained")
left.plot([0, 1], [0, 1], "--", color="#888888", linewidth=1)
for x, share, count in zip(confidence, shares, counts, strict=True):
    if count:
        low, high = wilson_interval(share, int(count))
        left.plot([x, x], [low, high], color="#1f5a8c", linewidth=1.5)
        left.plot(x, share, "o", color="#1f5a8c")
        left.annotate(f"{count}", (x, high), (0, 6), textcoords="offset points", ha="center")
left.set(xlim=(0, 1.03), ylim=(0, 1.1), xlabel="confidence", ylabel="share of correct answers")
left.set_title(f"confidence of the answers for {len(truth)} new images")

names, sure, wrong = [], [], []
for error, found in judged.items():
    is_sure = found.kind == "sure"
    names.append(f"{error:.0%}".replace("%", " %"))
    sure.append(is_sure.mean())
    wrong.append((is_sure & (found.labels != truth)).mean())
places = np.arange(len(names))
right.bar(places, sure, color="#9ec5e8", label="sure")
right.bar(places, wrong, color="#c0392b", label="sure and wrong")
for place, share, bad in zip(places, sure, wrong, strict=True):
    note = f"{bad / share:.0%} wrong".replace("%", " %") if share else "none"
    right.text(place, share + 0.02, note, ha="center", fontsize=8)
right.set_xticks(places, names)
right.set(
    ylim=(0, 1.1),
    xlabel="accepted share of wrong answers (max_error)",
    ylabel="share of the images",
)
right.legend(loc="upper left", frameon=False)
right.set_title("sure answers")
for ax in (left, right):
    ax.spines[["top", "right"]].set_visible(False)
