"""Images and masks cut into labelled patches, and splits that keep groups of patches whole."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state

from hypervlad.common.wording import counted
from hypervlad.features.windows.grid import (
    Edges,
    IntArray,
    patch_means,
    patch_positions,
    patches_at,
)
from hypervlad.images import ImageReadError, Micrograph, read_mask, read_micrographs
from hypervlad.images.options import make_options
from hypervlad.images.reading import check_image_list, image_name
from hypervlad.statistics.splits import check_groups, holdout_split

ANOMALOUS, NORMAL = "anomalous", "normal"
PARTS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class PatchSet:
    """Patches of many images.

    Attributes
    ----------
    pixels : ndarray of float32, shape (n, patch, patch) or (n, patch, patch, 3)
        Grey or colour values in [0, 1].
    labels : ndarray of str, shape (n,)
        "anomalous" or "normal"; all "normal" without masks.
    defective : ndarray of float64, shape (n,)
        Share of each patch that is defective.
    image_index : ndarray of int, shape (n,)
        Position of each patch's image in the list.
    positions : ndarray of int, shape (n, 2)
        Row and column of the upper left corner.
    groups : ndarray of shape (n,)
        Group of each patch; groups stay together in a split.
    names : list of str
        Of each image: the stem of its file, "image" for an array.
    """

    pixels: NDArray[np.float32]
    labels: NDArray[np.str_]
    defective: NDArray[np.float64]
    image_index: IntArray
    positions: IntArray
    groups: NDArray[Any]
    names: list[str]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: ArrayLike) -> PatchSet:
        """Return some of the patches, by number or by a mask of booleans."""
        rows = np.asarray(rows)
        rows = rows if rows.size else rows.astype(np.intp)
        return PatchSet(
            self.pixels[rows],
            self.labels[rows],
            self.defective[rows],
            self.image_index[rows],
            self.positions[rows],
            self.groups[rows],
            self.names,
        )


def cut_patches(
    images: Sequence[Any],
    masks: Sequence[Any] | None = None,
    *,
    patch: int = 29,
    stride: int | None = None,
    edges: Edges = "drop",
    min_fraction: float = 0.1,
    mixed: Literal["drop", "keep"] = "drop",
    groups: ArrayLike | None = None,
    read_options: Mapping[str, Any] | None = None,
) -> PatchSet:
    """Cut images into patches and label each by its mask.

    A patch is anomalous if at least `min_fraction` of its pixels are defective, normal if none is,
    else mixed.

    Parameters
    ----------
    images : sequence of n paths and/or arrays of shape (H, W) or (H, W, 3)
    masks : sequence of n paths, arrays or None, optional
        As for :func:`hypervlad.images.read_mask`; None for an image without defects.
    patch, stride, edges
        As in :func:`patch_positions`, with the same defaults.
    min_fraction : float, default=0.1
        In (0, 1].
    mixed : {"drop", "keep"}, default="drop"
        Leave mixed patches out, or keep them as normal.
    groups : array-like of shape (n,), optional
        Group of each image, such as its sample; by default, each image is a group.
    read_options : mapping, optional
        Fields of :class:`hypervlad.images.ReadOptions` that differ from their defaults.

    Returns
    -------
    patches : PatchSet
        Image by image in the order given, row by row. If some images are in colour, the others are
        converted to colour.

    Raises
    ------
    ValueError
        If an image or mask cannot be read or does not fit, an image is smaller than the patch, or a
        parameter is out of range; the message names the image.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.features import cut_patches
    >>> mask = np.zeros((58, 87), dtype=bool)
    >>> mask[:20, :20] = True
    >>> patches = cut_patches([np.zeros((58, 87))], [mask])
    >>> patches.pixels.shape, patches.labels[:2].tolist()
    ((6, 29, 29), ['anomalous', 'normal'])
    """
    images = check_image_list(images)
    _check_options(min_fraction, mixed)
    masks = _check_masks(masks, len(images))
    group_codes = check_groups(groups, len(images))
    group_of = group_codes if groups is None else np.asarray(groups)
    options = make_options(dict(read_options or {}))
    stems = [
        Path(image).stem if isinstance(image, str | os.PathLike) else "image" for image in images
    ]
    cuts = []
    for i, micrograph in read_micrographs(images, options=options):
        name = image_name(images[i], i)
        truth = _truth(micrograph, masks[i], name)
        cut = _cut(micrograph.pixels, truth, name, patch, stride, edges)
        cuts.append((np.full(len(cut[1]), i), *cut))
    numbers, pixels, positions, defective = zip(*cuts, strict=True)
    patches = PatchSet(
        pixels=_stacked(pixels),
        labels=np.array([]),
        defective=np.concatenate(defective),
        image_index=np.concatenate(numbers),
        positions=np.concatenate(positions),
        groups=group_of[np.concatenate(numbers)],
        names=stems,
    )
    return _labelled(patches, min_fraction, mixed)


def split_patches(
    patches: PatchSet,
    *,
    validation_size: float = 0.2,
    test_size: float = 0.2,
    by: Literal["group", "patch"] = "group",
    random_state: int | np.random.RandomState | None = None,
) -> dict[str, PatchSet]:
    """Split patches into training, validation and test, whole groups at a time.

    Parameters
    ----------
    patches : PatchSet
    validation_size, test_size : float, default=0.2
        Shares of all patches, 0 for none; approximate, since groups stay whole.
    by : {"group", "patch"}, default="group"
        "patch" splits single patches, as Carrillo Pérez (2020); neighbours then lie on both sides.
    random_state : int, RandomState or None, default=None

    Returns
    -------
    parts : dict of PatchSet
        "train", "validation" and "test"; both classes are in the first, and in the others if there
        are enough groups.

    Raises
    ------
    ValueError
        If the sizes leave nothing to learn from, or `by` is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.features import cut_patches, split_patches
    >>> patches = cut_patches(list(np.zeros((5, 29, 58))))
    >>> {name: len(part) for name, part in split_patches(patches, random_state=0).items()}
    {'train': 6, 'validation': 2, 'test': 2}
    """
    sizes = {"validation": validation_size, "test": test_size}
    for name, size in sizes.items():
        if isinstance(size, bool) or not 0 <= size < 1:
            raise ValueError(f"{name}_size is a share of the patches, in [0, 1); got {size!r}.")
    if validation_size + test_size >= 1:
        raise ValueError(
            f"validation_size={validation_size} and test_size={test_size} leave nothing to learn."
        )
    if by not in ("group", "patch"):
        raise ValueError(f"by must be 'group' or 'patch'; got {by!r}.")
    if by == "patch":
        patches = dataclasses.replace(patches, groups=np.arange(len(patches)))
    rng = check_random_state(random_state)
    rest, parts, left = np.arange(len(patches)), {}, 1.0
    for name in ("test", "validation"):
        chosen = np.array([], dtype=np.intp)
        if sizes[name]:
            kept, chosen = holdout_split(
                patches.labels[rest],
                patches.groups[rest],
                test_size=sizes[name] / left,
                random_state=rng,
            )
            rest, chosen = rest[kept], rest[chosen]
        left -= sizes[name]
        parts[name] = chosen
    parts["train"] = rest
    return {name: patches.take(parts[name]) for name in PARTS}


def _cut(
    pixels: NDArray[np.float32],
    truth: NDArray[np.bool_],
    name: str,
    patch: int,
    stride: int | None,
    edges: Edges,
) -> tuple[NDArray[np.float32], IntArray, NDArray[np.float64]]:
    try:
        positions = patch_positions((len(truth), truth.shape[1]), patch, stride, edges=edges)
    except ValueError as error:
        raise ImageReadError(f"{name}: {error}") from error
    return patches_at(pixels, positions, patch), positions, patch_means(truth, positions, patch)


def _truth(micrograph: Micrograph, mask: Any, name: str) -> NDArray[np.bool_]:
    shape = (micrograph.pixels.shape[0], micrograph.pixels.shape[1])
    if mask is None:
        return np.zeros(shape, dtype=bool)
    try:
        return read_mask(mask, shape=shape, banner_rows=micrograph.metadata["banner_rows"])
    except ImageReadError as error:
        raise ImageReadError(f"{name}, its mask: {error}") from error


def _stacked(pixels: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    if len({cut.ndim for cut in pixels}) > 1:
        pixels = [cut if cut.ndim == 4 else np.repeat(cut[..., None], 3, axis=-1) for cut in pixels]
    return np.concatenate(pixels)


def _labelled(patches: PatchSet, min_fraction: float, mixed: str) -> PatchSet:
    # A tolerance for rounding errors, because shares are those of whole pixels.
    anomalous = (patches.defective > 0) & (patches.defective >= min_fraction - 1e-9)
    labels = np.where(anomalous, ANOMALOUS, NORMAL)
    kept = anomalous | (patches.defective == 0) | (mixed == "keep")
    fields = {**vars(patches), "labels": labels}
    return PatchSet(**fields).take(kept)


def _check_options(min_fraction: float, mixed: str) -> None:
    if not 0 < min_fraction <= 1:
        raise ValueError(f"min_fraction must be in (0, 1]; got {min_fraction!r}.")
    if mixed not in ("drop", "keep"):
        raise ValueError(f"mixed must be 'drop' or 'keep'; got {mixed!r}.")


def _check_masks(masks: Sequence[Any] | None, n_images: int) -> list[Any]:
    listed = [None] * n_images if masks is None else list(masks)
    if len(listed) != n_images:
        raise ValueError(
            f"expected one mask for each of {counted(n_images, 'image')}, None for one without "
            f"defects; got {len(listed)}."
        )
    return listed
