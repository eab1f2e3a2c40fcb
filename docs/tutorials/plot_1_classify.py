"""
Classify a folder of micrographs and trust the result
=====================================================

You have a folder of labelled micrographs and a folder of new ones. At the end of this tutorial, the
new images are sorted into classes, and you know which answers to rely on and which to check
yourself. It takes seven steps: arrange the files, check them, train, look at the accuracy on
held-out images, choose how many errors to accept, classify, and sort.
"""

# %%
# 1. Arrange the files
# --------------------
# Put the images of each class into a sub-folder of its own. Here we write synthetic TEM images of
# carbon nanotubes into a temporary folder that stands in for yours. Every fourth specimen was
# recorded twice, at slightly different positions, as happens in any real collection. With your own
# images, keep the imports, set ``folder`` to the folder that contains ``images/``, ``new/`` and
# ``groups.csv``, and leave out everything that uses ``truth`` or ``copy``.
import shutil
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import hypervlad
from hypervlad.results import ContactSheetDisplay, write_classified_page

temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)
specimens, kinds = hypervlad.make_tem_images(240, size=208, random_state=1)
chosen = [i for i, kind in enumerate(kinds) if kind != "matrix-surface"]
rng = np.random.default_rng(0)


def record(specimen, path):
    """Write one frame of a specimen, at a random position and with noise."""
    y, x = rng.integers(0, 17, 2)
    frame = specimen[y : y + 192, x : x + 192] + rng.normal(0, 0.02, (192, 192))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((255 * frame.clip(0, 1)).astype(np.uint8)).save(path)


rows = ["path,group"]
for number, i in enumerate(chosen[:100]):
    for frame in range(2 if number % 4 == 0 else 1):
        name = f"{kinds[i]}/specimen{number:03d}_{frame}.png"
        record(specimens[i], folder / "images" / name)
        rows.append(f"{name},specimen{number:03d}")
(folder / "groups.csv").write_text("\n".join(rows))

# The new images: 60 like these, four of nanowires, and a damaged file.
truth = {}
for number, i in enumerate(chosen[120:]):
    truth[f"new{number:02d}.png"] = str(kinds[i])
    record(specimens[i], folder / "new" / f"new{number:02d}.png")
for number, wires in enumerate(hypervlad.make_fibre_images(4, size=208, random_state=0)[0]):
    record(wires, folder / "new" / f"new{60 + number}.png")
(folder / "new" / "new64.png").write_bytes(b"not an image")

# A common mistake: one image was also copied into another class.
fibers = sorted((folder / "images" / "fiber").glob("*.png"))
copy = Path(shutil.copy(fibers[0], folder / "images" / "cluster" / "copy.png"))

# %%
# ``groups.csv`` names the specimen of each image. Two frames of one specimen look alike. If one of
# them is in the training data and the other in the test data, the test rewards memorisation, and
# the accuracy is too high. Images of one group therefore always stay together. :doc:`/howto/groups`
# explains what a group should be.
#
# 2. Check the files
# ------------------
# A wrong file spoils a model without any error message. The check opens every image and looks for
# unreadable files, for copies across classes or groups, and for whatever else might give a class
# away, such as its image size.
report = hypervlad.check_image_folder(folder / "images")
print(report.class_counts)
for problem in report.problems:
    print("-", problem)
for copies in report.exact_copies:
    print("  ", *copies.files)

# %%
# .. code-block:: console
#
#    $ hypervlad check images/
#
# Delete the copy: the same image cannot belong to two classes. The near copies are the two frames
# of each specimen that was recorded twice. They may stay if the table of groups keeps them
# together. If you have no such table, ``report.write_groups("groups.csv")`` writes one that joins
# all copies that were found; add what you know about your samples.
copy.unlink()
report = hypervlad.check_image_folder(folder / "images", groups=folder / "groups.csv")
print(report.problems or "no problems")

# %%
# 3. Train
# --------
# The default network comes with the package. The seed makes the result repeatable on one machine.
data = hypervlad.load_image_folder(folder / "images", groups=folder / "groups.csv")
model = hypervlad.MicrographClassifier(random_state=0)
model.fit(data.images, data.target, groups=data.groups)
model.save(folder / "model.hvlad")

# %%
# .. code-block:: console
#
#    $ hypervlad train images/ --groups groups.csv -o model.hvlad --report training-report/
#
# 4. Look at the accuracy on held-out images
# ------------------------------------------
# During training, each image was also classified by a copy of the model that had not been trained
# on its group. These predictions show what to expect for new specimens of the same kind. The
# interval is wide because there are only 100 specimens.
result = model.held_out_evaluation()
low, high = result.interval
print(f"accuracy {result.accuracy:.1%} (95 % interval {low:.1%} to {high:.1%})")
print(f"balanced accuracy {result.balanced_accuracy:.1%}")
for true, predicted, count in result.confusions:
    print(f"{count} images of {true} were called {predicted}")

# %%
# Look at three things. Is the accuracy good enough for your purpose? Is any class much worse than
# the others? Are the confusions plausible? These are: three tubes that touch are already a
# cluster, and a thin bundle looks much like a single fibre. If your accuracy is too low, see the
# end of this page.
#
# 5. Choose how many errors to accept
# -----------------------------------
# You need not rely on every answer. Choose which share of wrong answers you accept. The held-out
# predictions then show how confident an answer must be to be *sure*.
for max_error in (0.05, 0.1, 0.2):
    sure = model.held_out_.sure_answers(max_error)
    print(
        f"at most {max_error:.0%} wrong: {sure.n_sure} of {len(model.held_out_)} answers are "
        f"sure, {sure.n_wrong} of them are wrong"
    )

