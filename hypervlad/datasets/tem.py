"""Synthetic transmission electron micrographs of carbon nanotubes and nanofibres."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from sklearn.utils import check_random_state

from hypervlad.datasets._arguments import check_count, check_size
from hypervlad.datasets._microscope import record_image
from hypervlad.datasets._scenes import make_specimen

SMALLEST_SIZE = 32

#: Each of the eight fine classes, and the one of the four classes that it belongs to.
TEM_FINE_CLASSES: dict[str, str] = {
    "cluster-bundle": "cluster",
    "cluster-tangle": "cluster",
    "fiber-bamboo": "fiber",
    "fiber-tube": "fiber",
    "matrix-agglomerate": "matrix",
    "matrix-shard": "matrix",
    "matrix-surface-few": "matrix-surface",
    "matrix-surface-many": "matrix-surface",
}
#: The four classes of Luo, Holm and Wang (2021).
TEM_CLASSES: tuple[str, ...] = tuple(sorted(set(TEM_FINE_CLASSES.values())))

# Keep the random numbers of labels and of images apart.
_LABELS, _IMAGES = 0, 1


def make_tem_images(
    n: int,
    *,
    n_classes: int = 4,
    size: int | tuple[int, int] = 224,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[list[NDArray[np.float32]], NDArray[np.str_]]:
    """Make synthetic bright-field TEM images of carbon nanotubes, alone, clustered, in a polymer.

    Each image is a specimen (hollow tubes along worm-like chains, bamboo-like fibres, catalyst
    particles, polymer particles, on a continuous, holey or lacey carbon film) whose exit wave goes
    through a contrast transfer function with random defocus, under uneven illumination, onto a
    noisy camera. Magnification, brightness and contrast are random and do not depend on the class.
    The classes overlap a little, as real ones do: three tubes side by side are already a cluster,
    and one tube that sticks out of a particle makes it "matrix-surface".

    Parameters
    ----------
    n : int
        Number of images, at least 1.
    n_classes : {4, 8}, default=4
        4: the classes of [1]_. "fiber": one isolated tube or fibre (there may be a fragment
        elsewhere); "cluster": several that touch or entangle; "matrix": polymer particles, tubes at
        most inside; "matrix-surface": polymer particles that tubes stick out of. 8: each of these
        split in two (`TEM_FINE_CLASSES` maps them back): "fiber-tube" (hollow nanotube) and
        "fiber-bamboo" (nanofibre with cross walls); "cluster-bundle" (nearly parallel) and
        "cluster-tangle"; "matrix-shard" (one faceted piece) and "matrix-agglomerate" (rounded
        grains); "matrix-surface-few" (one to three tubes out) and "matrix-surface-many" (seven or
        more).
    size : int or (int, int), default=224
        Height and width in pixels, each at least 32. The field of view is the same for every size.
    random_state : int, RandomState or None, default=None
        Seed. With the same integer, image ``i`` and its label are the same whatever ``n`` is.

    Returns
    -------
    images : list of n arrays of shape (H, W), float32 in [0, 1]
    labels : array of shape (n,), str
        Shuffled; class counts differ by at most one.

    Raises
    ------
    ValueError
        If ``n``, ``n_classes`` or ``size`` is out of range.

    References
    ----------
    .. [1] Luo, Q., Holm, E. A., Wang, C. (2021). A transfer learning approach for improved
    classification of carbon
       nanomaterials from TEM images. Nanoscale Advances, 3, 206-213.

    Examples
    --------
    >>> from hypervlad.datasets import make_tem_images
    >>> images, labels = make_tem_images(8, size=64, random_state=0)
    >>> images[0].shape, sorted(set(labels.tolist()))
    ((64, 64), ['cluster', 'fiber', 'matrix', 'matrix-surface'])
    """
    n = check_count(n)
    names = _class_names(n_classes)
    height, width = check_size(size, SMALLEST_SIZE)
    seed = int(check_random_state(random_state).randint(2**31 - 1))
    labels = _balanced_labels(n, names, seed)
    images = [
        _make_image(label, np.random.default_rng([_IMAGES, seed, i]), height, width)
        for i, label in enumerate(labels)
    ]
    return images, labels


def _make_image(
    label: str, rng: np.random.Generator, height: int, width: int
) -> NDArray[np.float32]:
    if label in TEM_CLASSES:
        members = [fine for fine, coarse in TEM_FINE_CLASSES.items() if coarse == label]
        label = members[int(rng.integers(len(members)))]
    # A margin keeps the far edge, which the Fourier transform wraps around, out of the picture.
    margin = max(8, min(height, width) // 16)
    full = tuple(fft.next_fast_len(extent + 2 * margin) for extent in (height, width))
    unit = min(height, width) / 224
    specimen = make_specimen(label, rng, (full[0], full[1]), unit)
    return np.ascontiguousarray(record_image(specimen, rng, margin, unit)[:height, :width])


def _balanced_labels(n: int, names: Sequence[str], seed: int) -> NDArray[np.str_]:
    """Random permutations of the classes, end to end, so that every beginning is balanced too."""
    n_rounds = -(-n // len(names))
    rng = np.random.default_rng([_LABELS, seed])
    order = np.concatenate([rng.permutation(len(names)) for _ in range(n_rounds)])[:n]
    return np.asarray(names)[order]


def _class_names(n_classes: int) -> tuple[str, ...]:
    if n_classes == 4:
        return TEM_CLASSES
    if n_classes == 8:
        return tuple(TEM_FINE_CLASSES)
    raise ValueError(f"n_classes={n_classes!r}: there are synthetic images of 4 or of 8 classes.")
