"""Where a display draws: the axes that it is given, or a new figure."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Display(Protocol):
    """What every display of this package offers."""

    @property
    def figure_size(self) -> tuple[float, float]:
        """Width and height in inches that suit the content."""

    def plot(self, ax: Axes | None = None) -> Display:
        """Draw into `ax`, or into a new figure."""


def axes_or_new(ax: Axes | None, size: tuple[float, float]) -> tuple[Figure, Axes]:
    """Return `ax` and its figure, or those of a new pyplot figure of `size` inches."""
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(figsize=size, layout="constrained")
    return ax.figure, ax  # type: ignore[return-value]  # of a subfigure it is the subfigure


def save_png(
    draw: Callable[[Axes], Display], stream: str | os.PathLike[str] | IO[bytes], dpi: int = 144
) -> tuple[float, float]:
    """Draw a display into a PNG without pyplot: no window, no global state, any thread.

    Parameters
    ----------
    draw : callable
        Takes axes, draws into them, and returns the display.
    stream : path-like or binary stream
    dpi : int
        Pixels per inch.

    Returns
    -------
    width, height : float
        The figure's size in inches, which is the display's own choice.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    size = draw(figure.add_subplot()).figure_size
    figure.set_size_inches(size)
    with warnings.catch_warnings():
        # A class name in a script that the font lacks still has its place in the page's text.
        warnings.filterwarnings("ignore", message=r"Glyph \d+", category=UserWarning)
        figure.savefig(stream, format="png", dpi=dpi, metadata={"Software": None})
    return size
