"""Masks: which pixels of an image are defective, from a file or an array."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.images.banner import MAX_SHARE
from hypervlad.images.errors import ImageReadError, image_name
from hypervlad.images.files import IMAGE_SUFFIXES
from hypervlad.images.formats import is_partly_transparent
from hypervlad.images.options import ReadOptions, make_options
from hypervlad.images.reading import read_stored

_MOST_GREY = 0.1  # of a mask's pixels, at the edges of what is white


def read_mask(
    source: Any, *, shape: tuple[int, int] | None = None, banner_rows: int | None = 0
) -> NDArray[np.bool_]:
    """Read a mask: True where there is a defect.

    Parameters
    ----------
    source : path or array
        An image file of two colours, black (sound) and one other, usually white (defective). Grey
        edges, left by resizing or JPEG, are cut at half of the brightest value. Or an array (H, W)
        of True and False, or of 0 and one number above it.
    shape : (int, int), optional
        Height and width of the image that it belongs to.
    banner_rows : int or None, default=0
        Rows that were cut off below the image: a mask of the whole frame is cut alike. None: as
        many as the mask has more, if a banner can be so high.

    Returns
    -------
    mask : ndarray of bool, shape (H, W)
        A new array.

    Raises
    ------
    ImageReadError
        If it cannot be read, is no mask (a photograph, several labels, a transparent layer), or is
        of another size than the image.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.images import read_mask
    >>> read_mask(np.array([[0, 255], [0, 0]], dtype=np.uint8))
    array([[False,  True],
           [False, False]])
    """
    name = image_name(source)
    if isinstance(source, str | os.PathLike):
        source = _black_and_white(_stored_grey(source, name), name)
    try:
        mask = as_mask(source, "the mask").copy()
    except ValueError as error:
        raise ImageReadError(f"{name}: {error}") from error
    if shape is None or mask.shape == tuple(shape):
        return mask
    if banner_rows is None:
        extra = max(0, mask.shape[0] - shape[0])
        banner_rows = extra if extra <= MAX_SHARE * mask.shape[0] else 0
    if mask.shape == (shape[0] + banner_rows, shape[1]):
        return mask[: shape[0]]
    raise ImageReadError(
        f"{name}: a mask of {mask.shape[0]} x {mask.shape[1]} pixels for an image of {shape[0]} x "
        f"{shape[1]}; a mask has the size of its image"
    )


def warn_if_inverted(shares: Sequence[float]) -> None:
    """Warn if most images with defects have more defect than sound surface.

    Parameters
    ----------
    shares : sequence of float
        Defective share of each image that has defects.
    """
    if len(shares) and float(np.median(shares)) > 0.5:
        warnings.warn(
            f"by their masks, images with defects are defective over {np.median(shares):.0%} of "
            "their area (median): in a mask, white (or True) is the defect. Are these inverted?",
            UserWarning,
            stacklevel=3,
        )


def mask_banner_rows(read_options: Mapping[str, Any] | ReadOptions) -> int | None:
    """Return ``banner_rows`` of `read_mask` for masks of images that are read in this way."""
    if not isinstance(read_options, ReadOptions):
        read_options = make_options(dict(read_options))
    return None if read_options.banner == "remove" else 0


def find_masks(
    images: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
) -> list[Path | None]:
    """Find each image's mask in a folder.

    Parameters
    ----------
    images : sequence of n paths
    folder : path
        Of masks, each called as its image or ``NAME_mask``, with any suffix of an image file; in
        the same sub-folder of ``folder`` as the image is of ``root``, in the innermost of these, or
        in ``folder`` itself.
    root : path, optional
        Folder that the images lie under.

    Returns
    -------
    list of n Path or None
        None for an image without a mask.

    Raises
    ------
    ImageReadError
        If there is no such folder, no image has a mask, an image has two, or two images have one.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ImageReadError(f"{folder}: no such folder of masks")
    there: dict[str, list[Path]] = {}
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file():
            name = file.relative_to(folder).with_suffix("").as_posix().removesuffix("_mask")
            there.setdefault(name, []).append(file)
    found = [_mask_of(Path(image), there, root) for image in images]
    if not any(found):
        raise ImageReadError(
            f"{folder}: none of the {len(found)} images has a mask here; a mask is called as its "
            f"image, such as {Path(images[0]).stem}.png, in the same sub-folder or in none"
        )
    _check_once(images, found)
    return found


