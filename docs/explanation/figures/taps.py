"""The maps of the default taps, each by its first principal component."""

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.patches import Rectangle

from hypervlad import HypercolumnVLAD, make_tem_images
from hypervlad.features.hypercolumns import feature_maps

RECEPTIVE_FIELDS = (7, 19, 59, 267, 491)  # pixels
COLOURS = ("#c81d25", "#b35900", "#1e7b1e", "black", "black")

images, labels = make_tem_images(12, random_state=3)
encoder = HypercolumnVLAD(n_codewords=8, sampling=3000, random_state=0).fit(images)
image = images[list(labels).index("matrix-surface")]

with torch.no_grad():
    pixels = encoder.preprocessing_.prepare(image, (224, 224))[None]
    maps = feature_maps(encoder.network(), pixels)
    projected = encoder.torch_codebook().project(maps)

figure, axes = plt.subplots(2, 3, figsize=(8, 5.9), layout="constrained")
axes = axes.ravel()
axes[0].imshow(image, cmap="gray")
for side, colour in zip(RECEPTIVE_FIELDS[:3], COLOURS, strict=False):  # others exceed the image
    corner = (112 - side / 2, 112 - side / 2)
    axes[0].add_patch(Rectangle(corner, side, side, fill=False, color=colour, linewidth=1.5))
axes[0].set_title("image, 224 x 224 pixels", fontsize=11)
shown = zip(axes[1:], encoder.taps_, maps, projected, RECEPTIVE_FIELDS, COLOURS, strict=True)
for ax, name, layer, own, field, colour in shown:
    first = own[0, :, :, 0].numpy()
    limit = np.percentile(abs(first), 99)
    ax.imshow(first, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
    height, width, n_channels = layer.shape[1:]
    ax.set_title(f"{name}, {height} x {width} cells\n{n_channels:,} channels", fontsize=11)
    ax.text(
        0.03,
        0.04,
        f"receptive field {field} px",
        color=colour,
        fontsize=9,
        transform=ax.transAxes,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.9, "pad": 2},
    )
for ax in axes:
    ax.set_axis_off()
