"""The base class of displays, and saving a display as PNG without pyplot."""

from __future__ import annotations

import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure


class Display(ABC):
    """Base class of displays: content that is drawn into matplotlib axes.

    Attributes
    ----------
    figure_ : matplotlib Figure
    ax_ : matplotlib Axes
        Both exist once it has been plotted.
    """

    figure_: Figure | SubFigure
    ax_: Axes

    @property
    @abstractmethod
    def figure_size(self) -> tuple[float, float]:
        """Width and height in inches that suit the content."""

    @abstractmethod
    def _draw(self) -> None:
        """Draw into `ax_`."""

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw the display.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            By default those of a new pyplot figure. With `ax`, pyplot is not used.

        Returns
        -------
        Display
            Itself.
        """
        if ax is None:
            import matplotlib.pyplot as plt

            _, ax = plt.subplots(figsize=self.figure_size, layout="constrained")
        self.figure_, self.ax_ = ax.figure, ax
        self._draw()
        return self


def write(ax: Axes, x: float, y: float, text: str, *, inches: float = 1.0, **style: Any) -> None:
    """Write text that shrinks with the axes, whose unit is so many inches; see `FittedText`."""
    from hypervlad.displays.fitted_text import FittedText  # imports matplotlib

    ax.add_artist(FittedText(x, y, text, inches=inches, **style))


def save_png(
    draw: Callable[[Axes], Display], stream: str | os.PathLike[str] | IO[bytes], dpi: int = 144
) -> tuple[float, float]:
    """Draw a display into a PNG without pyplot: no window, no global state, in any thread.

    Parameters
    ----------
    draw : callable
        Draws into the axes that it is given, and returns the display.
    stream : path-like or binary stream
    dpi : int
        Pixels per inch.

    Returns
    -------
    width, height : float
        The size of the figure in inches: the display's `figure_size`.

    Examples
    --------
    >>> import io
    >>> from hypervlad.displays import TrainingCurvesDisplay, save_png
    >>> curves, stream = TrainingCurvesDisplay([0.7, 0.5], [0.7, 0.6], best_epoch=1), io.BytesIO()
    >>> width, height = save_png(curves.plot, stream)
    >>> stream.getvalue()[1:4]
    b'PNG'
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    size = draw(figure.add_subplot()).figure_size
    figure.set_size_inches(size)
    with warnings.catch_warnings():
        # The font may lack letters of a class name.
        warnings.filterwarnings("ignore", message=r"Glyph \d+", category=UserWarning)
        figure.savefig(stream, format="png", dpi=dpi, metadata={"Software": None})
    return size
