"""
Which labels are probably wrong?
================================

Eight of 120 labels are changed on purpose. The model predicts each training image with learners
that were not fitted on it, and lists the labels that these predictions contradict. Green captions
mark labels that were changed, red ones correct labels that are suspected.
"""

# %%
# Change every fifteenth label to the next class.

import matplotlib.pyplot as plt
import numpy as np

from hypervlad import MicrographClassifier, make_tem_images
from hypervlad.results import ContactSheetDisplay

images, labels = make_tem_images(120, size=128, random_state=2)
classes = np.unique(labels)
changed = np.arange(7, 120, 15)
given = labels.copy()
given[changed] = classes[(np.searchsorted(classes, labels[changed]) + 1) % len(classes)]

# %%
# Train on the given labels, and list the suspects, the most suspicious first.

model = MicrographClassifier(random_state=0).fit(images, given)
issues = model.label_issues()
n_found = sum(issue.position in changed for issue in issues)
print(f"{len(issues)} suspects; {n_found} of {len(changed)} changed labels are among them")

# %%
# The first eight suspects.

captions, colours = [], []
for issue in issues[:8]:
    is_changed = issue.position in changed
    captions.append(
        [
            f"image {issue.position}",
            f"{'changed' if is_changed else 'correct'}: {issue.label}",
            f"likely: {issue.likely}",
        ]
    )
    colours.append("tab:green" if is_changed else "tab:red")
sheet = ContactSheetDisplay(
    [images[issue.position] for issue in issues[:8]], captions, colours=colours, n_columns=4
).plot()
sheet.figure_.suptitle("The eight most suspicious labels, and which were changed on purpose")
plt.show()

# %%
# Most of the changed labels are found, and some suspects have a correct label. Look at each suspect
# before you change its label: a model cannot tell a wrong label from a hard image. On real images,
# most suspects may be hard ones (:doc:`/benchmarks/uncertainty`). ``hypervlad suspects``
# writes the list that :meth:`~hypervlad.MicrographClassifier.label_issues` returns here.
