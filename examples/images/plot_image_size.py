"""
Does the size of an image change its vector?
============================================

Images are resized to ``image_size`` before they are encoded. This does not restore lost detail, nor
does it make magnifications equal. Vectors of copies are compared with the vector of the original by
their cosine, which is 1 if they are equal. Look at how fast it falls, and compare it with another
image of the same class (dashed).
"""

# %%
# The originals have 224 pixels per side. Copies of the same field of view have 80 to 448 pixels,
# and crops show 50 to 90 % of the width.
import matplotlib.pyplot as plt
import numpy as np
from skimage.transform import resize

from hypervlad import HypercolumnVLAD, make_tem_images

fields, labels = make_tem_images(16, size=448, random_state=0)
sides, shares = (80, 112, 160, 224, 320, 448), (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
copies = {
    side: [resize(image, (side, side), anti_aliasing=True) for image in fields] for side in sides
}
originals = copies[224]
crops = {}
for share in shares:
    start, stop = round(112 - 112 * share), round(112 + 112 * share)
    crops[share] = [image[start:stop, start:stop] for image in originals]

# %%
# Copies are encoded at their own size (``image_size=None``), and resized to 224 x 224 pixels, the
# default; crops are resized.
cosines = {}
for image_size, sets in ((None, copies), (224, copies | crops)):
    encoder = HypercolumnVLAD(image_size=image_size, n_codewords=32, random_state=0)
    vectors = encoder.fit_transform(originals)
    for name, each in sets.items():
        cosines[image_size, name] = np.sum(encoder.transform(each) * vectors, axis=1).mean()

same_class = (labels[:, None] == labels) & ~np.eye(len(labels), dtype=bool)
other_image = (vectors @ vectors.T)[same_class].mean()
for name in copies | crops:
    size = f"{name} pixels per side" if name in sides else f"{name:.0%} of the width"
    print(f"resized, {size}: cosine {cosines[224, name]:.2f}")
print(f"another image of the class: cosine {other_image:.2f}")

# %%
# Copies with more pixels have similar vectors if they are resized. Copies with fewer pixels do not,
# because detail is lost: one of 112 pixels per side differs as much as a crop to 70 % of the width.
figure = plt.figure(figsize=(8, 5), layout="constrained")
top, bottom = figure.subfigures(2, 1, height_ratios=(1, 1.7))
examples = [copies[448][0], copies[112][0], copies[80][0]]
examples += [crops[1.0][0], crops[0.8][0], crops[0.5][0]]
titles = ["448 px", "112 px", "80 px", "original", "80% of the width", "50% of the width"]
for ax, image, title in zip(top.subplots(1, 6), examples, titles, strict=True):
    ax.imshow(image, cmap="gray", vmin=0, vmax=1)
    ax.set_title(title, size=9)
    ax.set_axis_off()

left, right = bottom.subplots(1, 2, sharey=True)
for image_size, label in ((224, "resized to 224 px"), (None, "own size")):
    left.plot(sides, [cosines[image_size, side] for side in sides], "o-", label=label)
left.set(title="Copies of the same field of view", xlabel="pixels per side")
left.set(ylabel="cosine with the original", ylim=(0, 1.03))
left.legend()
right.plot(shares, [cosines[224, share] for share in shares], "o-")
right.set(title="Crops, resized to 224 px", xlabel="share of the width", xlim=(1.02, 0.48))
for ax in (left, right):
    ax.axhline(other_image, color="grey", ls="--")
right.text(1, other_image + 0.02, "another image of the class", color="dimgrey")
plt.show()

# %%
# Train and predict on images of similar size and magnification. If files contain their pixel size,
# ``pixel_size=`` resamples them to a common one: see :doc:`/howto/pixel_size`.
