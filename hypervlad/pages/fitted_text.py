"""Text that shrinks with small axes: a class of its own module, which imports matplotlib."""

from __future__ import annotations

from typing import Any

from matplotlib.text import Text


class FittedText(Text):
    """Text that shrinks with what is drawn around it, but is never enlarged.

    ``fontsize`` is for axes whose unit is so many `inches`.
    """

    def __init__(self, x: float, y: float, text: str, *, inches: float, **style: Any) -> None:
        super().__init__(x, y, text, **style)
        self._inches = inches
        self._points = float(self.get_fontsize())

    def set_fontsize(self, fontsize: Any) -> None:
        super().set_fontsize(fontsize)
        self._points = float(self.get_fontsize())

    def draw(self, renderer: Any) -> None:
        self._fit()
        super().draw(renderer)

    def get_window_extent(self, *arguments: Any, **options: Any) -> Any:
        self._fit()
        return super().get_window_extent(*arguments, **options)

    def _fit(self) -> None:
        ax = self.axes
        if ax is None:
            return
        (start, _), (end, _) = ax.transData.transform([(0, 0), (1, 0)])
        scale = abs(end - start) / ax.figure.dpi / self._inches
        points = self._points * min(1.0, scale)
        # Each change makes the figure stale: an interactive one would be drawn again and again.
        if abs(points - self.get_fontsize()) > 1e-3:
            super().set_fontsize(points)
