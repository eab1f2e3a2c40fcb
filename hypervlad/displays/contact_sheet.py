"""Contact sheets: many small images on one page, each with what the model says of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.displays.figures import axes_or_new
from hypervlad.displays.tiles import GREY, Line, Tile, draw_tiles, sheet_size, shorten, thumbnail
from hypervlad.images import read_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RIGHT = "#1a7f37"
WRONG = "#b42318"
_LABEL_LETTERS = 14  # so that how sure the model is stays readable beside a long name


class ContactSheetDisplay:
    """Images in rows, each with a caption.

    It is best made by `from_predictions`.

    Parameters
    ----------
    images : sequence of path or ndarray of shape (H, W) or (H, W, 3)
    captions : sequence of sequence of str
        The lines beneath each image.
    colours : sequence of str, optional
        A matplotlib colour for each image's second line, which is then bold.
    n_columns : int, default=6
    read_options : mapping, optional
        How to read the images: the fields of `hypervlad.images.ReadOptions`.

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

    figure_: Figure
    ax_: Axes

    def __init__(
        self,
        images: Sequence[Any],
        captions: Sequence[Sequence[str]],
        *,
        colours: Sequence[str] | None = None,
        n_columns: int = 6,
        read_options: Mapping[str, Any] | None = None,
    ) -> None:
        if len(images) != len(captions):
            raise ValueError(
                f"a contact sheet needs one caption for each image; got {len(images)} images and "
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
        read_options: Mapping[str, Any] | None = None,
        ax: Axes | None = None,
    ) -> ContactSheetDisplay:
        """Choose images by their predicted probabilities, and plot them.

        Parameters
        ----------
        images : sequence of n path or ndarray of shape (H, W) or (H, W, 3)
        proba : array-like of shape (n, n_classes)
        classes : sequence of n_classes labels
            In the order of the columns of `proba`.
        y_true : sequence of n labels, optional
            The right labels, where they are known.
        select : {"least_certain", "mistakes", "all"}
            The images with the lowest confidence (highest probability of any class), lowest first;
            or the wrong predictions, most confident first; or the first of the list.
        n_images : int
            How many at most.
        n_columns : int
        names : sequence of n str, optional
            What to call each image; `image_names` by default.
        read_options : mapping, optional
            The fields of `hypervlad.images.ReadOptions`.
        ax : matplotlib Axes, optional

        Returns
        -------
        ContactSheetDisplay

        Raises
        ------
        ValueError
            If the lengths differ, or mistakes are asked for without `y_true`.
        """
        table = np.asarray(proba, dtype=float)
        _check_lengths(images, table, classes, y_true)
        names = image_names(images) if names is None else names
        chosen = _choose(table, classes, y_true, select)[:n_images]
        said = table.argmax(axis=1)
        captions, colours = [], []
        for index in chosen:
            label = str(classes[said[index]])
            sure = f"{100 * table[index].max():.0f} % sure"
            lines = [names[index], f"{shorten(label, _LABEL_LETTERS)}, {sure}"]
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
    def figure_size(self) -> tuple[float, float]:
        """Width and height in inches that suit the number of images."""
        n_lines = max((len(lines) for lines in self.captions), default=0)
        return sheet_size(len(self.images), self.n_columns, n_lines)

    def plot(self, ax: Axes | None = None) -> ContactSheetDisplay:
        """Read the images and draw the sheet.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            A new figure by default.

        Returns
        -------
        ContactSheetDisplay
            Itself.
        """
        self.figure_, self.ax_ = axes_or_new(ax, self.figure_size)
        tiles = []
        for index, image in enumerate(self.images):
            pixels = read_image(image, **dict(self.read_options or {}))
            tiles.append(Tile(thumbnail(pixels), self._caption(index)))
        draw_tiles(self.ax_, tiles, self.n_columns)
        return self

    def _caption(self, index: int) -> list[Line]:
        lines = [Line(text, GREY) for text in self.captions[index]]
        if self.colours is not None and len(lines) > 1:
            lines[1] = Line(lines[1].text, self.colours[index], "bold")
        return lines


def image_names(images: Sequence[Any], *, full: bool = False) -> list[str]:
    """Name each image: the file's name, or ``image 3`` for the fourth of a list of arrays.

    Parameters
    ----------
    images : sequence of path or ndarray
    full : bool
        Whole paths, as they were given.

    Examples
    --------
    >>> image_names(["scans/a.tif", np.eye(3)])
    ['a.tif', 'image 1']
    """
    names = []
    for index, image in enumerate(images):
        if isinstance(image, str | os.PathLike):
            path = os.fspath(image)
            names.append(path if full else os.path.basename(path))
        else:
            names.append(f"image {index}")
    return names


def _check_lengths(
    images: Sequence[Any], proba: NDArray[Any], classes: Sequence[Any], y_true: Sequence[Any] | None
) -> None:
    if proba.shape != (len(images), len(classes)):
        raise ValueError(
            f"expected one row of probabilities for each of {len(images)} images and one column "
            f"for each of {len(classes)} classes; got an array of shape {proba.shape}."
        )
    if y_true is not None and len(y_true) != len(images):
        raise ValueError(f"got {len(images)} images but {len(y_true)} true labels.")


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
        raise ValueError('select="mistakes" needs y_true, the right labels.')
    said = proba.argmax(axis=1)
    wrong = [i for i in range(len(proba)) if str(classes[said[i]]) != str(y_true[i])]
    order = np.argsort(-confidence[wrong], kind="stable")
    return np.asarray(wrong, dtype=np.intp)[order]
