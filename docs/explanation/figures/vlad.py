"""A codeword map, and the residual sums of an image before and after normalisation."""

import matplotlib.pyplot as plt
import numpy as np
import torch

from hypervlad import HypercolumnVLAD, make_tem_images
from hypervlad.features.hypercolumns import feature_maps
from hypervlad.features.vlad import dense_residual_sums, normalize

images, labels = make_tem_images(12, random_state=3)
encoder = HypercolumnVLAD(n_codewords=16, sampling=3000, random_state=0).fit(images)
image = images[list(labels).index("matrix-surface")]
codebook = encoder.codebook_

with torch.no_grad():
    pixels = encoder.preprocessing_.prepare(image, (224, 224))[None]
    maps = encoder.torch_codebook().project(feature_maps(encoder.network(), pixels))
    codewords = torch.tensor(codebook.joint)
    sums = dense_residual_sums(maps, codewords, (112, 112))
    vector = normalize([sums])
assert np.allclose(vector[0].numpy(), encoder.transform([image])[0], atol=1e-4)

widths = [layer.shape[-1] for layer in maps]
edges = np.cumsum([0, *widths])
words = encoder.codeword_maps(image)[0]
colours = plt.get_cmap("tab20")(np.arange(len(codebook.joint)))

figure = plt.figure(figsize=(8, 6.6), layout="constrained")
grid = figure.add_gridspec(3, 2, height_ratios=[2.3, 1, 1])
for column, (shown, title) in enumerate(
    [(image, "image"), (colours[words], "codeword at each of 112 x 112 positions")]
):
    ax = figure.add_subplot(grid[0, column])
    ax.imshow(shown, cmap="gray", interpolation="nearest")
    ax.set_title(title)
    ax.set_axis_off()
for row, (block, title) in enumerate(
    [
        (sums[0].numpy(), "residual sums"),
        (vector[0].numpy().reshape(len(codewords), -1), "after intra-normalisation and L2"),
    ]
):
    ax = figure.add_subplot(grid[row + 1, :])
    limit = np.percentile(abs(block), 99)
    ax.imshow(block, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    ax.set_title(title)
    ax.set_ylabel("codeword")
    ax.vlines(edges[1:-1] - 0.5, -0.5, len(block) - 0.5, color="black", linewidth=0.8)
    ax.set_yticks([0, len(block) - 1], ["1", str(len(block))])
    ax.set_xticks([])
ax.set_xticks((edges[:-1] + edges[1:] - 1) / 2, encoder.taps_)
ax.tick_params(length=0)
ax.set_xlabel("principal components of each tap")
