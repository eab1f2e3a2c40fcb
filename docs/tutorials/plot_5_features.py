"""
Features of a million images
============================

Every micrograph of an archive is encoded once, as one vector. Similarity search, clustering, maps
and classifiers then work on the vectors alone. At the end of this tutorial, you have a file with
the vectors of a folder, you have seen an interrupted run resume, and you know what changes for a
million images. To be quick, this page uses 240.
"""

# %%
# 1. The archive
# --------------
# Here we write synthetic images of four kinds into a temporary folder that stands in for yours. The
# kinds are sub-folders only so that we can colour the figure at the end: no labels are needed. With
# your own images, keep the imports, and set ``folder`` to the folder that contains ``archive/``.
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from sklearn.decomposition import IncrementalPCA

import hypervlad
from hypervlad.images import find_images

temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)
size = 128
archive = {
    "TEM": hypervlad.make_tem_images(60, size=size, random_state=0)[0],
    "particles": hypervlad.make_particle_fields(60, size=size, random_state=0)[0],
    "mats": hypervlad.make_fibre_images(60, size=size, cover=0.8, random_state=0)[0],
    "wires": hypervlad.make_fibre_images(60, size=size, aligned=1, cover=0.4, random_state=1)[0],
}


def write(kind, number, image):
    """Write one image as an 8-bit file of the archive."""
    path = folder / "archive" / kind / f"{number:03d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.uint8(255 * image)).save(path)


for kind, images in archive.items():
    for number, image in enumerate(images[:55]):
        write(kind, number, image)

# %%
# 2. Choose an encoder, and keep it
# ---------------------------------
# The encoder learns its codewords from a sample of the archive, without labels. A few hundred
# images that cover all kinds are enough; here it is every fifth image. Vectors of different
# encoders cannot be compared, so save the encoder: the file of features is tied to it. If you have
# a trained classifier, you can pass the model wherever this page passes the encoder.
paths = [Path(path) for path in find_images([folder / "archive"])]
encoder = hypervlad.HypercolumnVLAD(image_size=size, n_codewords=16, random_state=0)
encoder.fit(paths[::5])
encoder.save(folder / "encoder.hvlad")
print(f"{encoder.n_features_out_:,} features per image")

# %%
# 3. Run, be interrupted, resume
# ------------------------------
# Long runs are interrupted: by a reboot, a full disk, Ctrl-C. Here we interrupt the run after 100
# images. Finished batches are kept beside the file, and only those in progress are lost. The same
# call with ``resume=True`` continues after them; in the first run it does no harm, so always give
# it.
encoder.set_params(memory=str(folder / "cache"))
options = {"out": folder / "features.parquet", "root": folder / "archive"}


def interrupted_after(n, paths):
    """Give n paths, and then do what Ctrl-C does."""
    yield from paths[:n]
    raise KeyboardInterrupt


try:
    hypervlad.extract_features(interrupted_after(100, paths), encoder, resume=True, **options)
except KeyboardInterrupt:
    print("interrupted")
done = hypervlad.extract_features(paths, encoder, resume=True, **options)
print(f"{done.n_images} images, of which {done.n_kept} were finished before")

# %%
# .. code-block:: console
#
#    $ hypervlad extract archive/ -m encoder.hvlad -o features.parquet --cache cache/ --resume
#
# An image that cannot be read costs only its own row; ``done.skipped`` lists such images with the
# reasons.
#
# 4. The archive grows
# --------------------
# Run the same call again when images have been added. Vectors of unchanged files come from the
# cache, and these files are not even opened.
for kind, images in archive.items():
    for number, image in enumerate(images[55:], start=55):
        write(kind, number, image)
paths = [Path(path) for path in find_images([folder / "archive"])]
done = hypervlad.extract_features(paths, encoder, resume=True, **options)
print(f"{done.n_images} images, {done.n_found} vectors from the cache")

# %%
# 5. Use the vectors
# ------------------
# ``load_features`` returns the vectors and a table with one row per image. Given the encoder, it
# refuses a file that another encoder made. Vectors that take more than a quarter of the memory are
# mapped from the disk; ``mmap=True`` does so here. If you work on them in pieces, only one piece at
# a time is in memory.
X, table = hypervlad.load_features(options["out"], encoder=encoder, mmap=True)
print(type(X).__name__, X.shape)
print(table[["path", "height", "width"]].iloc[[0, 60, 120, 180]].to_string(index=False))

pca = IncrementalPCA(n_components=2)
for start in range(0, len(X), 60):
    pca.partial_fit(X[start : start + 60])
plane = np.concatenate([pca.transform(X[start : start + 60]) for start in range(0, len(X), 60)])

# %%
# Which images are most similar to a given one? All vectors have length 1, so their dot product is
# the cosine of the angle between them. The first hit is the image itself.
query = 0
similarity = np.concatenate([X[start : start + 60] @ X[query] for start in range(0, len(X), 60)])
nearest = np.argsort(-similarity)[:5]
print(table["path"][nearest].tolist())

# %%
# Each point of the map is an image. The colours show the four kinds, which the encoder was
# never given. On the right are the image of the query and the images most similar to it.
figure, axes = plt.subplot_mosaic(
    [["map", "a", "b"], ["map", "c", "d"]],
    figsize=(8, 4.2),
    width_ratios=[2.6, 1, 1],
    layout="constrained",
)
ax = axes["map"]
for kind in archive:
    rows = table["path"].str.startswith(f"{kind}/").to_numpy()
    ax.scatter(*plane[rows].T, s=14, label=kind)
ax.set(xlabel="first principal component", ylabel="second principal component")
ax.set_title("240 images by their vectors")
ax.legend(frameon=False)
for place, row in zip("abcd", nearest[:4], strict=True):
    axes[place].imshow(plt.imread(folder / "archive" / table["path"][row]), cmap="gray")
    title = "query" if row == query else f"similarity {similarity[row]:.2f}"
    axes[place].set_title(title, fontsize=10)
    axes[place].set_axis_off()
figure.suptitle("An archive as a map, and a search for similar images")
plt.show()

# %%
# 6. What changes for a million images
# ------------------------------------
# The calls stay the same. What to think of, with figures from :doc:`/benchmarks/scaling`, for the
# classifier's default encoder and images resized to 224 pixels:
#
# - *Time*: two cores encoded 38 images per second, so a million take 7.3 hours. ``n_jobs=-1``
#   (``--jobs -1``) starts a process per core; on a cluster, joblib distributes the batches.
# - *Disk*: that encoder has 18,856 features, so the file has 75.5 GB, and the cache as much again.
#   Until the end of a run, the features are on the disk twice. Fewer codewords take less
#   time and space.
# - *Files*: for each image, the cache makes six files and folders. Put it on a local disk, or do
#   without it: resuming does not need it.
# - *Reading*: ten machines at this rate read more than a gigabyte per second from a network share
#   if images have 4 MB.
# - *More than a few million*: run one extraction per folder, each resumable on its own.
#
# If the result looks bad
# -----------------------
# - *The map shows instruments or days, not materials*: the images differ in pixel size, scaling or
#   information bars. Remove bars, and bring images to one scale (:doc:`/howto/pixel_size`).
# - *Everything is one cloud*: two components show only a small part of thousands of features. Try
#   UMAP, or a few labels and a classifier on the vectors (:doc:`/howto/vectors`).
# - *Neighbours look unrelated*: fit the encoder on a sample that contains all kinds of images, or
#   use more codewords.
