"""
What does an information bar do to a prediction?
================================================

Many instruments write an information bar below the image. If one class was recorded on such an
instrument more often than another, a model may learn the bar instead of the sample. Here all
training images of clusters have a bar and those of fibres have none. Red is evidence for the
predicted class: look at the bars in the upper row.
"""

# %%
# The bar is a black strip with text and a scale bar.
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageDraw

from hypervlad import MicrographClassifier, default_encoder, make_tem_images
from hypervlad.results import EvidenceDisplay


def with_bar(image):
    """Return an 8-bit copy of an image with an information bar over its lowest rows."""
    copy = Image.fromarray(np.round(255 * image).astype(np.uint8))
    draw = ImageDraw.Draw(copy)
    draw.rectangle((0, 204, 224, 224), fill=0)
    draw.text((6, 208), "HV 200 kV   x 50 000   100 nm", fill=255)
    draw.line((174, 215, 214, 215), fill=255, width=3)
    return np.asarray(copy)


made, names = make_tem_images(160, random_state=2)
images = [image for image, name in zip(made, names, strict=True) if name in ("fiber", "cluster")]
labels = names[np.isin(names, ("fiber", "cluster"))]
train = [
    with_bar(image) if label == "cluster" else np.round(255 * image).astype(np.uint8)
    for image, label in zip(images[:40], labels[:40], strict=True)
]
new, truth = [with_bar(image) for image in images[40:]], labels[40:]

# %%
# All new images have a bar. The first model takes nearly all fibres for clusters, because of the
# bar. The second one cuts bars off when it reads an image, in training and in prediction.
models = {}
for banner in ("keep", "remove"):
    encoder = default_encoder(read_options={"banner": banner})
    models[banner] = MicrographClassifier(encoder, random_state=0).fit(train, labels[:40])
    predicted = models[banner].predict(new)
    n_cluster = np.sum(predicted[truth == "fiber"] == "cluster")
    accuracy = np.mean(predicted == truth)
    print(
        f'banner="{banner}": accuracy {accuracy:.0%}, {n_cluster} of {np.sum(truth == "fiber")} '
        "fibres taken for clusters"
    )

# %%
shown = [list(truth).index(name) for name in ("cluster", "fiber")]
figure, axes = plt.subplots(2, 1, figsize=(8, 6), layout="constrained")
for ax, (banner, model) in zip(axes, models.items(), strict=True):
    EvidenceDisplay.from_estimator(
        model, [new[i] for i in shown], y_true=truth[shown], names=["image 1", "image 2"], ax=ax
    )
    ax.set_title(f'Evidence for the predicted class, banner="{banner}"')
plt.show()

# %%
# Remove bars whenever images have them, and look at the evidence even if the accuracy is high:
# :doc:`/howto/information_bars` has the options.
