"""
How many codewords do I need?
=============================

The number of codewords determines the length of an image's vector. Vectors with 1 to 64 codewords
are compared by the accuracy of a logistic regression on them. Look at whether the accuracies differ
by more than their error bars.
"""

# %%
# The images have 8 classes. With one codeword, a vector is in essence the mean hypercolumn.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from hypervlad import HypercolumnVLAD, make_tem_images

images, labels = make_tem_images(128, size=128, random_state=0)
numbers = [1, 4, 16, 64]
accuracy, length = [], []
for n_codewords in numbers:
    encoder = HypercolumnVLAD(image_size=128, n_codewords=n_codewords, random_state=0)
    vectors = encoder.fit_transform(images)
    scores = cross_val_score(LogisticRegression(C=100, max_iter=1000), vectors, labels, cv=4)
    accuracy.append(scores.mean())
    length.append(vectors.shape[1])
    print(f"codewords: {n_codewords}, features: {length[-1]}, accuracy: {accuracy[-1]:.2f}")

# %%
# The error bars are binomial standard errors for 128 images. The number of codewords hardly matters
# for the accuracy here. The length of a vector is proportional to it.
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 4), layout="constrained")
share = np.array(accuracy)
left.errorbar(numbers, share, np.sqrt(share * (1 - share) / len(labels)), fmt="o-", capsize=4)
left.axhline(1 / 8, color="grey", ls="--")
left.text(1, 1 / 8 + 0.02, "chance", color="dimgrey")
left.set(title="Accuracy in cross-validation", ylabel="accuracy", ylim=(0, 1))
right.bar(range(len(numbers)), [4 * each / 1000 for each in length], color="tab:orange")
right.set(title="Memory for one vector", ylabel="kB")
left.set_xscale("log", base=4)
left.set_xticks(numbers, [str(each) for each in numbers])
left.minorticks_off()
right.set_xticks(range(len(numbers)), [str(each) for each in numbers])
for ax in (left, right):
    ax.set_xlabel("codewords")
plt.show()

# %%
# Keep the default of 64 to begin with: in the :doc:`benchmarks </benchmarks/accuracy>`, 16 and 32
# were not better in the mean of the sets. Choose fewer to save space if you store the vectors of
# many images (:doc:`/howto/vectors`).
