"""Labels of the windows of training images: none, from masks, or one label for each patch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.classifier.fitting import checked_labels, of_length
from hypervlad.images import ImageReadError, read_mask
from hypervlad.images.masks import warn_if_inverted
from hypervlad.splits import check_column
from hypervlad.windows import ANOMALOUS, NORMAL, WindowGrid, patch_means
from hypervlad.windows.dataset import UNKNOWN, PreparedImage, TrainingWindows


@dataclass(frozen=True, eq=False)
class DefectLabels:
    """Labels of the windows of training images.

    Attributes
    ----------
    masks : list of paths, arrays or None; or None
    labels : ndarray of str, or None
        Of whole patches.
    min_fraction : float
        Windows of which at least this share of pixels is defective are anomalous.
    banner_rows : int or None
        As in :func:`hypervlad.images.read_mask`.
    defective_shares : dict from int to float
        Defective share of each mask that has defects, of those read so far.
    """

    masks: list[Any] | None
    labels: NDArray[Any] | None
    min_fraction: float
    banner_rows: int | None = 0
    defective_shares: dict[int, float] = field(default_factory=dict)

    @classmethod
    def check(
        cls,
        n_images: int,
        y: Any,
        masks: Sequence[Any] | None,
        min_fraction: float,
        banner_rows: int | None = 0,
    ) -> DefectLabels:
        """Check the user's labels or masks.

        Raises
        ------
        ValueError
            If there are labels and masks, not one for each image, or no label "normal" besides
            others.
        """
        if y is not None and masks is not None:
            raise ValueError(
                "give y, a label for each patch, or masks, one for each image, but not both"
            )
        return cls(
            None if masks is None else _checked_masks(masks, n_images),
            None if y is None else _checked_patch_labels(y, n_images),
            min_fraction,
            banner_rows,
        )

    @property
    def is_known(self) -> bool:
        """Whether there are labels or masks."""
        return self.labels is not None or self.masks is not None

    def of_windows(self, position: int, image: PreparedImage, grid: WindowGrid) -> NDArray[np.str_]:
        """Return the labels (n,) of the windows of the image at a position, row by row."""
        if self.labels is not None:
            if grid.size > 1:
                raise ImageReadError(
                    f"{image.name}: {image.shape[0]} x {image.shape[1]} pixels, where y labels "
                    f"patches of {grid.side} x {grid.side}; cut the image into patches "
                    "(hypervlad.windows.cut_patches), or give masks instead of y"
                )
            return np.array([self.labels[position]])
        if self.masks is None or self.masks[position] is None:
            return np.full(grid.size, NORMAL)
        mask = self._read_mask(self.masks[position], image)
        if mask.any():
            self.defective_shares[position] = float(mask.mean())
        if image.shape != image.size:  # images resampled to a common pixel size
            down, across = (
                np.arange(n) * old // n for n, old in zip(image.size, image.shape, strict=True)
            )
            mask = mask[down][:, across]
        shares = patch_means(mask, grid.positions, grid.side)
        labels = np.full(grid.size, UNKNOWN, dtype=f"<U{len(ANOMALOUS)}")
        labels[shares == 0] = NORMAL
        labels[shares >= self.min_fraction] = ANOMALOUS
        return labels

    def warn_if_inverted(self) -> None:
        """Warn if the masks read so far are probably inverted."""
        warn_if_inverted(list(self.defective_shares.values()))

    def _read_mask(self, mask: Any, image: PreparedImage) -> NDArray[np.bool_]:
        try:
            return read_mask(mask, shape=image.shape, banner_rows=self.banner_rows)
        except ImageReadError as error:
            raise ImageReadError(f"the mask of {image.name}: {error}") from error


def check_both_classes(windows: TrainingWindows) -> None:
    """Raise a ValueError unless there are normal and defective windows."""
    is_normal = windows.labels == NORMAL
    if is_normal.all():
        raise ValueError(
            "the masks mark no window as defective: fit on defect-free images alone, without "
            "masks, or lower min_fraction"
        )
    if not is_normal.any():
        raise ValueError(
            "the masks leave no window without defects, so none shows what is normal: add images, "
            "or choose a smaller patch. In a mask, white (or True) is the defect"
        )


def _checked_masks(masks: Sequence[Any], n_images: int) -> list[Any]:
    """Return the masks as a list; find missing ones before any image is read."""
    if isinstance(masks, str | bytes):
        raise ValueError("masks is a list, a mask or None for each image; got one path")
    masks = list(masks)
    of_length("masks", np.empty(len(masks)), n_images)
    if all(mask is None for mask in masks):
        raise ValueError(
            "no image has a mask (all are None), so no defect can be learnt: fit on defect-free "
            "images alone, without masks"
        )
    for mask in masks:
        if isinstance(mask, str | os.PathLike) and not os.path.isfile(mask):
            raise ImageReadError(f"{os.fspath(mask)}: there is no such mask")
    return masks


def _checked_patch_labels(y: Any, n_images: int) -> NDArray[Any]:
    check_column("y", y)
    if any(np.ndim(each) > 1 for each in y):
        raise ValueError("y is a label for each patch, but holds arrays: give masks as masks=")
    labels = checked_labels(y, n_images).astype(str)
    if (labels == UNKNOWN).any():
        raise ValueError(f"the label (y) of image {labels.tolist().index(UNKNOWN)} is empty")
    if NORMAL not in labels or len(np.unique(labels)) < 2:
        raise ValueError(
            f"the labels (y) are {np.unique(labels).tolist()}; expected {NORMAL!r} and at least "
            f"one other, such as {ANOMALOUS!r}. Without labels (y), all images count as defect-free"
        )
    return labels
