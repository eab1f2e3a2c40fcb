"""
Label 2,000 images by looking at 200
====================================

You have labelled a few images and have many more. At the end of this tutorial, all of them have
labels, and a person has looked at a tenth. The model labels what it is sure of, a person labels the
most informative of the others, and the model is trained again. To be quick, this page uses 400
images instead of 2,000, and 40 of them are labelled by a program that knows the truth. The extra
``review`` is needed, which :doc:`the usual installation </start/install>` includes.
"""

# %%
# 1. A few labelled images, and many without a label
# --------------------------------------------------
# Here we write synthetic TEM images into a temporary folder that stands in for yours: 15 images of
# each of three classes, and 400 others. With your own images, keep the imports, set ``folder``,
# and label on the page of step 4. Here ``truth`` holds what a person would answer.
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from sklearn.base import clone

import hypervlad
from hypervlad.apps.review import Queue, export_labels, start_queue

temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)
images, kinds = hypervlad.make_tem_images(600, size=128, random_state=3)
chosen = [i for i, kind in enumerate(kinds) if kind != "matrix-surface"][:445]
truth = {}
for number, i in enumerate(chosen):
    name = f"tem{number:03d}.png"
    path = folder / "images" / kinds[i] / name if number < 45 else folder / "new" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.uint8(255 * images[i])).save(path)
    truth[name] = str(kinds[i])

# %%
# 2. Train a first model
# ----------------------
# The images are 128 pixels wide, so the encoder need not enlarge them. With the cache, they need
# not be encoded again later. So far, the accuracy on a few held-out images is all that is known.
data = hypervlad.load_image_folder(folder / "images")
encoder = hypervlad.default_encoder(image_size=128, memory=str(folder / "cache"))
first = hypervlad.MicrographClassifier(encoder, random_state=0).fit(data.images, data.target)
first.save(folder / "first.hvlad")
print(f"accuracy on held-out images: {first.held_out_evaluation().accuracy:.1%}")
for max_error in (0.05, 0.1, 0.2):
    sure = first.held_out_.sure_answers(max_error)
    print(f"sure, if at most {max_error:.0%} may be wrong: {sure.n_sure} of {len(first.held_out_)}")

# %%
# .. code-block:: console
#
#    $ hypervlad train images/ --set image_size=128 --cache cache/ -o first.hvlad
#
# With 45 images, a limit of 5 % can be shown only if all 45 answers are right, so we accept 10 %.
# If no answer is sure at any limit that you can accept, label more images before you go on.
#
# 3. Start the queue
# ------------------
# The model labels what it is sure of. The others wait for a person, the most informative first:
# those between two classes, and those unlike the training images. Similar images are far
# apart in the queue, because the label of one tells the model most of what the others would.
new = sorted((folder / "new").glob("*.png"))
counts = start_queue(first, new, folder / "queue", training=folder / "images", max_error=0.1)
print(f"{counts.n_sure} labelled by the model, {counts.n_doubtful} for a person")

# %%
# .. code-block:: console
#
#    $ hypervlad review start first.hvlad new/ -o queue/ --training images/ --max-error 0.1
#
# 4. Label the doubtful ones
# --------------------------
# ``hypervlad app queue/`` opens a page in your browser with one image at a time, the
# scores of all classes, the reason why it is in the queue, and the nearest training images. You
# label it with one key. Every label is on disk before the next image appears, so you can stop at
# any time. This loop does what you would do there, until no image is doubtful, or 40 were labelled.
queue = Queue(folder / "queue")
category = {each.name: each.id for each in queue.categories()}
looked_at = []
for look in range(40):
    if not (items := queue.next("person", want=1).items):
        break
    (item,) = items
    name = Path(item.name).name
    queue.label("person", f"look {look}", item.id, category[truth[name]])
    looked_at.append(name)
    if look < 3:
        print(f"{name}: {item.reason}")
print(queue.progress())

# %%
# 5. Train again
# --------------
# ``export_labels`` returns a table with the labels of people and of the model, and their source.
# Train on the labels of people only: a model that learns from its own answers repeats its mistakes.
table, n_open = export_labels(queue, "person")
is_by_hand = np.array([image.label is not None for image in queue.images()])
is_open = np.array([image.doubtful for image in queue.images()]) & ~is_by_hand
queue.close()
(folder / "by_hand.csv").write_bytes(table)
by_hand = [folder / "new" / name for name in looked_at]
labels = [truth[name] for name in looked_at]
second = hypervlad.MicrographClassifier(encoder, random_state=0)
second = second.fit([*data.images, *by_hand], [*data.target, *labels])

