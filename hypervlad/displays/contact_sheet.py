"""Contact sheet: many small images, each with its prediction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.displays.colours import GREY, RIGHT, WRONG
from hypervlad.displays.image_grid import (
    Grid,
    GridDisplay,
    Line,
    ReadingOptions,
    Tile,
    names_or_default,
    shorten,
    thumbnail,
)
from hypervlad.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LABEL_LETTERS = 14  # leaves room for the confidence beside a long name


class ContactSheetDisplay(GridDisplay):
    """Images in rows, each with a caption.

    Usually created by `from_predictions`.

    Parameters
    ----------
    images : sequence of path or ndarray of shape (H, W) or (H, W, 3)
    captions : sequence of sequence of str
        The lines beneath each image.
    colours : sequence of str, optional
        A matplotlib colour for each image's second line, which is then bold.
    n_columns : int, default=6
    read_options : ReadOptions or mapping of its fields, optional
        How to read the images.

    Attributes
    ----------
    figure_ : matplotlib Figure
    ax_ : matplotlib Axes

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
        read_options: ReadingOptions = None,
    ) -> None:
        if len(images) != len(captions):
            raise ValueError(
                "a contact sheet needs one caption for each image; got "
                f"{counted(len(images), 'image')} and "
                f"{len(captions)} captions."
            )
        self.images = images
        self.captions = captions
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
        y_true: Sequence[Any] | None = None,
        select: Literal["least_certain", "mistakes", "all"] = "least_certain",
        n_images: int = 18,
        n_columns: int = 6,
        names: Sequence[str] | None = None,
        read_options: ReadingOptions = None,
        ax: Axes | None = None,
    ) -> ContactSheetDisplay:
        """Select images by their predicted probabilities, and plot them.

        Parameters
        ----------
        images : sequence of n path or ndarray of shape (H, W) or (H, W, 3)
        proba : array-like of shape (n, n_classes)
        classes : sequence of n_classes labels
            In the order of the columns of `proba`.
        y_true : sequence of n labels, optional
            The true labels.
        select : {"least_certain", "mistakes", "all"}
            The images with the lowest confidence (highest probability of any class), lowest first;
            or the wrong predictions, most confident first; or the first of the list.
        n_images : int
            Maximum number of images.
        n_columns : int
        names : sequence of n str, optional
            Names of the images; by default those of their files.
        read_options : ReadOptions or mapping of its fields, optional
        ax : matplotlib Axes, optional

        Returns
        -------
        ContactSheetDisplay

        Raises
        ------
        ValueError
            If the lengths differ, or ``select`` is "mistakes" without ``y_true``.
        """
        table = np.asarray(proba, dtype=float)
        _check_lengths(images, table, classes, y_true)
        names = names_or_default(images, names)
        chosen = _choose(table, classes, y_true, select)[:n_images]
        predicted = table.argmax(axis=1)
        captions, colours = [], []
        for index in chosen:
            label = str(classes[predicted[index]])
            confidence = f"{100 * table[index].max():.0f} %"
            lines = [names[index], f"{shorten(label, _LABEL_LETTERS)}, {confidence}"]
            colour = "#333333"
            if y_true is not None:
                right = label == str(y_true[index])
                colour = RIGHT if right else WRONG
                lines[1] = ("✓ " if right else "✗ ") + lines[1]
                lines.append(f"true: {y_true[index]}")
            captions.append(lines)
            colours.append(colour)
        display = cls(
            [images[index] for index in chosen],
            captions,
            colours=colours,
            n_columns=n_columns,
            read_options=read_options,
        )
        return display.plot(ax=ax)

    @property
    def grid(self) -> Grid:
        """The extent of the grid."""
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


def _check_lengths(
    images: Sequence[Any], proba: NDArray[Any], classes: Sequence[Any], y_true: Sequence[Any] | None
) -> None:
    if proba.shape != (len(images), len(classes)):
        raise ValueError(
            f"expected one row of probabilities for each of {counted(len(images), 'image')} and "
            f"one column for each of {counted(len(classes), 'class')}; got an array of shape "
            f"{proba.shape}."
        )
    if y_true is not None and len(y_true) != len(images):
        raise ValueError(
            f"got {counted(len(images), 'image')} but {counted(len(y_true), 'true label')}."
        )


def _choose(
    proba: NDArray[Any], classes: Sequence[Any], y_true: Sequence[Any] | None, select: str
) -> NDArray[np.intp]:
    confidence = proba.max(axis=1, initial=0)
    if select == "all":
        return np.arange(len(proba))
    if select == "least_certain":
        return np.argsort(confidence, kind="stable")
    if select != "mistakes":
        raise ValueError(f'select={select!r}; expected "least_certain", "mistakes" or "all".')
    if y_true is None:
        raise ValueError('select="mistakes" needs y_true, the true labels.')
    predicted = proba.argmax(axis=1)
    wrong = [i for i in range(len(proba)) if str(classes[predicted[i]]) != str(y_true[i])]
    order = np.argsort(-confidence[wrong], kind="stable")
    return np.asarray(wrong, dtype=np.intp)[order]
