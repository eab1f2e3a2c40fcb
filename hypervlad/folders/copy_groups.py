"""Groups that keep copies of images together: for all that holds images out, and for checks."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.common.progress import ProgressBar, announced
from hypervlad.common.wording import counted, name_some, warn_user
from hypervlad.folders.copies import Thumbnail, find_near_copies, group_copies, make_thumbnail
from hypervlad.images import ReadOptions, SkippedImage
from hypervlad.images.pixels import originals_of
from hypervlad.images.reading import (
    N_READERS,
    is_particle,
    read_in_order,
    read_named,
    relative_names,
)
from hypervlad.statistics.splits import first_appearance_codes, joined_groups

IntArray = NDArray[np.intp]

# Pixels: smaller tiles show too little. Of 2,441 of 32 px, 6 were joined to tiles of other images
# or places, of 4,765 of 64 and 96 px 2.
_MIN_SIDE = 64
_N_MEMBERS = 3  # of a set that are named


class Copies(NamedTuple):
    """Positions of images that are copies; see `CopySet` for similarity and overlap."""

    members: list[int]
    similarity: float = 1.0
    overlap: float = 1.0


def find_copies(
    digests: Sequence[str],
    thumbnails: Sequence[Thumbnail | None],
    *,
    folders: ArrayLike,
    verbose: bool,
) -> tuple[list[Copies], list[Copies]]:
    """Return sets of exact copies, of equal pixels, and of near copies, with their exact ones.

    Images without a thumbnail have no near copies. ``folders``, (n,), is as in `find_near_copies`.
    """
    copies_of = defaultdict[int, list[int]](list)
    for i, first in enumerate(originals_of(digests).tolist()):
        copies_of[first].append(i)
    exact = [Copies(members) for members in copies_of.values() if len(members) > 1]
    # One of each set of exact copies: a hundred copies would fill the list of neighbours.
    shown = {i: own for i in copies_of if (own := thumbnails[i]) is not None}
    if len(shown) < 2:
        return exact, []
    with ProgressBar(total=len(shown), desc="Comparing", unit="image", shown=verbose) as bar:
        pairs, similarity, overlap = find_near_copies(
            list(shown.values()), np.asarray(folders)[list(shown)], bar.update
        )
    same = [copies_of[i] for i in shown]
    nearest, near = np.zeros(len(same), np.float32), list[Copies]()
    np.maximum.at(nearest, pairs.ravel(), np.repeat(similarity, 2))
    for members in group_copies(pairs, len(same)):
        shared = float(np.median(overlap[np.isin(pairs[:, 0], members)]))
        every = [i for k in members for i in same[k]]
        near.append(Copies(every, float(nearest[members].min()), shared))
    return exact, near


def join_copies(
    groups: ArrayLike, labels: ArrayLike, sets: Sequence[Copies]
) -> tuple[IntArray, list[Copies]]:
    """Number groups that separate no copies, (n,); return also the sets that were not joined.

    That are those from which a class has nothing else: of a single group, none could be held out.
    """
    groups = np.unique(groups, return_inverse=True)[1].astype(np.intp)
    labels, apart = np.asarray(labels), list[Copies]()
    # The surest copies first: they are joined if not all can be.
    for copies in sorted(sets, key=lambda each: -each.similarity):
        old = np.unique(groups[copies.members])
        joined = np.where(np.isin(groups, old), old[0], groups)
        if any(
            np.ptp(joined[labels == name]) == 0 < np.ptp(groups[labels == name])
            for name in np.unique(labels[np.isin(groups, old)])
        ):
            apart.append(copies)
        else:
            groups = joined
    return groups, apart


def keep_copies_together(
    images: Sequence[Any],
    groups: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    options: ReadOptions,
    names: Sequence[str] | None = None,
    exact_only: bool = False,
    verbose: bool = False,
) -> tuple[IntArray, int]:
    """Put copies of training images into one group, before any is held out.

    Exact copies, of equal pixels, always share a group. Near copies do unless a class would be left
    with a single group. A warning names them if their groups were others.

    Parameters
    ----------
    images : sequence of n images
        Paths, arrays or particles; near copies are looked for among images of 64 x 64 pixels or
        more that are not blank. Those that cannot be read are in their own groups.
    groups : array-like of int, shape (n,)
    labels : array-like of shape (n,), optional
        Classes that keep two groups; by default, all images are one class.
    options : ReadOptions
    names : sequence of n str, optional
        For the warning; by default relative paths, and positions of arrays.
    exact_only : bool, default=False
        Near copies are images of the same kind of object in the same place.
    verbose : bool, default=False
        Show progress bars.

    Returns
    -------
    groups : ndarray of int, shape (n,)
        They do not depend on the order of the images, except for their numbers.
    n_joined : int
        How many fewer groups there are because of near copies.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.images import ReadOptions
    >>> images = [np.eye(8), np.eye(8), np.eye(9)]
    >>> groups, n_joined = keep_copies_together(images, [0, 1, 2], options=ReadOptions())
    >>> groups.tolist(), n_joined
    ([0, 0, 1], 0)
    """
    digests, thumbnails = _looks(images, options, exact_only, verbose)
    groups = joined_groups(groups, originals_of(digests))
    order = np.argsort(digests, kind="stable")
    place = np.argsort(order)
    _, near = find_copies(
        [digests[i] for i in order],
        [thumbnails[i] for i in order],
        folders=groups[order],
        verbose=verbose,
    )
    classes = np.zeros(len(groups)) if labels is None else np.asarray(labels)
    joined, apart = join_copies(groups[order], classes[order], near)
    if near:
        names = names or [name or f"image {i}" for i, name in enumerate(relative_names(images))]
        own = [names[i] for i in order]
        _warn_of_near_copies([each for each in near if each not in apart], apart, own)
    found = first_appearance_codes(joined[place], "groups")
    return found, int(groups.max() - found.max())


def _looks(
    images: Sequence[Any], options: ReadOptions, exact_only: bool, verbose: bool
) -> tuple[list[str], list[Thumbnail | None]]:
    """Return the digest, "" if one cannot be read, and a thumbnail of each image."""
    # What is doubtful about a file was said when it was read before.
    options = replace(options, page=options.page or 0, pixel_size=None)

    def look(image: Any, name: str) -> tuple[str, Thumbnail | None]:
        micrograph = read_named(image, options, name)
        pixels = micrograph.pixels
        is_small = is_particle(image) or min(pixels.shape[:2]) < _MIN_SIDE
        return micrograph.digest, None if is_small or exact_only else make_thumbnail(pixels)

    with warnings.catch_warnings(), announced():
        warnings.simplefilter("ignore")
        outcomes = read_in_order(enumerate(images), look, N_READERS)
        shown = ProgressBar(outcomes, "Reading", total=len(images), unit="image", shown=verbose)
        found = [("", None) if isinstance(each, SkippedImage) else each for each in shown]
    return [digest for digest, _ in found], [thumbnail for _, thumbnail in found]


def _warn_of_near_copies(
    joined: Sequence[Copies], apart: Sequence[Copies], names: Sequence[str]
) -> None:
    sentences = []
    if joined:
        sentences.append(
            f"{_listed(joined, names)}. Each set is held out as one group, as figures of held-out "
            "images would be too good otherwise"
        )
    if apart:
        sentences.append(
            f"{_listed(apart, names)}. A class has nothing else, so these stay in several groups, "
            "and figures of held-out images are too good: add images of other samples"
        )
    warn_user(". ".join([*sentences, "'hypervlad check' lists them, with similarities"]))


def _listed(sets: Sequence[Copies], names: Sequence[str]) -> str:
    n_images = sum(len(each.members) for each in sets)
    what = f"{counted(n_images, 'training image')} in {counted(len(sets), 'set')}"
    return f"{what} are near copies: {name_some(sorted(_named(each, names) for each in sets))}"


def _named(copies: Copies, names: Sequence[str]) -> str:
    shown = sorted(names[i] for i in copies.members)
    more = len(shown) - _N_MEMBERS
    return " = ".join(shown[:_N_MEMBERS]) + (f" = {more} more" if more > 0 else "")
