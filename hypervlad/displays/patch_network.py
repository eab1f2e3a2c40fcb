"""What a patch network has learnt to look for, and what it makes of a patch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.displays.figures import axes_or_new
from hypervlad.displays.tiles import GREY, Line, Tile, draw_tiles, sheet_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINES = 2


class PatchNetworkDisplay:
    """The filters of each convolution, and below them their activations on one patch.

    Filters are the mean over their input channels; mid-grey is zero. Activations are after ReLU:
    black is zero. Each layer has its own scale.

    It is best made by `from_estimator`.

    Parameters
    ----------
    patch : ndarray of shape (p, p) or (p, p, 3)
    filters : sequence of ndarray of shape (n_filters, k, k)
        Of each convolution.
    activations : sequence of ndarray of shape (n_filters, h, w)
    caption : str, optional
        What stands beneath the patch.

    Attributes
    ----------
    figure_ : matplotlib Figure
    ax_ : matplotlib Axes
    """

    figure_: Figure
    ax_: Axes

    def __init__(
        self,
        patch: NDArray[Any],
        filters: Sequence[NDArray[Any]],
        activations: Sequence[NDArray[Any]],
        caption: str = "",
    ) -> None:
        self.patch = patch
        self.filters = filters
        self.activations = activations
        self.caption = caption

    @classmethod
    def from_estimator(
        cls, model: Any, patch: Any, *, ax: Axes | None = None
    ) -> PatchNetworkDisplay:
        """Show a fitted :class:`hypervlad.baselines.PatchCNNClassifier` at work.

        Parameters
        ----------
        model : PatchCNNClassifier
        patch : path or array
            Of the size that it learnt from.
        ax : matplotlib Axes, optional

        Returns
        -------
        PatchNetworkDisplay

        Raises
        ------
        ImageReadError
            If the patch cannot be read, or is of another size.
        """
        activations = model.activations(patch)
        kernels = [w for w in model.weights_.values() if w.ndim == 4]
        proba = model.predict_proba([patch])[0]
        said = f"{model.classes_[proba.argmax()]} {100 * proba.max():.0f} %"
        (pixels,) = model.as_network_input([patch])
        shown = np.moveaxis(pixels, 0, -1)
        shown = shown[..., 0] if shown.shape[-1] == 1 else shown
        filters = [kernel.mean(axis=1) for kernel in kernels]
        return cls(shown, filters, activations, said).plot(ax=ax)

    @property
    def figure_size(self) -> tuple[float, float]:
        """Width and height in inches."""
        n_columns = 1 + len(self.filters)
        return sheet_size(2 * n_columns, n_columns, _LINES)

    def plot(self, ax: Axes | None = None) -> PatchNetworkDisplay:
        """Draw patch, filters and activations.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            A new figure by default.

        Returns
        -------
        PatchNetworkDisplay
            Itself.
        """
        self.figure_, self.ax_ = axes_or_new(ax, self.figure_size)
        above = [Tile(self.patch, [Line("patch"), Line(self.caption, GREY)], crisp=True)]
        below = [Tile(np.ones((1, 1)))]
        for number, (kernels, maps) in enumerate(
            zip(self.filters, self.activations, strict=True), start=1
        ):
            n, side = kernels.shape[:2]
            extreme = float(np.abs(kernels).max()) or 1.0
            shown = montage(0.5 + 0.5 * kernels / extreme)
            told = [Line(f"filters {number}"), Line(f"{n} of {side} x {side}", GREY)]
            above.append(Tile(shown, told, crisp=True))
            shown = montage(maps / (float(maps.max()) or 1.0))
            size = f"{maps.shape[1]} x {maps.shape[2]}"
            told = [Line(f"activations {number}"), Line(f"{n} of {size}", GREY)]
            below.append(Tile(shown, told, crisp=True))
        draw_tiles(self.ax_, [*above, *below], 1 + len(self.filters))
        return self


def montage(pictures: NDArray[Any]) -> NDArray[np.float64]:
    """Lay n small pictures (n, h, w) out in a near square, white lines between them."""
    n, height, width = pictures.shape
    n_columns = math.ceil(math.sqrt(n))
    n_rows = math.ceil(n / n_columns)
    whole = np.ones((n_rows * (height + 1) - 1, n_columns * (width + 1) - 1))
    for i, picture in enumerate(pictures):
        row, column = divmod(i, n_columns)
        top, left = row * (height + 1), column * (width + 1)
        whole[top : top + height, left : left + width] = picture
    return whole
