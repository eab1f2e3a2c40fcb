"""Small pictures side by side in one axes: the ground of contact sheets and codeword maps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GREY = "#444444"  # of text that says less than the rest
TILE_INCHES = 1.75
LINE_INCHES = 0.175
_GAP_INCHES = 0.16
_CAPTION_POINTS = 8.5
_LETTERS = 26  # of the caption's font, across one tile


@dataclass(frozen=True)
class Line:
    """One line of a tile's caption."""

    text: str
    colour: str = "#222222"
    weight: str = "normal"


@dataclass(frozen=True)
class Tile:
    """A picture with its caption.

    Attributes
    ----------
    pixels : ndarray of shape (H, W) or (H, W, 3)
        Grey or colour, in [0, 1].
    caption : sequence of Line
    aspect : float, optional
        Width over height as shown; that of `pixels` by default.
    crisp : bool
        Show the pixels as squares, without interpolation.
    """

    pixels: NDArray[np.floating[Any]]
    caption: Sequence[Line] = ()
    aspect: float | None = None
    crisp: bool = False


def thumbnail(
    pixels: NDArray[Any], side: int = 320, reduce: Callable[..., NDArray[Any]] = np.mean
) -> NDArray[np.floating[Any]]:
    """Shrink an image by a whole factor, by averaging blocks, to about `side` pixels.

    Parameters
    ----------
    pixels : ndarray of shape (H, W) or (H, W, 3)
    side : int
        The longest side becomes at least this and less than twice this, or stays if it is smaller.
    reduce : callable
        What becomes of a block, with ``axis``: its mean, or its maximum where nothing may vanish.

    Returns
    -------
    ndarray of shape (H // f, W // f) or (H // f, W // f, 3)

    Examples
    --------
    >>> thumbnail(np.ones((1000, 600)), side=250).shape
    (250, 150)
    """
    factor = max(1, min(max(pixels.shape[:2]) // side, *pixels.shape[:2]))
    height, width = (length // factor for length in pixels.shape[:2])
    cropped = pixels[: height * factor, : width * factor]
    blocks = cropped.reshape(height, factor, width, factor, *pixels.shape[2:])
    shrunk: NDArray[np.floating[Any]] = reduce(blocks, axis=(1, 3))
    return shrunk


def shorten(text: str, length: int = _LETTERS) -> str:
    """Cut a name in its middle, where file names differ least.

    Examples
    --------
    >>> shorten("a_very_long_file_name_0017.tif", 15)
    'a_very_…017.tif'
    """
    if len(text) <= length:
        return text
    tail = length // 2
    return f"{text[: length - tail - 1]}…{text[-tail:]}"


def literal(text: str) -> str:
    """Make any text safe to draw: no formulas, no control characters, no half characters."""
    plain = text.encode("utf-8", "replace").decode("utf-8")
    plain = "".join(letter if letter.isprintable() else " " for letter in plain)
    return plain.replace("$", r"\$")


def sheet_size(n_tiles: int, n_columns: int, n_lines: int) -> tuple[float, float]:
    """Width and height, in inches, of a figure for that many tiles."""
    n_columns, n_rows = _grid(n_tiles, n_columns)
    height = TILE_INCHES + n_lines * LINE_INCHES + _GAP_INCHES
    return n_columns * (TILE_INCHES + _GAP_INCHES), n_rows * height


def columns_for_maps(n_images: int, n_maps: int) -> int:
    """Columns for images, each before its maps: two images a row if they have one or two each."""
    twice = n_images > 1 if n_maps == 1 else n_maps == 2 and n_images > 3
    return (1 + n_maps) * (2 if twice else 1)


def draw_tiles(ax: Axes, tiles: Sequence[Tile], n_columns: int) -> None:
    """Draw tiles row by row, each centred in its square, its caption beneath it.

    Parameters
    ----------
    ax : matplotlib Axes
        Its frame and ticks are taken away.
    tiles : sequence of Tile
    n_columns : int
    """
    n_lines = max((len(tile.caption) for tile in tiles), default=0)
    gap, line = _GAP_INCHES / TILE_INCHES, LINE_INCHES / TILE_INCHES
    n_columns, n_rows = _grid(len(tiles), n_columns)
    pitch = 1 + n_lines * line + gap
    for index, tile in enumerate(tiles):
        row, column = divmod(index, n_columns)
        left, top = column * (1 + gap), row * pitch
        _draw_pixels(ax, tile, left, top)
        for number, words in enumerate(tile.caption):
            ax.text(
                left + 0.5,
                top + 1 + (number + 0.3) * line,
                literal(shorten(words.text)),
                color=words.colour,
                fontweight=words.weight,
                fontsize=_CAPTION_POINTS,
                ha="center",
                va="top",
            )
    ax.set_xlim(-gap / 2, n_columns * (1 + gap) - gap / 2)
    ax.set_ylim(n_rows * pitch - gap / 2, -gap / 2)
    ax.set_aspect("equal")
    ax.set_axis_off()


def _draw_pixels(ax: Axes, tile: Tile, left: float, top: float) -> None:
    height, width = tile.pixels.shape[:2]
    aspect = tile.aspect or width / height
    # A strip of 10 x 1000 pixels would vanish if it were drawn to scale.
    aspect = min(max(aspect, 0.1), 10.0)
    wide, high = min(1.0, aspect), min(1.0, 1 / aspect)
    x, y = left + (1 - wide) / 2, top + (1 - high) / 2
    ax.imshow(
        np.clip(tile.pixels, 0, 1),
        extent=(x, x + wide, y + high, y),
        cmap="gray",
        vmin=0,
        vmax=1,
        interpolation="nearest" if tile.crisp else "antialiased",
    )


def _grid(n_tiles: int, n_columns: int) -> tuple[int, int]:
    n_columns = max(1, min(n_columns, n_tiles))
    return n_columns, max(1, math.ceil(n_tiles / n_columns))
