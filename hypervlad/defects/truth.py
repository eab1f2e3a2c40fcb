"""What is known of training images: nothing, a mask of each, or a label of each patch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.classifier.validation import checked_labels, of_length
from hypervlad.defects.lattice import Lattice
from hypervlad.images import ImageReadError, read_mask
from hypervlad.images.errors import image_name
from hypervlad.images.masks import warn_if_inverted
from hypervlad.patches import ANOMALOUS, NORMAL, patch_means

MIXED = ""  # neither defective enough to be called so nor sound: not learnt from


@dataclass(frozen=True, eq=False)
class Truth:
    """Labels of the windows of training images.

    Attributes
    ----------
    images : list of paths and arrays
    masks : list of paths, arrays or None; or None
    labels : ndarray of str, or None
        Of whole patches.
    min_fraction : float
        Of a window's pixels that are defective, from which on it is.
    banner_rows : int or None
        As in :func:`hypervlad.images.read_mask`.
    shares : dict from int to float
        Defective share of the mask of each image that has defects, of those looked at so far.
    """

    images: list[Any]
    masks: list[Any] | None
    labels: NDArray[Any] | None
    min_fraction: float
    banner_rows: int | None = 0
    shares: dict[int, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        images: list[Any],
        y: Any,
        masks: Sequence[Any] | None,
        min_fraction: float,
        banner_rows: int | None = 0,
    ) -> Truth:
        """Check what the user gave.

        Raises
        ------
        ValueError
            If there are labels and masks, not one for each image, or no label "normal" beside
            others.
        """
        if y is not None and masks is not None:
            raise ValueError(
                "give y, a label for each patch, or masks, one for each image, but not both"
            )
        if masks is not None:
            if isinstance(masks, str | bytes):
                raise ValueError("masks is a list, a mask or None for each image; got one path")
            masks = list(masks)
            of_length("masks", np.empty(len(masks)), len(images))
            _check_there(masks)
        labels = None if y is None else checked_labels(y, len(images)).astype(str)
        if labels is not None and (labels == MIXED).any():
            raise ValueError(f"the label (y) of image {labels.tolist().index(MIXED)} is empty")
        if labels is not None and (NORMAL not in labels or len(np.unique(labels)) < 2):
            raise ValueError(
                f"the labels (y) are {np.unique(labels).tolist()}; expected {NORMAL!r} and at "
                f"least one other, such as {ANOMALOUS!r}. Without labels (y), all count as good"
            )
        return cls(images, masks, labels, min_fraction, banner_rows)

    @property
    def is_known(self) -> bool:
        """Whether there are labels or masks."""
        return self.labels is not None or self.masks is not None

    def of_windows(
        self, position: int, shape: tuple[int, int], size: tuple[int, int], windows: Lattice
    ) -> NDArray[np.str_]:
        """Return the labels (n,) of an image's windows, row by row.

        Parameters
        ----------
        position : int
            Of the image in the list.
        shape, size : (int, int)
            Height and width of the image, and at what size the windows lie over it.
        windows : Lattice
        """
        n_windows = len(windows.rows) * len(windows.columns)
        if self.labels is not None:
            if n_windows > 1:
                name = image_name(self.images[position], position)
                raise ImageReadError(
                    f"{name}: {shape[0]} x {shape[1]} pixels, where y labels patches of "
                    f"{windows.side} x {windows.side}; cut the image into patches "
                    "(hypervlad.patches.cut_patches), or give masks instead of y"
                )
            return np.array([self.labels[position]])
        if self.masks is None or self.masks[position] is None:
            return np.full(n_windows, NORMAL)
        mask = self._mask(position, shape)
        if mask.any():
            self.shares[position] = float(mask.mean())
        if shape != size:  # images brought to a common pixel size
            down, across = (np.arange(n) * old // n for n, old in zip(size, shape, strict=True))
            mask = mask[down][:, across]
        shares = patch_means(mask, windows.positions, windows.side)
        labels = np.full(n_windows, MIXED, dtype=f"<U{len(ANOMALOUS)}")
        labels[shares == 0] = NORMAL
        labels[shares >= self.min_fraction] = ANOMALOUS
        return labels

    def check_masks(self) -> None:
        """Warn if the masks looked at are probably inverted."""
        warn_if_inverted(list(self.shares.values()))

    def _mask(self, position: int, shape: tuple[int, int]) -> NDArray[np.bool_]:
        assert self.masks is not None
        try:
            return read_mask(self.masks[position], shape=shape, banner_rows=self.banner_rows)
        except ImageReadError as error:
            name = image_name(self.images[position], position)
            raise ImageReadError(f"the mask of {name}: {error}") from error


def _check_there(masks: list[Any]) -> None:
    """Find out before the images are read, not after, that there is nothing to learn from."""
    if all(mask is None for mask in masks):
        raise ValueError(
            "no image has a mask (all are None), so no defect can be learnt: fit on good images "
            "alone, without masks"
        )
    for mask in masks:
        if isinstance(mask, str | os.PathLike) and not os.path.isfile(mask):
            raise ImageReadError(f"{os.fspath(mask)}: there is no such mask")
