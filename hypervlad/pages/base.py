"""Base classes of displays, the grid of captioned images, and saving a display as PNG."""

from __future__ import annotations

import math
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from hypervlad.common.constraints import one_each
from hypervlad.images import ReadOptions, read_image
from hypervlad.images.reading import is_particle
from hypervlad.pages.colours import DARK, GREY, Colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

SHOWN_PIXELS = 200  # of the longer side at least: lines of two pixels stay visible
_PIXELS_PER_INCH = 144
_TILE_INCHES = 1.75
_LINE_INCHES = 0.175
_GAP_INCHES = 0.16
_LEGEND_INCHES = 0.3
_BAR_INCHES = 0.8
_CAPTION_POINTS = 8.5
_MAX_ASPECT = 10
_MAX_LETTERS = 26  # of the caption's font, across one tile


class Display(ABC):
    """Content that is drawn into axes of matplotlib, which are then ``ax_`` of ``figure_``."""

    figure_: Figure | SubFigure
    ax_: Axes

    @property
    @abstractmethod
    def figure_size(self) -> tuple[float, float]:
        """Width and height that suit the content, in inches."""

    @abstractmethod
    def _draw(self) -> None: ...

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw the display, and return it.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            By default those of a new pyplot figure. With `ax`, pyplot is not used.
        """
        if ax is None:
            import matplotlib.pyplot as plt

            _, ax = plt.subplots(figsize=self.figure_size, layout="constrained")
        self.figure_, self.ax_ = ax.figure, ax
        self._draw()
        return self


def save_png(
    draw: Callable[[Axes], Display], stream: str | os.PathLike[str] | IO[bytes]
) -> tuple[float, float]:
    """Draw a display into a PNG without pyplot, in any thread.

    Parameters
    ----------
    draw : callable
        Draws into the given axes and returns the display.
    stream : path-like or binary stream

    Returns
    -------
    width, height : float
        The display's `figure_size`, in inches.

    Examples
    --------
    >>> import io
    >>> from hypervlad.results import ConfusionDisplay, save_png
    >>> display, stream = ConfusionDisplay([[3, 1], [0, 2]], ["SEM", "TEM"]), io.BytesIO()
    >>> width, height = save_png(display.plot, stream)
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
        figure.savefig(stream, format="png", dpi=_PIXELS_PER_INCH, metadata={"Software": None})
    return size


@dataclass(frozen=True)
class Line:
    text: str
    colour: str = DARK
    weight: str = "normal"


@dataclass(frozen=True)
class Tile:
    """An image in [0, 1], with its caption; ``aspect`` is width over height as shown."""

    pixels: NDArray[np.floating[Any]]
    caption: Sequence[Line] = ()
    aspect: float | None = None
    crisp: bool = False


class Grid(NamedTuple):
    """Numbers of tiles, columns and lines of a caption; height of a tile over its width."""

    n_tiles: int
    n_columns: int
    n_lines: int = 0
    tile_height: float = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        n_columns = max(1, min(self.n_columns, self.n_tiles))
        return max(1, math.ceil(self.n_tiles / n_columns)), n_columns

    @property
    def size(self) -> tuple[float, float]:
        """Width and height, in inches."""
        n_rows, n_columns = self.shape
        height = self.tile_height * _TILE_INCHES + self.n_lines * _LINE_INCHES + _GAP_INCHES
        return n_columns * (_TILE_INCHES + _GAP_INCHES), n_rows * height


