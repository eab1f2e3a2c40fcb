"""
Does the edge of the field spoil the sizes?
===========================================

A large particle touches an edge of its field more often than a small one, and what touches an edge
has no known size. If such particles are left out, the others look too small. Weights correct this:
each particle also counts for those of its size that are cut.
"""

# %%
# These are small fields of large particles, where edges matter most. We use the true outlines, so
# that nothing else is wrong.
import matplotlib.pyplot as plt
import numpy as np

from hypervlad import make_particle_fields
from hypervlad.particles import Field, cut_particles, edge_weights, measure, particle_sizes
from hypervlad.results import ParticleDisplay

NM = 4.0  # per pixel
images, truths = make_particle_fields(
    200,
    classes=("sphere", "cube"),
    n_particles=(1, 3),
    extent=(15, 120),
    touching=0,
    size=224,
    random_state=0,
)
particles, fields = [], []
for number, (image, truth) in enumerate(zip(images, truths, strict=True)):
    particles += cut_particles(image, truth.outlines, pixel_size=NM, name=f"field {number}")
    fields.append(Field(f"field {number}", image.shape, NM))
table = measure(particles)
print(f"{table['touches_edge'].sum()} of {len(table)} particles touch an edge")

# %%
# The true sizes contain what lies outside the field. With ``edges="weight"``, which is the default,
# the interval of the median contains the true one; with ``edges="leave_out"``, it does not.
true = NM * np.concatenate([truth.diameter for truth in truths])
print(f"true D50: {np.median(true):.0f} nm")
for edges in ("leave_out", "weight"):
    sizes = particle_sizes(table, fields, edges=edges).set_index(["class", "by"])
    found = sizes.loc["all", "number"]
    print(f"{edges}: {found['d50']:.0f} nm ({found['d50_low']:.0f} to {found['d50_high']:.0f} nm)")

# %%
# On the left is one of the fields, on the right the share of the particles up to each diameter.
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4.4), layout="constrained")
ParticleDisplay(images[1], truths[1].outlines, pixel_size=NM).plot(left)
size = table["equivalent_diameter_nm"].to_numpy()
order = np.argsort(size)
for edges, style in (("leave_out", "C1--"), ("weight", "C0-")):
    weights = edge_weights(table, edges)[order]
    right.step(size[order], np.cumsum(weights) / weights.sum(), style, where="post", label=edges)
right.step(np.sort(true), np.arange(1, len(true) + 1) / len(true), "k-", where="post", label="true")
right.set(xlabel="diameter (nm)", ylabel="share of the particles", ylim=(0, 1), xlim=(0, None))
right.legend(loc="lower right")
plt.show()
