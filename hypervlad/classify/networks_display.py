"""Figures of trained networks: training curves, and the filters and activations on a patch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from hypervlad.pages.base import BLANK, Display, Grid, GridDisplay, Line, Tile
from hypervlad.pages.colours import GREY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TRAINING, _VALIDATION = "#9ec5e8", "#1f5a8c"


class TrainingCurvesDisplay(Display):
    """Loss of each epoch, on training and on validation samples.

    Parameters
    ----------
    training, validation : sequence of float
        One value per epoch.
    best_epoch : int
        The epoch whose weights were kept, from 0; -1 for the weights before the first epoch.
    start : float, optional
        The validation loss before the first epoch, of a pretrained network.

    Examples
    --------
    >>> from hypervlad.results import TrainingCurvesDisplay
    >>> display = TrainingCurvesDisplay([0.7, 0.5, 0.3], [0.7, 0.6, 0.8], best_epoch=1).plot()
    >>> len(display.ax_.lines) >= 2
    True
    """

    def __init__(
        self,
        training: Sequence[float],
        validation: Sequence[float],
        best_epoch: int,
        start: float | None = None,
    ) -> None:
        self.training = training
        self.validation = validation
        self.best_epoch = best_epoch
        self.start = start

    @classmethod
    def from_estimator(cls, model: Any, *, ax: Axes | None = None) -> TrainingCurvesDisplay:
        """Plot the curves of a fitted network.

        Parameters
        ----------
        model : PatchCNNClassifier or TransferClassifier
        ax : matplotlib Axes, optional

        Raises
        ------
        ValueError
            If the model's network was not trained.
        """
        check_is_fitted(model)
        curves = model.history_ if hasattr(model, "history_") else model.curves_
        if not curves:
            why = f"(mode={model.mode!r})" if curves is None else "here"
            raise ValueError(
                f"this {type(model).__name__} has no history: its network was not trained {why}"
            )
        start = getattr(curves, "start_loss", None)
        return cls(curves.loss, curves.validation_loss, curves.best_epoch, start).plot(ax=ax)

    figure_size = 5.6, 3.6

    def _draw(self) -> None:
        epochs = range(1, len(self.training) + 1)
        for values, colour, label in (
            (self.training, _TRAINING, "training"),
            (self.validation, _VALIDATION, "validation"),
        ):
            self.ax_.plot(epochs, values, color=colour, label=label, linewidth=1.6)
        if self.start is not None:
            self.ax_.plot(0, self.start, "s", color=_VALIDATION, markersize=5, label="start")
        title = "weights kept: those before the first epoch"
        if self.best_epoch >= 0:
            best = self.validation[self.best_epoch]
            self.ax_.axvline(self.best_epoch + 1, color=GREY, linestyle="--", linewidth=0.8)
            self.ax_.plot(self.best_epoch + 1, best, "o", color=_VALIDATION, markersize=5)
            title = f"weights kept: epoch {self.best_epoch + 1}, validation loss {best:.3f}"
        self.ax_.set(
            xlabel="epoch",
            ylabel="loss",
            xlim=(1 if self.start is None else 0, max(2, len(self.training))),
            title=title,
        )
        self.ax_.title.set_fontsize(9)
        self.ax_.locator_params(axis="x", integer=True)
        self.ax_.legend(frameon=False, fontsize=9)
        self.ax_.spines[["top", "right"]].set_visible(False)


class PatchNetworkDisplay(GridDisplay):
    """The filters of each convolution, and below them their activations on one patch.

    Filters are averaged over their input channels, and zero is mid-grey; activations are those
    after ReLU, and zero is black. Each layer has its own scale.

    Parameters
    ----------
    patch : ndarray of shape (p, p) or (p, p, 3)
    filters : sequence of ndarray of shape (n_filters, k, k)
    activations : sequence of ndarray of shape (n_filters, h, w)
    caption : str, default=""
        Written beneath the patch.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.results import PatchNetworkDisplay
    >>> rng = np.random.default_rng(0)
    >>> filters, activations = rng.normal(size=(4, 3, 3)), rng.random((4, 10, 10))
    >>> display = PatchNetworkDisplay(rng.random((12, 12)), [filters], [activations])
    >>> display.figure_size[0] > 2
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
        """Plot the filters of a network and its activations on a patch.

        Parameters
        ----------
        model : fitted PatchCNNClassifier
        patch : path or array
            Of the size of the training patches.
        ax : matplotlib Axes, optional

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
    from skimage.util import montage

    n, height, width = images.shape
    n_columns = math.ceil(math.sqrt(n))
    shape = (math.ceil(n / n_columns), n_columns)
    pixels = montage(images, fill=1.0, padding_width=1, grid_shape=shape)[1:-1, 1:-1]
    return Tile(pixels, [Line(name), Line(f"{n} of {height} x {width}", GREY)], crisp=True)
