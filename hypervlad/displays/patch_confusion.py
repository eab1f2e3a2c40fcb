"""Patches of images, coloured by whether they are classified correctly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.displays.colours import DEFECT_FREE, FALSE_ALARM, GREY, HIT, MISSED, as_rgb
from hypervlad.displays.image_grid import (
    SHOWN_PIXELS,
    Grid,
    GridDisplay,
    Line,
    ReadingOptions,
    Tile,
    check_size,
    common_tile_height,
    draw_legend,
    names_or_default,
    one_each,
    thumbnail,
)
from hypervlad.images import check_image_list, read_mask
from hypervlad.images.masks import mask_banner_rows
from hypervlad.metrics import PatchConfusion, patch_confusion
from hypervlad.metrics.patches import defective_patches

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MIN_WIDTH = 4.0  # inches, for the legend


class PatchConfusionDisplay(GridDisplay):
    """Images with each patch coloured by whether it is correctly called defective or defect-free.

    Parameters
    ----------
    images : sequence of n path or ndarray of shape (H, W) or (H, W, 3)
    predicted : sequence of n ndarray of shape (H, W)
        True where a defect is predicted.
    masks : sequence of n path, ndarray or None
        True where there is a defect; None for an image without defects.
    patch : int, default=29
    min_fraction : float, default=0.1
    edges : {"pad", "drop"}, default="pad"
        As in :func:`hypervlad.metrics.patch_confusion`.
    names : sequence of n str, optional
    read_options : ReadOptions or mapping of its fields, optional

    Attributes
    ----------
    confusions : list of PatchConfusion
        One for each image.
    figure_ : matplotlib Figure
    ax_ : matplotlib Axes

    Raises
    ------
    ValueError
        If there is not one map, mask and name for each image, or a mask cannot be read or is of
        another size than its map; when it is plotted, also if an image is.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.displays import PatchConfusionDisplay
    >>> image, mask = np.zeros((58, 58)), np.zeros((58, 58), dtype=bool)
    >>> mask[:29] = True  # the upper two of four squares
    >>> display = PatchConfusionDisplay.from_predictions([image], [mask], [mask], names=["a.png"])
    >>> display.confusions[0].true_positives
    2
    """

    _has_legend = True

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
        read_options: ReadingOptions = None,
    ) -> None:
        self.images = check_image_list(images)
        n_images = len(self.images)
        self.predicted = [
            read_mask(each) for each in one_each("predicted map", predicted, n_images)
        ]
        rows = mask_banner_rows(read_options or {})
        self.truths = [
            np.zeros(found.shape, dtype=bool)
            if mask is None
            else read_mask(mask, shape=found.shape, banner_rows=rows)
            for mask, found in zip(one_each("mask", masks, n_images), self.predicted, strict=True)
        ]
        self.names = names_or_default(self.images, names)
        self.read_options = read_options
        self.patch = patch
        self._rule: dict[str, Any] = {"min_fraction": min_fraction, "edges": edges}
        self.confusions = [
            patch_confusion(found, truth, patch, **self._rule)
            for found, truth in zip(self.predicted, self.truths, strict=True)
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
        """Create a display with the parameters of the class, and plot it."""
        return cls(images, predicted, masks, **options).plot(ax=ax)

    @property
    def grid(self) -> Grid:
        """The extent of the grid."""
        height = common_tile_height(found.shape for found in self.predicted)
        return Grid(len(self.images), 3, n_lines=3, tile_height=height)

    @property
    def figure_size(self) -> tuple[float, float]:
        """Width and height in inches that suit the number of images."""
        width, height = super().figure_size
        return max(width, _MIN_WIDTH), height

    def _draw(self) -> None:
        super()._draw()
        entries = [("hit", HIT), ("false alarm", FALSE_ALARM), ("missed", MISSED)]
        draw_legend(self.ax_, [*entries, ("defect-free", DEFECT_FREE)])

    def _tiles(self) -> Iterator[Tile]:
        for image, name, found, truth, confusion in zip(
            self.images, self.names, self.predicted, self.truths, self.confusions, strict=True
        ):
            pixels = self._read(image)
            check_size(name, pixels, found)
            called, true = (self._by_patch(region) for region in (found, truth))
            painted = as_rgb(pixels)
            # Without the edges if they are dropped.
            tinted = painted[: called.shape[0], : called.shape[1]]
            for where, colour, strength in (
                (called & true, HIT, 0.55),
                (called & ~true, FALSE_ALARM, 0.55),
                (~called & true, MISSED, 0.6),
                (~called & ~true, DEFECT_FREE, 0.12),
            ):
                tinted[where] = (1 - strength) * tinted[where] + strength * np.asarray(colour)
            yield Tile(thumbnail(painted, SHOWN_PIXELS), _caption(name, confusion))

    def _by_patch(self, region: NDArray[np.bool_]) -> NDArray[np.bool_]:
        patches = defective_patches(region, self.patch, **self._rule)
        return enlarge_patches(patches, self.patch, region.shape)


def enlarge_patches(
    patches: NDArray[np.bool_], patch: int, shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Repeat the value of each patch for all its pixels, cropped to the shape of the image."""
    whole = patches.repeat(patch, axis=0).repeat(patch, axis=1)
    return whole[: shape[0], : shape[1]]


def _caption(name: str, found: PatchConfusion) -> list[Line]:
    return [
        Line(name),
        Line(
            f"{found.true_positives} hit, {found.false_positives} false, "
            f"{found.false_negatives} missed",
            GREY,
        ),
        Line(f"F1 {found.f1:.2f}" if found.f1 == found.f1 else "nothing defective", GREY),
    ]
