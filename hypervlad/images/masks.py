"""Masks of defective pixels, from files and arrays."""

from __future__ import annotations

import functools
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter

from hypervlad.common.wording import counted, percent, warn_user
from hypervlad.images.banner import MAX_SHARE
from hypervlad.images.errors import ImageReadError
from hypervlad.images.files import IMAGE_SUFFIXES, composed, list_files
from hypervlad.images.options import ReadOptions, check_read_options
from hypervlad.images.reading import decode_stored, image_name

T = TypeVar("T")

_MAX_GREY = 0.1  # largest share of a mask's pixels that may be grey edges
_OF_MASKS = re.compile("mask|label|truth|annotation|gt$", re.IGNORECASE)  # names of folders
_MARK = re.compile("[-_.](mask|gt|label|groundtruth|ground_truth)$", re.IGNORECASE)


def read_mask(
    source: Any, *, shape: tuple[int, int] | None = None, banner_rows: int | None = 0
) -> NDArray[np.bool_]:
    """Read a mask, which is True at defects.

    Parameters
    ----------
    source : path or array
        An image file of two colours, black (defect-free) and one other (defective); grey edges are
        thresholded. Or an array (H, W) of True and False, or of 0 and one positive number.
    shape : (int, int), optional
        Height and width of the mask's image; not checked by default.
    banner_rows : int or None, default=0
        Rows that were cut off below the image, which a mask of the whole frame loses, too. None:
        all additional rows of the mask, if a banner can be that high.

    Returns
    -------
    mask : ndarray of bool, shape (H, W)
        A new array.

    Raises
    ------
    ImageReadError
        If it cannot be read, is not a mask, or differs from the image in size.

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
    if shape is None:
        return mask
    check_fits(mask.shape, shape, banner_rows, name, "a mask")
    return mask[: shape[0]]


def check_fits(
    found: tuple[int, ...], shape: tuple[int, int], banner_rows: int | None, name: str, what: str
) -> None:
    """Raise an error unless a mask has the size of its image, or has its banner below, too."""
    if banner_rows is None:
        extra = max(0, found[0] - shape[0])
        banner_rows = extra if extra <= MAX_SHARE * found[0] else 0
    if found not in (tuple(shape), (shape[0] + banner_rows, shape[1])):
        raise ImageReadError(
            f"{name}: {what} of {found[0]} x {found[1]} pixels for an image of {shape[0]} x "
            f"{shape[1]}; {what} has the size of its image"
        )


def warn_if_inverted(shares: Sequence[float]) -> None:
    """Warn if most of these defective shares of images are above one half."""
    if len(shares) and float(np.median(shares)) > 0.5:
        warn_user(
            f"by their masks, images with defects are defective over {percent(np.median(shares))} "
            "of their area (median). White (or True) marks defects; are these masks inverted?"
        )


def mask_banner_rows(read_options: Mapping[str, Any] | ReadOptions) -> int | None:
    return None if check_read_options(read_options).banner == "remove" else 0


def find_masks(
    images: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
) -> list[Path | None]:
    """Find the mask of each image in a folder.

    Parameters
    ----------
    images : sequence of n paths
    folder : path
        Folder of masks, each named like its image (``NAME.png``, ``NAME.tif.png``), or
        ``NAME_mask``, ``NAME_gt`` or ``NAME_label``. They may be in sub-folders named like those of
        the images: ``ground_truth/crack/000_mask.png`` is the mask of ``test/crack/000.png``. It is
        not that of ``test/pit/000.png`` if there is a folder ``test/crack`` or
        ``ground_truth/pit``.
    root : path, optional
        Folder that contains the images: names of folders above it are not compared. By default,
        all names are.

    Returns
    -------
    list of n Path or None
        None for an image without a mask.

    Raises
    ------
    ImageReadError
        If there is no such folder, no image has a mask, an image has two, or two images have one.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from hypervlad.images import find_masks
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     masks = pathlib.Path(folder, "masks")
    ...     masks.mkdir()
    ...     (masks / "a_mask.png").touch()
    ...     [mask and mask.name for mask in find_masks(["images/a.tif", "images/b.tif"], masks)]
    ['a_mask.png', None]
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ImageReadError(f"{folder}: no such folder of masks")
    by_name: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(map(Path, list_files(folder))):
        if file.suffix.lower() in IMAGE_SUFFIXES and os.path.isfile(file):
            stored = composed(file.relative_to(folder).with_suffix("").as_posix())
            for name in dict.fromkeys([stored, _MARK.sub("", stored)]):
                by_name[name].append(file)
    return choose_by_name(images, folder, by_name, root)


def choose_by_name(
    images: Sequence[str | os.PathLike[str]],
    folder: Path,
    by_name: Mapping[str, list[Path]],
    root: str | os.PathLike[str] | None,
    what: str = "mask",
) -> list[Path | None]:
    """Return what belongs to each image, of files by their names; errors as of `find_masks`."""
    paths = [Path(os.path.abspath(image)) for image in images]
    n_above = 1 if root is None else len(Path(os.path.abspath(root)).parts)
    named = [_mask_of(path, by_name, n_above, what) for path in paths]
    is_foreign = functools.cache(_is_of_another_kind)
    found = [
        None if mask is None or is_foreign(path.parent, mask.parent) else mask
        for path, mask in zip(paths, named, strict=True)
    ]
    if not any(found):
        others = " (those of their names are of images in another folder)" if any(named) else ""
        raise ImageReadError(
            f"{folder}: none of the {counted(len(found), 'image')} has a {what} here{others}; a "
            f"{what} is named like its image, such as {paths[0].stem}.png, in its folder or none"
        )
    return _once(paths, found, what)