class GridDisplay(Display):
    """A display of tiles in a grid; images are read with `read_options` when they are drawn."""

    read_options: ReadOptions | None = None
    _has_legend = False

    @property
    @abstractmethod
    def grid(self) -> Grid: ...

    @abstractmethod
    def _tiles(self) -> Iterable[Tile]: ...

    @property
    def figure_size(self) -> tuple[float, float]:
        width, height = self.grid.size
        return width, height + _LEGEND_INCHES * self._has_legend

    def _draw(self) -> None:
        self.ax_.set_axis_off()
        (n_rows, n_columns), (width, height) = self.grid.shape, self.grid.size
        share = 1 - _LEGEND_INCHES * self._has_legend / self.figure_size[1]  # of the height
        tall = self.grid.tile_height * _TILE_INCHES
        for index, tile in enumerate(self._tiles()):
            row, column = divmod(index, n_columns)
            left = (column * width / n_columns + _GAP_INCHES / 2) / width
            top = (row * height / n_rows + _GAP_INCHES / 2) / height
            box = left, 1 - share * (top + tall / height), _TILE_INCHES / width
            self._draw_tile(self.ax_.inset_axes((*box, share * tall / height)), tile)

    def _draw_tile(self, ax: Axes, tile: Tile) -> None:
        height, width = tile.pixels.shape[:2]
        # A strip of 10 x 1000 pixels would vanish if it were drawn to scale.
        shown = min(max(tile.aspect or width / height, 1 / _MAX_ASPECT), _MAX_ASPECT)
        ax.imshow(
            np.clip(tile.pixels, 0, 1),
            aspect=width / height / shown,
            cmap="gray",
            vmin=0,
            vmax=1,
            interpolation="nearest" if tile.crisp else "antialiased",
        )
        ax.set_axis_off()
        style: dict[str, Any] = {"fontsize": _CAPTION_POINTS, "ha": "center", "va": "top"}
        style |= {"xycoords": "axes fraction", "textcoords": "offset points"}
        for number, line in enumerate(tile.caption):
            place = 0, -72 * _LINE_INCHES * (number + 0.3)
            style |= {"color": line.colour, "fontweight": line.weight}
            ax.annotate(literal(shorten(line.text)), (0.5, 0), place, **style)

    def _draw_legend(
        self, entries: Sequence[tuple[str, Colour]], scale: tuple[str, NDArray[np.float64], str]
    ) -> None:
        """Add a legend beneath the tiles: a colour bar, then colours.

        `scale` is the lower label, the colours, shape (1, n, 3), and the upper label.
        """
        from matplotlib.patches import Patch

        (width, height), left = self.figure_size, 0.1
        low, colours, high = scale
        before, after = (0.07 * (len(text) + 1) for text in (low, high))
        place = (left + before) / width, 0.1 / height, _BAR_INCHES / width, 0.12 / height
        bar = self.ax_.inset_axes(place)
        bar.imshow(colours, aspect="auto")
        bar.set_axis_off()
        style: dict[str, Any] = {"va": "center", "fontsize": _CAPTION_POINTS, "color": GREY}
        for text, x, side in ((f"{low} ", 0, "right"), (f" {high}", 1, "left")):
            bar.text(x, 0.5, text, transform=bar.transAxes, ha=side, **style)
        left += before + _BAR_INCHES + after + 0.1
        if entries:
            look: dict[str, Any] = {"fontsize": _CAPTION_POINTS, "labelcolor": GREY}
            look |= {"frameon": False, "borderpad": 0, "borderaxespad": 0}
            look |= {"ncols": len(entries), "handlelength": 1, "columnspacing": 1.2}
            look |= {"loc": "lower left", "bbox_to_anchor": (left / width, 0.05 / height)}
            patches = [Patch(color=colour, label=text) for text, colour in entries]
            self.ax_.legend(handles=patches, **look)

    def _read(self, image: Any) -> NDArray[np.float32]:
        return read_image(image, **asdict(self.read_options or ReadOptions()))


def columns_for_maps(n_images: int, n_maps: int) -> int:
    """Return the columns for images, each followed by its maps: one or two images in each row."""
    two = n_images > 1 if n_maps == 1 else n_maps == 2 and n_images > 3
    return (1 + n_maps) * (2 if two else 1)


def common_tile_height(shapes: Iterable[tuple[int, ...]]) -> float:
    """Return the height of tiles for images of these shapes, over their width: at most 1."""
    ratios = (shape[0] / max(1, shape[1]) for shape in shapes)
    return max((min(max(ratio, 1 / _MAX_ASPECT), 1.0) for ratio in ratios), default=1.0)


def thumbnail(
    pixels: NDArray[Any], side: int = 320, reduce: Callable[..., NDArray[Any]] = np.mean
) -> NDArray[np.floating[Any]]:
    """Shrink an image (H, W) or (H, W, 3) by reducing square blocks along ``axis``.

    The longest side becomes at least `side`, and less than twice this.
    """
    factor = max(1, min(max(pixels.shape[:2]) // side, *pixels.shape[:2]))
    height, width = (length // factor for length in pixels.shape[:2])
    cropped = pixels[: height * factor, : width * factor]
    blocks = cropped.reshape(height, factor, width, factor, *pixels.shape[2:])
    return reduce(blocks, axis=(1, 3))


def shorten(text: str, length: int = _MAX_LETTERS) -> str:
    """Shorten a name by leaving out its middle, where file names differ least."""
    if len(text) <= length:
        return text
    tail = length // 2
    return f"{text[: length - tail - 1]}…{text[-tail:]}"


def literal(text: str) -> str:
    """Return text in which matplotlib finds no formula and no character that it cannot draw."""
    plain = text.encode("utf-8", "replace").decode("utf-8")
    plain = "".join(letter if letter.isprintable() else " " for letter in plain)
    return plain.replace("$", r"\$")


def names_or_default(
    images: Sequence[Any], names: Sequence[str] | None, *, full: bool = False
) -> list[str]:
    """Return `names`; by default the files or, with `full`, their paths, and numbers of arrays."""
    if names is not None:
        return one_each("name", names, len(images))
    found = []
    for index, image in enumerate(images):
        image = image.name if is_particle(image) else image
        if isinstance(image, str | os.PathLike):
            path = os.fspath(image)
            found.append(path if full else os.path.basename(path))
        else:
            found.append(f"image {index}")
    return found


def evenly_spaced(n: int, most: int) -> list[int]:
    """Return at most so many places among n, from the first to the last."""
    places: list[int] = np.linspace(0, n - 1, min(n, most)).round().astype(int).tolist()
    return places


def check_size(name: str, pixels: NDArray[Any], found: NDArray[Any]) -> None:
    if pixels.shape[:2] != found.shape:
        raise ValueError(
            f"{name}: an image of {pixels.shape[0]} x {pixels.shape[1]} pixels, but a map of "
            f"{found.shape[0]} x {found.shape[1]}; a map has the image's size."
        )
