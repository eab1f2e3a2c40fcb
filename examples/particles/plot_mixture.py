"""
How many particles of each class are in a mixture?
==================================================

A classifier that is right nine times in ten still counts wrongly: where most particles are of one
class, its mistakes about them may outnumber the particles of a rare class. Held-out particles show
how often it confuses which classes, and this corrects the counts.
"""

# %%
# A classifier learns three kinds of small synthetic particles, equally frequent. We use
# the true outlines, so that all errors are those of the classes.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import confusion_matrix

from hypervlad import MicrographClassifier, make_particle_fields
from hypervlad.particles import Field, count_particles, cut_particles, measure
from hypervlad.results import ParticleDisplay

classes = ["cube", "rod", "sphere"]
options = {"extent": (12, 20), "size": 192, "n_particles": (6, 12)}
images, truths = make_particle_fields(16, classes=classes, random_state=0, **options)
particles, labels = [], []
for image, truth in zip(images, truths, strict=True):
    particles += cut_particles(image, truth.outlines)
    labels += truth.classes.tolist()
classifier = MicrographClassifier(random_state=0).fit(particles, labels)
held_out = classifier.held_out_
confusion = confusion_matrix(held_out.codes, held_out.proba.argmax(axis=1))
print(f"{np.trace(confusion)} of {confusion.sum()} held-out particles have the right class")

# %%
# In the mixture, eight of ten particles are spheres. Some of them are taken for cubes.
mixture = ["sphere"] * 8 + ["cube", "rod"]
images, truths = make_particle_fields(16, classes=mixture, random_state=1, **options)
particles, fields = [], []
for number, (image, truth) in enumerate(zip(images, truths, strict=True)):
    particles += cut_particles(image, truth.outlines, name=f"field {number}")
    fields.append(Field(f"field {number}", image.shape))
predicted = classifier.predict(particles)
table = measure(particles, predicted)
plain = count_particles(table, fields, classes=classes)
corrected = count_particles(table, fields, classes=classes, confusion=confusion)
print(corrected[["class", "particles", "count", "low", "high"]].round(1).to_string(index=False))

# %%
# Particles that are taken for another class change the counts of both classes, those of the rare
# one most. Corrected intervals are wider, because they contain that the confusion is known from few
# particles.
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4.4), layout="constrained")
first = predicted[: len(truths[0].outlines)]
ParticleDisplay(images[0], truths[0].outlines, first, class_names=classes).plot(left)
true = np.concatenate([truth.classes for truth in truths])
places = np.arange(len(classes))
for counts, shift, text in ((plain, -0.15, "as classified"), (corrected, 0.15, "corrected")):
    of_class = counts.set_index("class").loc[classes]
    ends = [of_class["count"] - of_class["low"], of_class["high"] - of_class["count"]]
    right.errorbar(places + shift, of_class["count"], ends, fmt="o", capsize=4, label=text)
number = [(true == name).sum() for name in classes]
right.plot(places, number, "k_", markersize=45, markeredgewidth=2, label="true")
right.set_xticks(places, classes)
right.set(ylim=(0, None), xlim=(-0.5, 2.5), ylabel="particles in 16 fields, 95 % interval")
right.legend(loc="upper left", markerscale=0.5)
plt.show()
