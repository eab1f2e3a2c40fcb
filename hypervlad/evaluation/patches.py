"""The confusion matrix of patches: squares of an image that are called defective or not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.evaluation.maps import check_same_shape
from hypervlad.images.masks import as_mask


@dataclass(frozen=True)
class PatchConfusion:
    """Numbers of patches by truth and prediction, of one image or of many.

    Attributes
    ----------
    true_positives, false_positives, false_negatives, true_negatives : int
        Positive is defective.
    """

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int

    @classmethod
    def total(cls, confusions: Iterable[PatchConfusion]) -> PatchConfusion:
        """Return the sum of the counts of several images."""
        counts = [
            (c.true_positives, c.false_positives, c.false_negatives, c.true_negatives)
            for c in confusions
        ]
        return (
            cls(*(sum(column) for column in zip(*counts, strict=True))) if counts else cls(*[0] * 4)
        )

    @property
    def n_patches(self) -> int:
        """Number of patches."""
        wrong = self.false_positives + self.false_negatives
        return self.true_positives + self.true_negatives + wrong

    @property
    def precision(self) -> float:
        """Share of the patches called defective that are; NaN if none is called defective."""
        return _ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """Share of the defective patches that are called so; NaN if there is none."""
        return _ratio(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; NaN if nothing is defective or called so."""
        wrong = self.false_positives + self.false_negatives
        return _ratio(2 * self.true_positives, 2 * self.true_positives + wrong)

    @property
    def accuracy(self) -> float:
        """Share of the patches that are classified correctly; NaN without patches."""
        return _ratio(self.true_positives + self.true_negatives, self.n_patches)


def patch_confusion(
    predicted: ArrayLike,
    mask: ArrayLike,
    patch: int = 29,
    *,
    min_fraction: float = 0.1,
    edges: Literal["pad", "drop"] = "pad",
) -> PatchConfusion:
    """Compare a defect map with a mask, patch by patch.

    The image is cut into squares from its upper left corner. A square is defective if at least
    `min_fraction` of its pixels are, in the mask and in the map [1]_.

    Parameters
    ----------
    predicted, mask : array of shape (H, W)
        True (or 1, or 255) where there is a defect.
    patch : int, default=29
        Side of the squares in pixels.
    min_fraction : float, default=0.1
        In (0, 1].
    edges : {"pad", "drop"}, default="pad"
        Narrower squares at the right and lower edges are judged by the pixels that they have, or
        dropped.

    Returns
    -------
    confusion : PatchConfusion

    Raises
    ------
    ValueError
        If the shapes differ, one of them is not a mask, a parameter is out of range, or no square
        is left.

    References
    ----------
    .. [1] A. Carrillo Pérez, "Defect detection in SEM images of nanofibrous
       materials", 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.evaluation import patch_confusion
    >>> mask = np.zeros((58, 58), dtype=bool)
    >>> mask[:29] = True  # the upper two of four squares
    >>> confusion = patch_confusion(mask.T, mask)
    >>> confusion.true_positives, confusion.false_positives, confusion.f1
    (1, 1, 0.5)
    """
    found, truth = as_mask(predicted, "predicted"), as_mask(mask, "mask")
    check_same_shape(found, truth, "predicted", "mask")
    called = defective_patches(found, patch, min_fraction=min_fraction, edges=edges)
    true = defective_patches(truth, patch, min_fraction=min_fraction, edges=edges)
    return PatchConfusion(
        int((called & true).sum()),
        int((called & ~true).sum()),
        int((~called & true).sum()),
        int((~called & ~true).sum()),
    )


def defective_patches(
    mask: NDArray[np.bool_], patch: int, *, min_fraction: float, edges: Literal["pad", "drop"]
) -> NDArray[np.bool_]:
    """Return for each square whether at least `min_fraction` of it is defective."""
    patch = check_side("patch", patch)
    check_min_fraction(min_fraction)
    _check_edges(edges)
    if edges == "drop":
        rows, columns = (extent // patch * patch for extent in mask.shape)
        if not rows or not columns:
            raise ValueError(
                f"an image of {mask.shape[0]} x {mask.shape[1]} pixels holds no whole patch of "
                f"{patch} x {patch}: choose a smaller patch, or edges='pad'."
            )
        mask = mask[:rows, :columns]
    starts = [np.arange(0, extent, patch) for extent in mask.shape]
    counts = np.add.reduceat(
        np.add.reduceat(mask, starts[0], axis=0, dtype=np.int64), starts[1], axis=1
    )
    heights, widths = (
        np.diff(np.append(start, extent)) for start, extent in zip(starts, mask.shape, strict=True)
    )
    # Rounded up to whole pixels, less rounding errors, so that 0.1 of 10 pixels is one pixel.
    needed = np.maximum(1, np.ceil(min_fraction * np.outer(heights, widths) - 1e-9))
    return np.asarray(counts >= needed)


def check_side(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} must be a whole number of pixels, at least 1; got {value!r}.")
    return int(value)


def check_min_fraction(value: float) -> None:
    if not 0 < value <= 1:
        raise ValueError(f"min_fraction must be in (0, 1]; got {value!r}.")


def _check_edges(edges: str) -> None:
    if edges not in ("pad", "drop"):
        raise ValueError(f"edges must be 'pad' or 'drop'; got {edges!r}.")


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
