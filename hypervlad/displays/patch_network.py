"""The filters of a patch network, and its activations on a patch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.displays.colours import GREY
from hypervlad.displays.image_grid import BLANK, Grid, GridDisplay, Line, Tile

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class PatchNetworkDisplay(GridDisplay):
    """The filters of each convolution, and below them their activations on one patch.

    Filters are the mean over their input channels; mid-grey is zero. Activations are after ReLU:
    black is zero. Each layer has its own scale.

    Usually created by `from_estimator`.

    Parameters
    ----------
    patch : ndarray of shape (p, p) or (p, p, 3)
    filters : sequence of ndarray of shape (n_filters, k, k)
        Of each convolution.
    activations : sequence of ndarray of shape (n_filters, h, w)
    caption : str, optional
        Written beneath the patch.

    Attributes
    ----------
    figure_ : matplotlib Figure
    ax_ : matplotlib Axes

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.displays import PatchNetworkDisplay
    >>> rng = np.random.default_rng(0)
    >>> filters, activations = rng.normal(size=(4, 3, 3)), rng.random((4, 10, 10))
    >>> display = PatchNetworkDisplay(rng.random((12, 12)), [filters], [activations]).plot()
    >>> display.figure_ is display.ax_.figure
    True
    """

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
        """Show the filters of a network and its activations on a patch.

        Parameters
        ----------
        model : fitted PatchCNNClassifier
        patch : path or array
            Of the size of the training patches.
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
        caption = f"{model.classes_[proba.argmax()]} {100 * proba.max():.0f} %"
        (pixels,) = model.as_network_input([patch])
        shown = np.moveaxis(pixels, 0, -1)
        shown = shown[..., 0] if shown.shape[-1] == 1 else shown
        filters = [kernel.mean(axis=1) for kernel in kernels]
        return cls(shown, filters, activations, caption).plot(ax=ax)

    @property
    def grid(self) -> Grid:
        """The extent of the grid: filters above, activations below."""
        n_columns = 1 + len(self.filters)
        return Grid(2 * n_columns, n_columns, n_lines=2)

    def _tiles(self) -> list[Tile]:
        above = [Tile(self.patch, [Line("patch"), Line(self.caption, GREY)], crisp=True)]
        below = [BLANK]
        for number, (kernels, maps) in enumerate(
            zip(self.filters, self.activations, strict=True), start=1
        ):
            extreme = float(np.abs(kernels).max()) or 1.0
            above.append(_layer(f"filters {number}", 0.5 + 0.5 * kernels / extreme))
            below.append(_layer(f"activations {number}", maps / (float(maps.max()) or 1.0)))
        return [*above, *below]


def _layer(name: str, images: NDArray[Any]) -> Tile:
    n, height, width = images.shape
    caption = [Line(name), Line(f"{n} of {height} x {width}", GREY)]
    return Tile(montage(images), caption, crisp=True)


def montage(images: NDArray[Any]) -> NDArray[np.float64]:
    """Arrange n small images (n, h, w) in a near square, with white lines between them."""
    n, height, width = images.shape
    n_columns = math.ceil(math.sqrt(n))
    n_rows = math.ceil(n / n_columns)
    whole = np.ones((n_rows * (height + 1) - 1, n_columns * (width + 1) - 1))
    for i, image in enumerate(images):
        row, column = divmod(i, n_columns)
        top, left = row * (height + 1), column * (width + 1)
        whole[top : top + height, left : left + width] = image
    return whole
