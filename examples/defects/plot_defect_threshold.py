"""
Which threshold should I choose?
================================

An image is called anomalous if its score reaches the threshold. A lower threshold finds more
defective images and raises more false alarms. The first panel shows the scores of images with and
without defects, the second what each threshold finds and how many false alarms it raises.
"""

# %%
# The scorer is trained on 40 defect-free images. Their scores when they are held out determine the
# threshold: on average, at most 5 % (``fpr``) of new defect-free images are called anomalous.
# ``n_planted=0`` saves the time in which detection limits would be measured.
import matplotlib.pyplot as plt
import numpy as np

from hypervlad import PatchDefectScorer, add_defect, make_fibre_images

size = (116, 168)
mats, _ = make_fibre_images(140, diameter=7, cover=0.8, size=size, random_state=0)
scorer = PatchDefectScorer(fpr=0.05, n_planted=0, random_state=0).fit(mats[:40])

new = mats[40:]
is_defective = np.arange(100) < 50
for number, kind in enumerate(["film", "blur"] * 25):
    new[number], _ = add_defect(new[number], kind, random_state=number)
scores = scorer.score_samples(new)

# %%
# Half of the 100 new images have defects: opaque films and blurred areas. The chosen threshold
# raises few false alarms, but misses most of the blurred areas: such images hardly score higher
# than images without defects. A lower threshold finds more, at the price of false alarms.
for threshold in (scorer.threshold_, 2.0, 1.75):
    false_alarms = np.mean(scores[~is_defective] >= threshold)
    share_found = np.mean(scores[is_defective] >= threshold)
    print(f"threshold {threshold:.2f}: {share_found:.0%} found, {false_alarms:.0%} false alarms")

# %%
# Without defective images, you know only the dashed line: the share of false alarms among held-out
# training images. Here it is close to that among new images.
thresholds = np.linspace(1, 5, 200)[:, None]
curves = {
    "defective images found": (scores[is_defective] >= thresholds, "tab:orange", "-"),
    "false alarms": (scores[~is_defective] >= thresholds, "tab:blue", "-"),
    "false alarms, held out": (scorer.held_out_.scores >= thresholds, "tab:blue", "--"),
}
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 4), layout="constrained")
bins = np.linspace(1, 5, 33)
left.hist(np.clip(scores[~is_defective], 1, 5), bins, alpha=0.6, label="without defects")
left.hist(np.clip(scores[is_defective], 1, 5), bins, alpha=0.6, label="with defects")
left.set(title="Scores of new images", xlabel="score (5 and more in the last bar)", ylabel="images")
for name, (reached, colour, style) in curves.items():
    right.plot(thresholds, reached.mean(axis=1), style, color=colour, label=name)
right.set(title="Images that reach a threshold", xlabel="threshold", ylabel="share of images")
for ax in (left, right):
    ax.axvline(scorer.threshold_, color="black", lw=1, ls=":", label="threshold for fpr=0.05")
    ax.legend(fontsize=9)
plt.show()

# %%
# If a missed defect costs you more than a false alarm, set a lower threshold with
# :meth:`~hypervlad.PatchDefectScorer.set_threshold`: see :doc:`/howto/defect_thresholds`.
