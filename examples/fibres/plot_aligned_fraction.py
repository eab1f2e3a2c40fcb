"""
How much of a mat is aligned?
=============================

Of the windows that contain fibres, the aligned fraction is the share in which the fibres are
parallel. It is measured here on synthetic wires whose true directions are known, from not aligned
at all to fully aligned, with little noise and with noise as strong as the contrast. Look at how far
the points are from the dashed line.
"""

# %%
# A window of the image is aligned if the spread of its directions is below 20°. The true fraction
# is the result of this rule with the true directions, so the errors come from the measured
# directions alone.
import matplotlib.pyplot as plt
import numpy as np

from hypervlad import make_fibre_images
from hypervlad.fibres import aligned_fraction

shares = np.repeat([0, 0.25, 0.5, 0.75, 1], 4)
images, true, measured = {}, {}, {}
for snr in (10, 1.5):
    made = [
        make_fibre_images(
            1,
            aligned=share,
            cover=0.5,
            diameter=7,
            look="round",
            contrast_to_noise=snr,
            size=256,
            random_state=seed,
        )
        for seed, share in enumerate(shares)
    ]
    images[snr] = [image for (image,), _ in made]
    true[snr] = [truth.aligned_fraction(window=32) for _, (truth,) in made]
    measured[snr] = [aligned_fraction(image, window=32) for image in images[snr]]

# %%
# With little noise, the measured fraction is close to the true one. With strong noise it is too low
# on average, and far off for some images.
names = {10: "little noise", 1.5: "strong noise"}
for snr, name in names.items():
    pairs = zip(measured[snr], true[snr], strict=True)
    error = np.array([found.fraction - truth.fraction for found, truth in pairs])
    print(
        f"{name}: mean error {error.mean():+.2f}, "
        f"mean absolute error {np.abs(error).mean():.2f}, largest {np.abs(error).max():.2f}"
    )

# %%
# The true fraction is not 0 where no wires were laid in parallel, because a few windows hold
# parallel wires by chance. The two images on the left show the same wires with little and with
# strong noise; aligned windows are tinted.
figure = plt.figure(figsize=(8, 4.5), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=(1, 2))
example = 9
for ax, snr, colour in zip(left.subplots(2, 1), (10, 1.5), ("Blues_r", "Oranges_r"), strict=True):
    found = measured[snr][example]
    ax.imshow(images[snr][example], cmap="gray")
    ax.imshow(np.ma.masked_less(found.labels > 0, 1), cmap=colour, alpha=0.5)
    ax.set_title(f"{found.fraction:.0%} aligned, true {true[snr][example].fraction:.0%}", size=10)
    ax.set_axis_off()

ax = right.subplots()
ax.plot([0, 1], [0, 1], "--", color="grey", label="measured = true")
for (snr, name), marker in zip(names.items(), "o^", strict=True):
    x, y = ([found.fraction for found in each[snr]] for each in (true, measured))
    ax.scatter(x, y, marker=marker, label=name)
ax.set(xlabel="true aligned fraction", ylabel="measured aligned fraction", aspect="equal")
ax.set_title("Measured and true aligned fraction of 20 images")
ax.legend()
plt.show()

# %%
# If your images are noisy, train an :class:`~hypervlad.AlignmentClassifier`, as the :doc:`tutorial
# </learn/plot_3_alignment>` shows: on synthetic wires it is :doc:`less sensitive to noise
# </benchmarks/alignment>`.
