"""An evidence map, and the sum that makes the margin of a class."""

import matplotlib.pyplot as plt
import numpy as np

from hypervlad import MicrographClassifier, default_encoder, make_tem_images
from hypervlad.displays.evidence import overlay, smooth

images, labels = make_tem_images(32, random_state=1)
encoder = default_encoder(n_codewords=16, n_samples=3000)
model = MicrographClassifier(encoder, calibration_size=0, random_state=0)
model.fit(images[:24], labels[:24])
found = model.explain(images[26])
first, second = np.argsort(-found.margins)[:2]
total = found.baseline + found.maps.sum(axis=(1, 2), dtype=float) + found.trees
assert np.allclose(total, found.margins, atol=1e-4)

figure, axes = plt.subplots(
    1, 4, figsize=(11, 3.2), layout="constrained", width_ratios=[1, 1, 1, 1.5]
)
axes[0].imshow(images[26], cmap="gray")
axes[0].set_title("image")
maps = smooth(found.maps[[first, second]], 0.02)
limit = np.percentile(abs(maps), 99)
for ax, label, evidence in zip(axes[1:3], (first, second), maps, strict=True):
    ax.imshow(overlay(images[26], evidence / limit))
    ax.set_title(f"{found.classes[label]}\nmargin {found.margins[label]:+.1f}")
for ax in axes[:3]:
    ax.set_axis_off()

parts = {"class bias": found.baseline[first]}
parts |= {name.replace("per_layer.", ""): value[first] for name, value in found.totals.items()}
parts["margin"] = found.margins[first]
names, values = list(parts), np.array(list(parts.values()))
starts = np.append(np.cumsum(values[:-1]) - values[:-1], 0)
colours = np.where(values > 0, "#c0392b", "#2c6fbb")
colours[-1] = "#444444"
bars = axes[3].barh(names, values, left=starts, color=colours)
for name, start, value in zip(names, starts, values, strict=True):
    axes[3].text(max(start, start + value), name, f" {value:+.2f}", va="center", fontsize=8)
axes[3].invert_yaxis()
axes[3].axvline(0, color="black", linewidth=0.8)
axes[3].margins(x=0.16)
axes[3].set_title(f"the margin of {found.classes[first]} is a sum")
axes[3].spines[["top", "right"]].set_visible(False)
