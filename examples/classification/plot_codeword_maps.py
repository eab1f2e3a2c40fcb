"""
What does the network see in a micrograph?
==========================================

A network turns every position of an image into a long vector, one part from each of five layers.
Here each layer has a codebook of its own, and every position has the colour of its nearest
codeword. Compare the columns: the first layers follow edges and fine texture, the last ones
regions of the specimen.
"""

# %%
# The codebooks are learned from 40 synthetic TEM images, without their labels. With
# ``blocks="per_layer"``, K-means finds 24 codewords in each of the five layers that are tapped.

import matplotlib.pyplot as plt

from hypervlad import HypercolumnVLAD, make_tem_images

images, labels = make_tem_images(40, random_state=3)
encoder = HypercolumnVLAD(n_codewords=24, blocks="per_layer", random_state=0).fit(images)

# %%
# Each column is a layer, named as in the network. Within a column, equal colours are the same
# codeword. Colours of different columns cannot be compared.

shown = [list(labels).index(name) for name in ("fiber", "cluster", "matrix-surface")]
n_layers = len(encoder.taps_)
figure, axes = plt.subplots(3, 1 + n_layers, figsize=(10, 5.4), layout="constrained")
for row, i in zip(axes, shown, strict=True):
    row[0].imshow(images[i], cmap="gray")
    row[0].set_title(labels[i])
    for ax, tap, words in zip(
        row[1:], encoder.taps_, encoder.codeword_maps(images[i]), strict=True
    ):
        ax.imshow(words, cmap="tab20", interpolation="nearest")
        ax.set_title(tap)
for ax in axes.flat:
    ax.set_axis_off()
figure.suptitle("Three TEM images and the codewords of five layers")
plt.show()

# %%
# The frames at the borders come from the zeros that the network pads images with. How codewords
# become the vector of an image is explained in :doc:`/explanation/hypercolumns`.