def _mask_of(
    image: Path, by_name: Mapping[str, list[Path]], n_above: int, what: str
) -> Path | None:
    masks = matches_by_name(image, by_name, n_above)
    if len(masks) > 1:
        raise ImageReadError(f"{image}: two {what}s, {masks[0]} and {masks[1]}; keep one")
    return masks[0] if masks else None


def matches_by_name(image: Path, by_name: Mapping[str, list[T]], n_above: int = 1) -> list[T]:
    """Return what has the name that agrees with the longest end of an image's absolute path."""
    names = _names_of(image, n_above)
    return next((by_name[name] for name in names if name in by_name), [])


def all_of_name(image: Path, by_name: Mapping[str, list[T]]) -> list[T]:
    """Return what has any name that agrees with an end of an image's absolute path."""
    found = (each for name in _names_of(image, 1) for each in by_name.get(name, ()))
    return list(dict.fromkeys(found))


def _names_of(image: Path, n_above: int) -> list[str]:
    return [  # longest first
        composed("/".join(parts[start:]))
        for start in range(min(n_above, len(image.parts) - 1), len(image.parts))
        for parts in (image.parts, image.with_suffix("").parts)
    ]


def _is_of_another_kind(of_image: Path, of_mask: Path) -> bool:
    """Return whether masks are of a folder beside the images': ``test/crack``, not ``test/pit``."""
    is_of_it = composed(of_image.name) == composed(of_mask.name)
    beside = of_mask.parent.resolve() == of_image.parent.resolve()
    if is_of_it or beside or _OF_MASKS.search(of_mask.name):
        return False
    return (of_image.parent / of_mask.name).is_dir() or (of_mask.parent / of_image.name).is_dir()


def _once(images: Sequence[Path], masks: Sequence[Path | None], what: str) -> list[Path | None]:
    """Give each mask to one image: of several, to that of its name or in a folder of its name."""
    owners: dict[Path, list[int]] = defaultdict(list)
    for number, mask in enumerate(masks):
        if mask is not None:
            owners[mask].append(number)
    found = list(masks)
    for mask, numbers in owners.items():
        name, place = composed(mask.stem), composed(mask.parent.name)
        own = [n for n in numbers if composed(images[n].stem) == name] or numbers
        own = [n for n in own if composed(images[n].parent.name) == place] or own
        if len(own) > 1:
            raise ImageReadError(
                f"{mask} would be the {what} of {images[own[0]]} and of {images[own[1]]}; put "
                f"{what}s into sub-folders named like those of the images, or give each image a "
                "different name"
            )
        for number in set(numbers) - set(own):
            found[number] = None
    return found


def as_mask(mask: Any, name: str) -> NDArray[np.bool_]:
    """Return an array (H, W) of True and False, or 0 and one positive number, as bool."""
    array = np.asarray(mask)
    if array.ndim != 2 or not array.size:
        raise ValueError(f"{name} must have shape (H, W), not empty; got shape {array.shape}.")
    if array.dtype == bool:
        return array
    if array.dtype.kind not in "iuf":
        raise ValueError(
            f"{name} must contain True and False, or 0 and 255; got type {array.dtype}."
        )
    defective = array != 0
    others = np.unique(array[defective])
    if len(others) > 1 or not (others > 0).all():
        values = np.unique(array)
        raise ValueError(
            f"{name} must contain 0 (defect-free) and one positive value (defective); got "
            f"{', '.join(f'{value:g}' for value in values[:5])} ({len(values)} in all). Threshold "
            "it first, for instance mask > 127."
        )
    return np.asarray(defective)


def _stored_grey(path: Any, name: str) -> NDArray[Any]:
    values = decode_stored(path, name).pixels
    if values.ndim == 2:
        return values
    grey = np.asarray(values.max(axis=2))
    bright = values[grey > 0.75 * grey.max()].astype(int) // (int(grey.max()) // 4 + 1)
    if len(np.unique(bright, axis=0)) > 1:
        raise ImageReadError(
            f"{name}: a mask of several colours; save a mask of each kind, white on black"
        )
    return grey


def _black_and_white(values: NDArray[Any], name: str) -> NDArray[Any]:
    """Threshold grey edges; leave values of at most two levels to `as_mask`."""
    mask = grey_edged_mask(values)
    if mask is None and values.dtype.kind == "u" and (n_values := len(np.unique(values))) > 2:
        raise ImageReadError(
            f"{name}: expected a mask, black and white, but got {n_values} values up to "
            f"{values.max()}. Is it the image itself, or a map of several kinds of defects? Save a "
            "mask of each kind"
        )
    return values if mask is None else mask


def grey_edged_mask(values: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Return a mask (H, W) whose edges are grey, such as that of a JPEG file; None for others.

    Grey is then a small part, of many levels, between black and white.
    """
    if values.dtype.kind != "u" or len(np.unique(values)) <= 2:
        return None
    top = int(values.max())
    is_white, is_grey = values > 0.75 * top, (values > 0.25 * top) & (values <= 0.75 * top)
    n_white, n_grey = np.count_nonzero(is_white), np.count_nonzero(is_grey)
    has_edges_only = n_grey <= n_white and n_grey <= _MAX_GREY * values.size
    # Labels are small numbers, whereas white is the end of the scale.
    is_small = 2 * top <= int(np.iinfo(values.dtype).max)
    if is_small or n_grey + n_white == values.size or not has_edges_only:
        return None
    # An area of grey is no edge, but a label or an unsure part.
    lowest, highest = (each(values, 5) for each in (minimum_filter, maximum_filter))
    has_areas = ((lowest > 0.1 * top) & (highest <= 0.75 * top)).any()
    return None if has_areas else np.asarray(values > top / 2)
