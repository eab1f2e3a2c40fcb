"""What each tap contributes to the distances between codewords, with and without scaling."""

import matplotlib.pyplot as plt
import numpy as np

from hypervlad import HypercolumnVLAD, make_tem_images

images, _ = make_tem_images(12, random_state=3)
shares = {}
for sampling in ("anyloc", 2000):
    encoder = HypercolumnVLAD(n_codewords=32, sampling=sampling, random_state=0).fit(images)
    layers = encoder.codebook_.projections
    widths = [len(each.mean if each.components is None else each.components) for each in layers]
    variance = np.split(encoder.codebook_.joint.var(axis=0), np.cumsum(widths)[:-1])
    totals = np.array([each.sum() for each in variance])
    shares[sampling] = totals / totals.sum()

figure, ax = plt.subplots(figsize=(8, 2.6), layout="constrained")
colours = plt.cm.viridis(np.linspace(0.1, 0.9, len(encoder.taps_)))
starts = np.zeros(2)
for number, tap in enumerate(encoder.taps_):
    values = np.array([shares["anyloc"][number], shares[2000][number]])
    ax.barh(
        ["not scaled", "scaled (default)"], values, left=starts, color=colours[number], label=tap
    )
    for row, (start, value) in enumerate(zip(starts, values, strict=True)):
        if value > 0.05:
            colour = "black" if number > 2 else "white"
            text = f"{value:.0%}".replace("%", " %")
            ax.text(start + value / 2, row, text, ha="center", va="center", color=colour)
    starts += values
ax.invert_yaxis()
ax.set_xlim(0, 1)
ax.set_xticks([])
ax.spines[:].set_visible(False)
ax.tick_params(length=0)
ax.legend(
    ncols=5,
    loc="upper center",
    bbox_to_anchor=(0.5, 0),
    frameon=False,
    fontsize=9,
    columnspacing=1.5,
)
ax.set_title("share of the variance between 32 codewords")
