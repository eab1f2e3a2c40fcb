"""Synthetic scanning electron micrographs of electrospun nanofibre mats, with their defects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from hypervlad.datasets._arguments import check_count, check_size
from hypervlad.datasets._mats import draw_mat, make_surface
from hypervlad.datasets._sem import scan_surface

SMALLEST_SIZE = 64
#: What can go wrong in a mat: see `make_nanofibre_images`.
NANOFIBRE_DEFECTS: tuple[str, ...] = ("bead", "clump", "film", "hole", "particle")
_SAMPLING = 2  # points of the surface a pixel, each way: fibres without steps


def make_nanofibre_images(
    n: int,
    *,
    defective: float = 0.5,
    defects: Sequence[str] = NANOFIBRE_DEFECTS,
    size: int | tuple[int, int] = (348, 512),
    random_state: int | np.random.RandomState | None = None,
) -> tuple[list[NDArray[np.float32]], list[NDArray[np.bool_]]]:
    """Make synthetic SEM images of nanofibre mats, some with defects, and the masks of these.

    Each image is a mat of its own: worm-like fibres of random thickness, density, alignment and
    curl, that lie over one another, on a dark or a grey collector, with shadows between them.
    Focus and noise are random. Gain and offset follow the whole picture, as an instrument's
    automatic contrast does, so a large bright defect makes the rest a little darker.

    Parameters
    ----------
    n : int
        Number of images, at least 1.
    defective : float, default=0.5
        Share of the images that have defects: one to four each, beads in swarms of up to eight.
    defects : sequence of str, default=all of them
        Kinds to draw from. "bead": a spindle-shaped swelling of a fibre; "clump": a lump of fused
        fibres; "film": a web of polymer between fibres; "hole": a place without fibres;
        "particle": a foreign body on top.
    size : int or (int, int), default=(348, 512)
        Height and width in pixels, each at least 64. The shorter side sees as much of the mat,
        whatever the size.
    random_state : int, RandomState or None, default=None
        Seed. With the same integer, image ``i`` and its mask are the same whatever ``n`` is.

    Returns
    -------
    images : list of n arrays of shape (H, W), float32 in [0, 1]
    masks : list of n arrays of shape (H, W), bool
        True where what one sees is a defect: not where a fibre lies over it, and of a hole not the
        part that its rim hides. A defect that is hidden altogether leaves no trace in either.

    Raises
    ------
    ValueError
        If a parameter is out of range or a kind of defect is unknown.

    Examples
    --------
    >>> from hypervlad.datasets import make_nanofibre_images
    >>> images, masks = make_nanofibre_images(2, size=96, random_state=0)
    >>> images[0].shape, [bool(mask.any()) for mask in masks]
    ((96, 96), [False, True])
    """
    kinds = _check_kinds(defects, defective)
    n = check_count(n)
    height, width = check_size(size, SMALLEST_SIZE)
    seed = int(check_random_state(random_state).randint(2**31 - 1))
    flawed = _which_are_defective(n, defective, seed)
    made = [
        _make_image(np.random.default_rng([1, seed, i]), kinds if flawed[i] else (), height, width)
        for i in range(n)
    ]
    return [image for image, _ in made], [mask for _, mask in made]


def _make_image(
    rng: np.random.Generator, kinds: tuple[str, ...], height: int, width: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    unit = _SAMPLING * min(height, width) / 348
    mat = draw_mat(rng, unit)
    wanted = int(rng.integers(1, 5))
    drawn = tuple(str(kind) for kind in rng.choice(kinds, wanted)) if kinds else ()
    surface = make_surface(rng, (height * _SAMPLING, width * _SAMPLING), mat, drawn, unit)
    image = scan_surface(surface, rng, _SAMPLING, unit)
    blocks = surface.defect.reshape(height, _SAMPLING, width, _SAMPLING)
    return image, blocks.mean(axis=(1, 3)) >= 0.5


def _which_are_defective(n: int, share: float, seed: int) -> NDArray[np.bool_]:
    """Every beginning of the list has the share, give or take one image."""
    start = np.random.default_rng([0, seed]).random()
    steps = np.floor(start + share * np.arange(n + 1))
    return np.diff(steps) > 0


def _check_kinds(defects: Sequence[str], defective: float) -> tuple[str, ...]:
    if isinstance(defective, bool) or not 0 <= defective <= 1:
        raise ValueError(f"defective={defective!r}: expected a share of the images, 0 to 1.")
    kinds = (defects,) if isinstance(defects, str) else tuple(defects)
    unknown = sorted(set(kinds) - set(NANOFIBRE_DEFECTS))
    if unknown or (not kinds and defective):
        raise ValueError(
            f"defects={defects!r}: expected some of {', '.join(NANOFIBRE_DEFECTS)}; for images "
            "without any, defective=0."
        )
    return kinds
