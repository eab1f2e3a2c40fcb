"""Contact sheet: many small images, each with its prediction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.evaluation import Evaluation
from hypervlad.images import ReadOptions
from hypervlad.results.displays.base import (
    Grid,
    GridDisplay,
    Line,
    Tile,
    names_or_default,
    one_each,
    shorten,
    thumbnail,
)
from hypervlad.results.displays.colours import GREY, RIGHT, WRONG

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LABEL_LETTERS = 14  # leaves room for the confidence beside a long name


class ContactSheetDisplay(GridDisplay):
    """Images in rows, each with a caption.

    Parameters
    ----------
    images : sequence of paths or arrays
    captions : sequence of sequence of str
        The lines beneath each image.
    colours : sequence of str, optional
        A matplotlib colour for each image's second line, which is then bold.
    n_columns : int, default=6
    read_options : ReadOptions, optional

    Examples
    --------
    >>> sheet = ContactSheetDisplay([np.eye(8), np.ones((8, 4))], [["a.png"], ["b.png"]])
    >>> len(sheet.captions)
    2
    """

    def __init__(
        self,
        images: Sequence[Any],
        captions: Sequence[Sequence[str]],
        *,
        colours: Sequence[str] | None = None,
        n_columns: int = 6,
        read_options: ReadOptions | None = None,
    ) -> None:
        self.images = images
        self.captions = one_each("caption", captions, len(images))
        self.colours = colours
        self.n_columns = n_columns
        self.read_options = read_options

    @classmethod
    def from_predictions(
        cls,
        images: Sequence[Any],
        proba: ArrayLike,
        *,
        classes: Sequence[Any],
        y_true: Sequence[Any],
        select: Literal["least_certain", "mistakes", "all"] = "least_certain",
        n_images: int = 18,
        names: Sequence[str] | None = None,
        read_options: ReadOptions | None = None,
        ax: Axes | None = None,
    ) -> ContactSheetDisplay:
        """Select images by their predicted probabilities, and plot them.

        Parameters
        ----------
        images : sequence of n paths or arrays
        proba : array-like of shape (n, n_classes)
        classes : sequence of n_classes labels
        y_true : sequence of n labels
        select : {"least_certain", "mistakes", "all"}
            The images with the lowest confidence (highest probability of any class), lowest first;
            or the wrong predictions, most confident first; or the first of the list.
        n_images : int
            Maximum number of images.
        names : sequence of n str, optional
            By default the names of the files.
        read_options : ReadOptions, optional
        ax : matplotlib Axes, optional

        Raises
        ------
        ValueError
            If the lengths differ, or ``select`` is unknown.
        """
        y_true = one_each("true label", y_true, len(images))
        names = names_or_default(images, names)
        result = Evaluation(y_true, np.asarray(proba, dtype=float), classes)
        predicted, is_right = result.predicted, result.correct
        chosen = _choose(result, select)[:n_images]
        return cls(
            [images[i] for i in chosen],
            [
                [
                    names[i],
                    f"{'✓' if is_right[i] else '✗'} {shorten(predicted[i], _LABEL_LETTERS)}, "
                    f"{100 * result.confidence[i]:.0f} %",
                    f"true: {y_true[i]}",
                ]
                for i in chosen
            ],
            colours=[RIGHT if is_right[i] else WRONG for i in chosen],
            read_options=read_options,
        ).plot(ax=ax)

    @property
    def grid(self) -> Grid:
        n_lines = max((len(lines) for lines in self.captions), default=0)
        return Grid(len(self.images), self.n_columns, n_lines)

    def _tiles(self) -> Iterator[Tile]:
        for index, image in enumerate(self.images):
            yield Tile(thumbnail(self._read(image)), self._caption(index))

    def _caption(self, index: int) -> list[Line]:
        lines = [Line(text, GREY) for text in self.captions[index]]
        if self.colours is not None and len(lines) > 1:
            lines[1] = Line(lines[1].text, self.colours[index], "bold")
        return lines


def _choose(result: Evaluation, select: str) -> NDArray[np.intp]:
    if select == "all":
        return np.arange(len(result.true))
    if select == "least_certain":
        return np.argsort(result.confidence, kind="stable")
    if select != "mistakes":
        raise ValueError(f'select={select!r}; expected "least_certain", "mistakes" or "all".')
    wrong = np.flatnonzero(~result.correct)
    return wrong[np.argsort(-result.confidence[wrong], kind="stable")]