# %%
# With these errors and 100 specimens, a limit of 5 % cannot be shown with 90 % certainty, so no
# answer is sure at that limit. We accept 10 %. Fewer errors or more specimens would allow less.
#
# 6. Classify the new images
# --------------------------
# ``classify`` reads each image once. It judges every answer, and returns a *prediction set*: the
# classes that an image may belong to, chosen so that about 90 % of the sets contain the true
# class. With ``on_error="skip"``, files that cannot be read are skipped and listed.
new = sorted((folder / "new").glob("*.png"))
model.encoder_.set_params(on_error="skip")
found = model.classify(new, coverage=0.9, max_error=0.1)
judged = found.judgement
read = [new[position] for position in found.images.positions]
for image in found.images.skipped:
    print("skipped:", new[image.position].name)
kinds_found, counts = np.unique(judged.kind, return_counts=True)
print(dict(zip(kinds_found.tolist(), counts.tolist(), strict=True)))
for row in (0, *np.flatnonzero(judged.kind != "sure")[[0, -1]]):
    possible = " or ".join(model.classes_[found.sets[row]])
    print(f"{read[row].name}: {judged.kind[row]}, possibly {possible}: {judged.reasons[row]}")

# %%
# .. code-block:: console
#
#    $ hypervlad predict model.hvlad new/ -o predictions.csv --coverage 0.9 --max-error 0.1
#
# An image that is out of distribution is unlike all training images. That is true of the four
# nanowires. About one in twenty images like the training images is also reported, and more with few
# groups. The probabilities of such images mean little, however high they are, so their sets contain
# all classes. :doc:`/explanation/doubt` says what each of these answers promises.
#
# We know the truth of the synthetic images, so we can see whether the promises were kept:
known = [row for row, path in enumerate(read) if path.name in truth]
is_right = np.array([judged.labels[row] == truth[read[row].name] for row in known])
is_sure = judged.kind[known] == "sure"
in_set = [truth[read[row].name] in model.classes_[found.sets[row]] for row in known]
print(f"all answers: {is_right.mean():.1%} right; the sure ones: {is_right[is_sure].mean():.1%}")
print(f"sets that contain the true class: {np.mean(in_set):.1%}")

# %%
# At most 10 % of the sure answers may be wrong, so a few are. This model is so accurate that its
# sure answers are hardly better than all of them.

# %%
# 7. Sort the images, and look at them
# ------------------------------------
# We copy the images with sure answers into one folder per class, and the others into folders to go
# through by hand. ``write_classified_page`` writes a page that shows all images in a browser, with
# filters for class, confidence and kind of answer.
places = {"ambiguous": "unsure", "out_of_distribution": "unlike_training"}
for row, path in enumerate(read):
    target = folder / "sorted" / places.get(judged.kind[row], judged.labels[row])
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, target)
page = write_classified_page(
    folder / "classified.html", model, new, max_error=0.1, predictions=found
)
print(f"{page.name}: {page.stat().st_size / 1e6:.1f} MB")

# %%
# .. code-block:: console
#
#    $ hypervlad predict model.hvlad new/ --sort-into sorted/ --page classified.html --max-error 0.1
#
# In the figure, green answers are sure, orange ones are ambiguous, and red ones belong to images
# unlike the training images. Do you agree with the sure ones?
colours = {"sure": "tab:green", "ambiguous": "tab:orange", "out_of_distribution": "tab:red"}
words = {"sure": "sure", "ambiguous": "ambiguous", "out_of_distribution": "unlike training"}
shown = [
    row
    for kind, n in (("sure", 7), ("ambiguous", 2), ("out_of_distribution", 6))
    for row in np.flatnonzero(judged.kind == kind)[-n:]
]
figure, ax = plt.subplots(figsize=(8, 6.2), layout="constrained")
ContactSheetDisplay(
    [read[row] for row in shown],
    [
        [words[judged.kind[row]], f"{judged.labels[row]}, {judged.proba[row].max():.0%}"]
        for row in shown
    ],
    colours=[colours[judged.kind[row]] for row in shown],
    n_columns=5,
).plot(ax=ax)
figure.suptitle("New images: which answers can be relied on?")
plt.show()

# %%
# If the result looks bad
# -----------------------
# - *A class is rarely recognised*: it needs images of more specimens; further images of the same
#   ones help less (:doc:`/howto/few_images`).
# - *The confusions make no sense*: look at ``model.label_issues()``, or ``hypervlad suspects
#   model.hvlad``, for wrong labels, and at ``model.explain(image)`` for what the model looks at.
#   It may be a scale bar (:doc:`/howto/information_bars`).
# - *The accuracy is high here but low on new images*: images that belong together were in different
#   groups (:doc:`/howto/groups`), or the new images come from another instrument
#   (:doc:`/howto/new_instrument_or_class`).
# - *Hardly any answer is sure*: accept more errors, or label more specimens. The images in
#   ``unsure`` are the best ones to label next: :doc:`/learn/plot_4_label` shows how.
