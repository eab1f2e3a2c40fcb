"""
How accurate are the answers the model is sure of?
==================================================

If only the most confident answers are accepted, fewer of them are wrong, and a person has more
images to look at. The curve shows the accuracy for each share of accepted answers. The dots are the
answers that the model calls sure if 20 or 30 % of them may be wrong.
"""

# %%
# Eight classes of synthetic TEM images, 160 images for training and 80 others.

import matplotlib.pyplot as plt
import numpy as np

from hypervlad import MicrographClassifier, default_encoder, make_tem_images
from hypervlad.evaluation import selective_accuracy_curve

images, labels = make_tem_images(240, size=96, random_state=0)
train, new = slice(0, 160), slice(160, None)
encoder = default_encoder(n_codewords=16)
model = MicrographClassifier(encoder, random_state=0).fit(images[train], labels[train])

# %%
# The model keeps predictions of its training images, by learners that were not fitted on them. Sure
# answers are those above a confidence for which these predictions show, with 90 % certainty, that
# no more answers are wrong than you accept.

held_out = model.held_out_
for max_error in (0.05, 0.1, 0.2, 0.3):
    sure = held_out.sure_answers(max_error)
    print(f"at most {max_error:.0%} wrong: {sure.n_sure} of 160 sure, {sure.n_wrong} of them wrong")

# %%
# On new images, at most 20 % of the sure answers may be wrong.

judged = model.judge(images[new], max_error=0.2)
is_sure = judged.kind == "sure"
n_wrong = (judged.labels != labels[new])[is_sure].sum()
print(f"{is_sure.sum()} of 80 answers are sure, {n_wrong} of them wrong")

# %%
# The curve of the held-out predictions.

figure, ax = plt.subplots(figsize=(8, 4.5), layout="constrained")
codes = np.searchsorted(model.classes_, labels[held_out.rows])
curve = selective_accuracy_curve(codes, held_out.proba)
ax.step(curve.coverage, curve.accuracy)
ax.set(xlabel="share answered, most confident first", ylabel="accuracy of these answers")
for max_error, colour in ((0.2, "tab:orange"), (0.3, "tab:red")):
    sure = held_out.sure_answers(max_error)
    accuracy = 1 - sure.n_wrong / sure.n_sure
    label = f"sure, at most {100 * max_error:.0f} % wrong"
    ax.plot(sure.n_sure / 160, accuracy, "o", color=colour, label=label, zorder=5)
ax.legend(loc="lower left")
ax.set_title("Accuracy of the most confident held-out predictions", loc="left")
plt.show()

# %%
# With eight classes and 160 images, no confidence shows that at most 5 or 10 % of the answers are
# wrong, so no answer is sure at these levels. Choose the share of errors that you can accept, and
# let a person look at the rest: :meth:`~hypervlad.MicrographClassifier.judge` says which these are,
# and :doc:`/explanation/doubt` what it promises.