def _check_once(images: Sequence[Any], masks: Sequence[Path | None]) -> None:
    """Refuse a mask that two images would take: one of them is not the one that it shows."""
    owner: dict[Path, Any] = {}
    for image, mask in zip(images, masks, strict=True):
        if mask is not None and owner.setdefault(mask, image) is not image:
            raise ImageReadError(
                f"{mask} would be the mask of {owner[mask]} and of {image}; put masks into "
                "sub-folders called as those of the images, or give images one name each"
            )


def _mask_of(
    image: Path, there: Mapping[str, list[Path]], root: str | os.PathLike[str] | None
) -> Path | None:
    below = [image.stem]
    if root is not None and Path(root) in image.parents:
        below = list(image.relative_to(root).with_suffix("").parts)
    names = ["/".join(below[start:]) for start in range(len(below))]  # the longest first
    masks = next((there[name] for name in names if name in there), [])
    if len(masks) > 1:
        raise ImageReadError(f"{image}: two masks, {masks[0]} and {masks[1]}; keep one")
    return masks[0] if masks else None


def as_mask(mask: Any, name: str) -> NDArray[np.bool_]:
    """Return an array as a mask; it may share memory.

    Parameters
    ----------
    mask : array-like of shape (H, W)
        True and False, or 0 and one number above it.
    name : str
        What errors call it.

    Returns
    -------
    mask : ndarray of bool, shape (H, W)

    Raises
    ------
    ValueError
        If it is not two-dimensional, is empty, or holds more than 0 and one value above it.
    """
    array = np.asarray(mask)
    if array.ndim != 2 or not array.size:
        raise ValueError(f"{name} has shape (H, W), not empty; got shape {array.shape}.")
    if array.dtype == bool:
        return array
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name} holds True and False, or 0 and 255; got type {array.dtype}.")
    defective = array != 0
    others = np.unique(array[defective])
    if len(others) > 1 or not (others > 0).all():
        values = np.unique(array)
        raise ValueError(
            f"{name} holds 0 (sound) and one value above it (defective); got "
            f"{', '.join(f'{value:g}' for value in values[:5])} ({len(values)} in all). Threshold "
            "it first, for instance mask > 127."
        )
    return np.asarray(defective)


def _stored_grey(path: Any, name: str) -> NDArray[Any]:
    """Values as stored, the brightest of the three where there are colours."""
    if is_partly_transparent(path):
        raise ImageReadError(
            f"{name}: a mask with a transparent layer; export it flattened, white on black"
        )
    values = read_stored(path, name)
    return np.asarray(values.max(axis=2)) if values.ndim == 3 else values


def _black_and_white(values: NDArray[Any], name: str) -> NDArray[Any]:
    """Cut grey edges in the middle; what has few values stays, and is judged as an array."""
    if values.dtype.kind != "u" or len(np.unique(values)) <= 2:
        return values
    top = int(values.max())
    n_white = np.count_nonzero(values > 0.75 * top)
    n_grey = np.count_nonzero(values > 0.25 * top) - n_white
    has_edges_only = n_grey <= n_white and n_grey <= _MOST_GREY * values.size
    # Labels are small numbers; white is the end of the scale.
    is_small = 2 * top <= int(np.iinfo(values.dtype).max)
    if is_small or n_grey + n_white == values.size or not has_edges_only:
        raise ImageReadError(
            f"{name}: expected a mask, black and white, but got {len(np.unique(values))} values up "
            f"to {top}. Is it the image itself, or a map of several kinds of defects? Save a mask "
            "of each kind"
        )
    return np.asarray(values > top / 2)
