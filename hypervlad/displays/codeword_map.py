"""Codeword maps: which visual word each place of an image belongs to, in colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.displays.contact_sheet import image_names
from hypervlad.displays.figures import axes_or_new
from hypervlad.displays.tiles import (
    Line,
    Tile,
    columns_for_maps,
    draw_tiles,
    sheet_size,
    thumbnail,
)
from hypervlad.images import read_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def word_colours(words: int | ArrayLike) -> NDArray[np.float64]:
    """Give each visual word a colour; similar words get similar colours.

    The words are laid out by their first three principal components, and these become the hue
    (the angle in the plane of the first two), the lightness and the chroma of a CIELAB colour, by
    rank, so that the whole range is used however unevenly the words lie.

    Parameters
    ----------
    words : int or array-like of shape (n_words, n_features)
        The codewords, or how many there are; then hues follow the golden angle, which keeps
        neighbouring numbers far apart.

    Returns
    -------
    ndarray of shape (n_words, 3)
        RGB in [0, 1].

    Examples
    --------
    >>> word_colours(3).shape
    (3, 3)
    """
    from skimage.color import lab2rgb

    if isinstance(words, int | np.integer):
        numbers = np.arange(int(words))
        turn = (numbers * 0.6180339887) % 1
        light, chroma = (numbers * 0.7548776662) % 1, (numbers * 0.5698402910) % 1
    else:
        turn, light, chroma = _layout(np.asarray(words, dtype=np.float64))
    lightness, radius = 38 + 47 * light, 28 + 32 * chroma
    angle = 2 * np.pi * turn
    lab = np.stack([lightness, radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    colours: NDArray[np.float64] = np.clip(lab2rgb(lab[None])[0], 0, 1)
    return colours


class CodewordMapDisplay:
    """Images beside the maps of their visual words.

    It is best made by `from_estimator`.

    Parameters
    ----------
    images : sequence of path or ndarray of shape (H, W) or (H, W, 3)
    maps : sequence of int ndarray of shape (n_codebooks, h, w)
        The word at each place of the grid; -1 where there is none.
    colours : sequence of n_codebooks arrays of shape (n_words, 3), optional
        By default `word_colours` of the number of words.
    names : sequence of str, optional
        What to call each image.
    codebook_names : sequence of n_codebooks str, optional
    read_options : mapping, optional
        How to read the images: the fields of `hypervlad.images.ReadOptions`.

    Attributes
    ----------
    figure_ : matplotlib Figure
    ax_ : matplotlib Axes
    """

    figure_: Figure
    ax_: Axes

    def __init__(
        self,
        images: Sequence[Any],
        maps: Sequence[NDArray[np.integer[Any]]],
        *,
        colours: Sequence[NDArray[np.float64]] | None = None,
        names: Sequence[str] | None = None,
        codebook_names: Sequence[str] | None = None,
        read_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.images = images
        self.maps = [_check_map(words) for words in maps]
        if len(images) != len(maps) or len({len(words) for words in self.maps}) > 1:
            raise ValueError(
                f"expected one map for each of {len(images)} images, all of the same number of "
                f"codebooks; got maps of shapes {[words.shape for words in self.maps]}."
            )
        self.colours = colours
        self.names = image_names(images) if names is None else names
        self.codebook_names = codebook_names
        self.read_options = read_options

    @classmethod
    def from_estimator(
        cls,
        encoder: Any,
        images: Sequence[Any],
        *,
        names: Sequence[str] | None = None,
        read_options: Mapping[str, Any] | None = None,
        ax: Axes | None = None,
    ) -> CodewordMapDisplay:
        """Assign every place of the images to its visual word, and plot.

        Parameters
        ----------
        encoder : fitted HypercolumnVLAD or MicrographClassifier
        images : sequence of path or ndarray of shape (H, W) or (H, W, 3)
        names : sequence of str, optional
        read_options : mapping, optional
            The fields of `hypervlad.images.ReadOptions`.
        ax : matplotlib Axes, optional

        Returns
        -------
        CodewordMapDisplay
        """
        encoder = getattr(encoder, "encoder_", encoder)
        maps = [np.asarray(encoder.codeword_maps(image)) for image in images]
        colours, codebook_names = _codebooks(encoder, maps)
        display = cls(
            images,
            maps,
            colours=colours,
            names=names,
            codebook_names=codebook_names,
            read_options=read_options,
        )
        return display.plot(ax=ax)

    @property
    def n_columns(self) -> int:
        """The image and its maps; two images a row where there is one map each."""
        n_maps = len(self.maps[0]) if self.maps else 1
        return columns_for_maps(len(self.images), n_maps)

    @property
    def figure_size(self) -> tuple[float, float]:
        """Width and height in inches that suit the number of images and maps."""
        n_tiles = sum(1 + len(words) for words in self.maps)
        return sheet_size(n_tiles, self.n_columns, 1)

    def plot(self, ax: Axes | None = None) -> CodewordMapDisplay:
        """Read the images and draw them beside their maps.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            A new figure by default.

        Returns
        -------
        CodewordMapDisplay
            Itself.
        """
        self.figure_, self.ax_ = axes_or_new(ax, self.figure_size)
        tiles = []
        for image, name, words in zip(self.images, self.names, self.maps, strict=True):
            pixels = read_image(image, **dict(self.read_options or {}))
            tiles.append(Tile(thumbnail(pixels), [Line(name)]))
            # A square grid over an oblong image is drawn over the whole image.
            aspect = pixels.shape[1] / pixels.shape[0]
            for number, plane in enumerate(words):
                tiles.append(
                    Tile(self._paint(number, plane), [Line(self._title(number))], aspect, True)
                )
        draw_tiles(self.ax_, tiles, self.n_columns)
        return self

    def _paint(self, number: int, plane: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        if self.colours is None:
            colours = word_colours(max(int(words.max()) for words in self.maps) + 1)
        else:
            colours = np.asarray(self.colours[number])
        # Places without a word (-1) take the last row.
        table = np.vstack([colours, [[1.0, 1.0, 1.0]]])
        painted: NDArray[np.float64] = table[plane]
        return painted

    def _title(self, number: int) -> str:
        if self.codebook_names is None:
            return "visual words"
        return f"words of {self.codebook_names[number]}"


def _check_map(words: NDArray[Any]) -> NDArray[np.integer[Any]]:
    words = np.asarray(words)
    if words.ndim == 2:
        words = words[None]
    if words.ndim != 3 or not np.issubdtype(words.dtype, np.integer):
        raise ValueError(
            "a codeword map is an array of integers of shape (n_codebooks, h, w); got "
            f"{words.dtype} of shape {words.shape}."
        )
    return words


def _codebooks(
    encoder: Any, maps: Sequence[NDArray[Any]]
) -> tuple[list[NDArray[np.float64]] | None, list[str] | None]:
    """Colours and names of a fitted encoder's codebooks, as far as it tells them."""
    n_codebooks = len(maps[0]) if maps else 0
    codebook = getattr(encoder, "codebook_", None)
    centres = getattr(codebook, "codewords", None)
    colours = None
    if centres is not None and len(centres) == n_codebooks:
        colours = [word_colours(words) for words in centres]
    names = [str(tap) for tap in getattr(encoder, "taps_", ())]
    if len(names) == n_codebooks - 1:
        names = ["all taps", *names]
    return colours, names if len(names) == n_codebooks > 1 else None


def _layout(centres: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    centred = centres - centres.mean(axis=0)
    left, scale, _ = np.linalg.svd(centred, full_matrices=False)
    planes = np.zeros((len(centres), 3))
    width = min(3, left.shape[1])
    planes[:, :width] = left[:, :width] * scale[:width]
    # The sign of a singular vector is arbitrary; fix it so that colours do not change by platform.
    strongest = planes[np.abs(planes).argmax(axis=0), range(3)]
    planes *= np.where(strongest < 0, -1.0, 1.0)
    angle = np.arctan2(planes[:, 1], planes[:, 0])
    return _ranks(angle), _ranks(planes[:, 2]), _ranks(np.hypot(planes[:, 0], planes[:, 1]))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    ranks = np.empty(len(values))
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values))
    return ranks / max(1, len(values))
