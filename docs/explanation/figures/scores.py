"""The score of one codeword: computed on the cells of each tap, then enlarged and added."""

import matplotlib.pyplot as plt
import torch

from hypervlad import HypercolumnVLAD, make_tem_images
from hypervlad.features.hypercolumns import dense_hypercolumns, enlarge, feature_maps

images, labels = make_tem_images(12, random_state=3)
encoder = HypercolumnVLAD(n_codewords=16, sampling=3000, random_state=0).fit(images)
image = images[list(labels).index("matrix-surface")]

with torch.no_grad():
    pixels = encoder.preprocessing_.prepare(image, (224, 224))[None]
    maps = encoder.torch_codebook().project(feature_maps(encoder.network(), pixels))
    maps = [layer.double() for layer in maps]
    codewords = torch.tensor(encoder.codebook_.joint).double()
    blocks = codewords.split([layer.shape[-1] for layer in maps], dim=1)
    own = [
        layer @ block.T - block.square().sum(1) / 2
        for layer, block in zip(maps, blocks, strict=True)
    ]
    enlarged = sum(enlarge(scores, (224, 224)) for scores in own)
    columns = dense_hypercolumns(maps, (224, 224))
    explicit = columns @ codewords.T - codewords.square().sum(1) / 2
assert torch.allclose(enlarged, explicit)
word = int(enlarged.argmax(-1).flatten().bincount().argsort()[-2])

figure, axes = plt.subplots(2, 3, figsize=(8, 5.9), layout="constrained")
axes = axes.ravel()
for ax, tap, scores in zip(axes[:5], encoder.taps_, own, strict=True):
    shown = scores[0, :, :, word]
    ax.imshow(shown, cmap="viridis", interpolation="nearest")
    ax.set_title(f"{tap}\nscores of {shown.shape[0]} x {shown.shape[1]} cells", fontsize=11)
axes[5].imshow(enlarged[0, :, :, word], cmap="viridis")
axes[5].contour(enlarged[0].argmax(-1) == word, [0.5], colors="white", linewidths=0.7)
axes[5].set_title("enlarged and added\nscores of 224 x 224 pixels", fontsize=11)
for ax in axes:
    ax.set_axis_off()
