"""
Do 8-bit copies of 16-bit images change the answer?
===================================================

A model that was trained on 16-bit images classifies new ones and two kinds of 8-bit copies of them.
By default, 16-bit images are stretched between two percentiles and 8-bit ones are not, so the model
receives different pixels. The bars show how many answers change by default, and how many with
``scaling="percentile"``, which stretches all images.
"""

# %%
# The synthetic camera stores 16 bits per pixel, and the images use a twentieth of that range.
import matplotlib.pyplot as plt
import numpy as np

from hypervlad import MicrographClassifier, default_encoder, make_tem_images, read_image

images, labels = make_tem_images(96, size=160, random_state=1)
counts = [np.round(1000 + 3000 * image).astype(np.uint16) for image in images]
train, new = slice(0, 48), slice(48, None)


def stretched(image):
    """Return an 8-bit copy from the darkest to the brightest pixel, as many programs export."""
    low, high = float(image.min()), float(image.max())
    return np.round(255 * (image - low) / (high - low)).astype(np.uint8)


copies = {
    "16 bits": counts[new],
    "8 bits, stretched": [stretched(image) for image in counts[new]],
    "8 bits, divided by 256": [(image // 256).astype(np.uint8) for image in counts[new]],
}

# %%
# A model reads images of all kinds with the options of its training. For 16-bit images, "auto" is
# the same as "percentile", so the two models are equal.
changed = {}
for scaling in ("auto", "percentile"):
    encoder = default_encoder(read_options={"scaling": scaling})
    model = MicrographClassifier(encoder, random_state=0).fit(counts[train], labels[train])
    answers = {name: model.predict(each) for name, each in copies.items()}
    changed[scaling] = [np.mean(each != answers["16 bits"]) for each in answers.values()]
    for name, share in zip(copies, changed[scaling], strict=True):
        accuracy = np.mean(answers[name] == labels[new])
        print(f'scaling="{scaling}", {name}: {share:.0%} changed, accuracy {accuracy:.0%}')

# %%
# Copies that were stretched when they were made give nearly the same answers. Those that were
# divided by 256 are dark. Stretching them corrects most answers, but not all, because few grey
# levels are left.
figure = plt.figure(figsize=(8, 4.8), layout="constrained")
top, bottom = figure.subfigures(2, 1, height_ratios=(1.2, 1))
for ax, (name, each) in zip(top.subplots(1, 3), copies.items(), strict=True):
    ax.imshow(read_image(each[0]), cmap="gray", vmin=0, vmax=1)
    ax.set_title(f"{name}: {len(np.unique(each[0]))} grey levels", size=9)
    ax.set_axis_off()
ax = bottom.subplots()
for offset, (scaling, shares) in zip((-0.2, 0.2), changed.items(), strict=True):
    bars = ax.barh(np.arange(3) + offset, shares, height=0.4, label=f'scaling="{scaling}"')
    ax.bar_label(bars, [f"{share:.0%}" for share in shares], padding=3)
ax.set_yticks(range(3), list(copies))
ax.invert_yaxis()
ax.set(title="Answers that differ from those for 16-bit images", xlabel="share of the images")
ax.set_xlim(0, 1)
ax.legend()
plt.show()

# %%
# Train on the kind of images that you will predict on: :doc:`/howto/bit_depths` has the options for
# folders that mix them.