# %%
# .. code-block:: console
#
#    $ hypervlad review export queue/ -o labels.csv
#    $ hypervlad review retrain queue/ --training images/ -o second.hvlad --keep-queue
#
# ``retrain`` also compares the two models on the images that were labelled by hand. Without
# ``--keep-queue``, it replaces the answers in the queue with those of the second model, and
# you continue with step 4. That helps if more answers are sure now. Where many of the second
# model's training images are difficult ones, more of its held-out answers are wrong: its held-out
# accuracy then underestimates that on ordinary images, but it is the only evidence.
sure = second.held_out_.sure_answers(0.1)
print(f"second model, at most 10% wrong: {sure.n_sure} of {len(second.held_out_)} sure")

# %%
# So we keep the first model's sure answers, and the second model labels those images of the queue
# that nobody has looked at.
#
# 6. How many labels are wrong?
# -----------------------------
# In this tutorial the truth is known. In your own work, label a hundred random images by hand, keep
# them out of training, and run ``hypervlad evaluate`` on them. The images of the queue cannot
# replace them, because they are the difficult ones.
y = np.array([truth[path.name] for path in new])
before = first.predict(new)
after = before.copy()
after[is_open] = second.predict(new)[is_open]
after[is_by_hand] = y[is_by_hand]
print(f"first model alone: {(before != y).sum()} of {len(y)} labels are wrong")
print(f"after {is_by_hand.sum()} looks: {(after != y).sum()} are wrong")
is_sure = ~is_open & ~is_by_hand
print(f"  sure answers of the first model: {(after != y)[is_sure].sum()} of {is_sure.sum()}")
print(f"  rest of the queue, second model: {(after != y)[is_open].sum()} of {is_open.sum()}")

# %%
# Does the order of the queue help? We fit only the learner again, on the vectors of the first
# model, after more and more labels: in the order of the queue, and in five random orders.
X_start, X = first.encoder_.transform(data.images), first.encoder_.transform(new)
position = {path.name: row for row, path in enumerate(new)}


def wrong_labels(looks):
    """Return the number of wrong labels after a person has looked at some images."""
    learner = clone(first.boosting_)
    vectors, labels = np.concatenate([X_start, X[looks]]), [*data.target, *y[looks]]
    learner.fit(vectors, labels, blocks=list(first.encoder_.feature_blocks.values()))
    answers = learner.predict(X)
    answers[looks] = y[looks]
    return int((answers != y).sum())


numbers = np.linspace(0, len(looked_at), 5).round().astype(int)
in_order = [position[name] for name in looked_at]
orders = [np.random.default_rng(seed).permutation(len(new)) for seed in range(5)]
by_queue = [wrong_labels(in_order[:n]) for n in numbers]
by_chance = np.array([[wrong_labels(order[:n]) for n in numbers] for order in orders])
print("queue: ", by_queue)
print("random:", by_chance.mean(axis=0))

# %%
# The figure shows the first images of the queue, and how the number of wrong labels falls.
figure, axes = plt.subplot_mosaic(
    [["first", "second", "chart"], ["third", "fourth", "chart"]],
    figsize=(8, 4.2),
    width_ratios=[1, 1, 2.6],
    layout="constrained",
)
for place, name in zip(("first", "second", "third", "fourth"), looked_at, strict=False):
    axes[place].imshow(plt.imread(folder / "new" / name), cmap="gray")
    axes[place].set_title(truth[name], fontsize=10)
    axes[place].set_axis_off()
chart = axes["chart"]
chart.plot(numbers, by_queue, "o-", color="tab:blue", label="in the order of the queue")
chart.plot(numbers, by_chance.mean(axis=0), "s-", color="tab:orange", label="in random order")
chart.fill_between(
    numbers, by_chance.min(axis=0), by_chance.max(axis=0), color="tab:orange", alpha=0.2, lw=0
)
chart.set(xlabel="images that a person looked at", ylabel="wrong labels among 400", ylim=(0, None))
chart.set_title("Wrong labels (shaded: five random orders)", fontsize=11)
chart.legend(frameon=False)
figure.suptitle("The first four images of the queue, and what looking achieves")
plt.show()

# %%
# If the result looks bad
# -----------------------
# - *Nothing is sure*: the first model knows too few images. Label some more of each class, or
#   accept more errors in the first round.
# - *Many labels of the model are wrong*: the new images differ from the labelled ones. Label a
#   random sample first, and train again (:doc:`/howto/new_instrument_or_class`).
# - *An image fits no class*: add a category on the page. ``retrain`` learns it like any other
#   class.
# - *The queue does not get shorter*: look at the confusions of
#   :meth:`~hypervlad.MicrographClassifier.held_out_evaluation`. Two classes that people cannot
#   tell apart either should be one.
#
# How much the order of the queue saves depends on the images. On images of steel defects it needed
# a quarter of the labels that random order needs; on figures from papers, where many images cannot
# be classified even with all labels, no order was clearly better (:doc:`/explanation/decisions`).
