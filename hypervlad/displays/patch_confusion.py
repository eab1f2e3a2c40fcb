"""Patches of images, coloured by whether they were called what they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.displays.defect_map import (
    LEGEND_INCHES,
    SEEN,
    SIDE,
    Colour,
    check_size,
    draw_legend,
    in_colour,
    names_or_own,
    one_each,
)
from hypervlad.displays.figures import axes_or_new
from hypervlad.displays.tiles import GREY, Line, Tile, draw_tiles, sheet_size, thumbnail
from hypervlad.images import check_image_list, read_image, read_mask
from hypervlad.images.masks import mask_banner_rows
from hypervlad.metrics import PatchConfusion, patch_confusion
from hypervlad.metrics.patches import defective_patches

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that people with any kind of colour vision tell apart (Okabe and Ito 2008).
HIT: Colour = (0.0, 0.62, 0.45)
FALSE_ALARM: Colour = SEEN
MISSED: Colour = (0.84, 0.37, 0.0)
SOUND: Colour = (0.80, 0.80, 0.80)


class PatchConfusionDisplay:
    """Images with each patch coloured by whether it was rightly called defective or sound.

    Parameters
    ----------
    images : sequence of n path or ndarray of shape (H, W) or (H, W, 3)
    predicted : sequence of n ndarray of shape (H, W)
        True where a defect is seen.
    masks : sequence of n path, ndarray or None
        True where there is one; None for an image without defects.
    patch : int, default=29
    min_fraction : float, default=0.1
    edges : {"pad", "drop"}, default="pad"
        As in :func:`hypervlad.metrics.patch_confusion`.
    names : sequence of n str, optional
    read_options : mapping, optional

    Attributes
    ----------
    confusions : list of PatchConfusion
        Of each image.
    figure_ : matplotlib Figure
    ax_ : matplotlib Axes
    """

    figure_: Figure
    ax_: Axes

    def __init__(
        self,
        images: Sequence[Any],
        predicted: Sequence[ArrayLike],
        masks: Sequence[Any],
        *,
        patch: int = 29,
        min_fraction: float = 0.1,
        edges: Any = "pad",
        names: Sequence[str] | None = None,
        read_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.images = check_image_list(images)
        n_images = len(self.images)
        self.seen = [read_mask(m) for m in one_each("predicted map", predicted, n_images)]
        truths = zip(one_each("mask", masks, n_images), self.seen, strict=True)
        rows = mask_banner_rows(read_options or {})
        self.truths = [
            np.zeros(seen.shape, dtype=bool)
            if mask is None
            else read_mask(mask, shape=seen.shape, banner_rows=rows)
            for mask, seen in truths
        ]
        self.names = names_or_own(self.images, names)
        self.read_options = read_options
        self.patch = patch
        self._rule: dict[str, Any] = {"min_fraction": min_fraction, "edges": edges}
        self.confusions = [
            patch_confusion(seen, truth, patch, **self._rule)
            for seen, truth in zip(self.seen, self.truths, strict=True)
        ]

    @classmethod
    def from_predictions(
        cls,
        images: Sequence[Any],
        predicted: Sequence[ArrayLike],
        masks: Sequence[Any],
        *,
        ax: Axes | None = None,
        **options: Any,
    ) -> PatchConfusionDisplay:
        """Make a display, with the parameters of the class, and plot it."""
        return cls(images, predicted, masks, **options).plot(ax=ax)

    @property
    def figure_size(self) -> tuple[float, float]:
        """Width and height in inches that suit the number of images."""
        width, height = sheet_size(len(self.images), 3, 3)
        return max(width, 4.0), height + LEGEND_INCHES

    def plot(self, ax: Axes | None = None) -> PatchConfusionDisplay:
        """Read the images and draw them.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            A new figure by default.

        Returns
        -------
        PatchConfusionDisplay
            Itself.

        Raises
        ------
        ValueError
            If an image cannot be read or is of another size than its map.
        """
        self.figure_, self.ax_ = axes_or_new(ax, self.figure_size)
        draw_tiles(self.ax_, [self._tile(row) for row in range(len(self.images))], 3)
        entries = [("hit", HIT), ("false alarm", FALSE_ALARM), ("missed", MISSED), ("sound", SOUND)]
        draw_legend(self.ax_, entries)
        return self

    def _tile(self, row: int) -> Tile:
        pixels = read_image(self.images[row], **dict(self.read_options or {}))
        seen, truth = self.seen[row], self.truths[row]
        check_size(self.names[row], pixels, seen)
        called, true = (
            enlarged(defective_patches(region, self.patch, **self._rule), self.patch, seen.shape)
            for region in (seen, truth)
        )
        shown = called.shape
        picture = in_colour(pixels)
        tinted = picture[: shown[0], : shown[1]]
        for where, colour, strength in (
            (called & true, HIT, 0.55),
            (called & ~true, FALSE_ALARM, 0.55),
            (~called & true, MISSED, 0.6),
            (~called & ~true, SOUND, 0.12),
        ):
            tinted[where] = (1 - strength) * tinted[where] + strength * np.asarray(colour)
        return Tile(
            thumbnail(picture, SIDE), _counts_in_words(self.names[row], self.confusions[row])
        )


def enlarged(patches: NDArray[np.bool_], patch: int, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Give every pixel what is said of its patch; patches at the edge are cut to the image."""
    whole = patches.repeat(patch, axis=0).repeat(patch, axis=1)
    return whole[: shape[0], : shape[1]]


def _counts_in_words(name: str, found: PatchConfusion) -> list[Line]:
    return [
        Line(name),
        Line(
            f"{found.true_positives} hit, {found.false_positives} false, "
            f"{found.false_negatives} missed",
            GREY,
        ),
        Line(f"F1 {found.f1:.2f}" if found.f1 == found.f1 else "nothing defective", GREY),
    ]
