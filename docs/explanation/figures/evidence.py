"""An evidence map, and the sum that makes the margin of a class."""

import matplotlib.pyplot as plt
import numpy as np

from hypervlad import MicrographClassifier, default_encoder, make_tem_images
from hypervlad.classify.evidence_display import overlay, smooth

images, labels = make_tem_images(32, random_state=1)
encoder = default_encoder(n_codewords=16, sampling=3000)
model = MicrographClassifier(encoder, calibrate=False, random_state=0)
model.fit(images[:24], labels[:24])
found = model.explain(images[26])
first, second = np.argsort(-found.margins)[:2]
total = found.baseline + found.maps.sum(axis=(1, 2), dtype=float) + found.trees
assert np.allclose(total, found.margins, atol=1e-4)

figure = plt.figure(figsize=(8, 5.8), layout="constrained")
grid = figure.add_gridspec(2, 3, height_ratios=[1.2, 1])
axes = [figure.add_subplot(grid[0, column]) for column in range(3)]
axes[0].imshow(images[26], cmap="gray")
axes[0].set_title("image")
maps = smooth(found.maps[[first, second]])
limit = np.percentile(abs(maps), 99)
for ax, label, evidence in zip(axes[1:], (first, second), maps, strict=True):
    ax.imshow(overlay(images[26], evidence / limit))
    ax.set_title(f"{found.classes[label]}\nmargin {found.margins[label]:+.1f}")
for ax in axes:
    ax.set_axis_off()

parts = {"class bias": found.baseline[first]}
for name, value in found.totals.items():
    named = {"joint": "joint codebook", "pooled": "pooled channels"}
    parts[named.get(name, name.replace("per_layer.", ""))] = value[first]
parts["margin"] = found.margins[first]
names, values = list(parts), np.array(list(parts.values()))
starts = np.append(np.cumsum(values[:-1]) - values[:-1], 0)
colours = np.where(values > 0, "#c0392b", "#2c6fbb")
colours[-1] = "#444444"
ax = figure.add_subplot(grid[1, :])
ax.barh(names, values, left=starts, color=colours)
for name, start, value in zip(names, starts, values, strict=True):
    text = f" {value:+.2f}".replace("-", "−")
    ax.text(max(start, start + value, 0), name, text, va="center", fontsize=9)
ax.invert_yaxis()
ax.axvline(0, color="black", linewidth=0.8)
ax.margins(x=0.16)
ax.set_xlabel("margin")
ax.set_title(f"the margin of {found.classes[first]} is a sum")
ax.spines[["top", "right", "left"]].set_visible(False)
ax.tick_params(axis="y", length=0)
