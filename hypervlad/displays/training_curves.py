"""Training curves: loss or accuracy of each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sklearn.utils.validation import check_is_fitted

from hypervlad.displays.colours import GREY
from hypervlad.displays.figures import Display

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TRAINING, _VALIDATION = "#9ec5e8", "#1f5a8c"


class TrainingCurvesDisplay(Display):
    """Loss or accuracy of each epoch, on training and on validation samples.

    Usually created by `from_estimator`.

    Parameters
    ----------
    training, validation : sequence of float
        One value per epoch.
    best_epoch : int
        The epoch whose weights were kept, counted from 0; -1 for those before the first epoch.
    name : str, default="loss"
        Name of the values.
    start : float, optional
        The value of the validation samples before the first epoch, for a pretrained network.

    Attributes
    ----------
    figure_ : matplotlib Figure
    ax_ : matplotlib Axes

    Examples
    --------
    >>> from hypervlad.displays import TrainingCurvesDisplay
    >>> display = TrainingCurvesDisplay([0.7, 0.5, 0.3], [0.7, 0.6, 0.8], best_epoch=1).plot()
    >>> len(display.ax_.lines) >= 2
    True
    """

    def __init__(
        self,
        training: Sequence[float],
        validation: Sequence[float],
        best_epoch: int,
        name: str = "loss",
        start: float | None = None,
    ) -> None:
        self.training = training
        self.validation = validation
        self.best_epoch = best_epoch
        self.name = name
        self.start = start

    @classmethod
    def from_estimator(
        cls, model: Any, *, of: str = "loss", ax: Axes | None = None
    ) -> TrainingCurvesDisplay:
        """Plot the curves of a fitted network of ``hypervlad.baselines``.

        Parameters
        ----------
        model : PatchCNNClassifier or TransferClassifier
        of : {"loss", "accuracy"}, default="loss"
        ax : matplotlib Axes, optional

        Returns
        -------
        TrainingCurvesDisplay

        Raises
        ------
        ValueError
            If ``of`` is unknown, or the model's network was not trained.
        """
        if of not in ("loss", "accuracy"):
            raise ValueError(f"of must be 'loss' or 'accuracy'; got {of!r}.")
        check_is_fitted(model)
        curves = model.history_ if hasattr(model, "history_") else model.curves_
        if curves is None:
            raise ValueError(
                f"this {type(model).__name__} has no history: its network was not trained "
                f"(mode={model.mode!r})"
            )
        sides = getattr(curves, of), getattr(curves, f"validation_{of}")
        start = getattr(curves, f"start_{of}", None)
        return cls(*sides, curves.best_epoch, of, start).plot(ax=ax)

    @property
    def figure_size(self) -> tuple[float, float]:
        """Width and height in inches."""
        return 5.6, 3.6

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
            title = f"weights kept: epoch {self.best_epoch + 1}, validation {self.name} {best:.3f}"
        self.ax_.set(
            xlabel="epoch",
            ylabel=self.name,
            xlim=(1 if self.start is None else 0, max(2, len(self.training))),
            title=title,
        )
        self.ax_.title.set_fontsize(9)
        self.ax_.locator_params(axis="x", integer=True)
        self.ax_.legend(frameon=False, fontsize=9)
        self.ax_.spines[["top", "right"]].set_visible(False)
