"""
Which images look like this one?
================================

Images that look alike have similar vectors, so a search for the nearest vectors finds them, without
any label. Each row shows an image and the five nearest of 199 others. Look at the red captions:
what looks alike to the network is not always of one class.
"""

# %%
# Vectors have length 1: their inner product is the cosine similarity.

import matplotlib.pyplot as plt
from sklearn.neighbors import NearestNeighbors

from hypervlad import HypercolumnVLAD, make_tem_images
from hypervlad.results import ContactSheetDisplay

images, labels = make_tem_images(200, size=128, random_state=0)
vectors = HypercolumnVLAD(n_codewords=32, random_state=0).fit_transform(images)
search = NearestNeighbors(n_neighbors=5, metric="cosine").fit(vectors)
distances, nearest = search.kneighbors()  # without the image itself

# %%
# The labels only serve to check the result.

is_same = labels[nearest] == labels[:, None]
print(f"{is_same.mean():.0%} of the nearest five have the class of the image (by chance: 25 %)")

# %%
# Three images, and their neighbours with the cosine similarity.

queries = [list(labels).index(name) for name in ("cluster", "fiber", "matrix-surface")]
shown, captions, colours = [], [], []
for query in queries:
    shown += [images[query], *(images[i] for i in nearest[query])]
    captions += [["image", labels[query]]]
    captions += [
        [f"cosine {1 - distance:.2f}", labels[i]]
        for i, distance in zip(nearest[query], distances[query], strict=True)
    ]
    colours += ["black", *("tab:green" if same else "tab:red" for same in is_same[query])]
sheet = ContactSheetDisplay(shown, captions, colours=colours, n_columns=6).plot()
sheet.figure_.suptitle("Three images (left) and the five nearest to each")
plt.show()

# %%
# Three of five neighbours are of the same class on average, so the search is no substitute for a
# classifier: background and contrast count as well as the specimen. How to search large
# collections with other libraries is on the page :doc:`/howto/vectors`.
