"""The figures of the 2021 paper: a confusion matrix, and thumbnails at their places in a t-SNE."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image
from scipy.optimize import linear_sum_assignment
from skimage.transform import resize
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from hypervlad.images import read_image
from hypervlad.results import ConfusionDisplay, save_png

# Okabe and Ito's colours, distinguishable with any colour vision.
COLOURS = (
    *("#0072B2", "#E69F00", "#009E73", "#D55E00"),
    *("#CC79A7", "#56B4E9", "#F0E442", "#5B3A8E"),
)
_GAP, _DPI = 1, 150
_CELLS_PER_IMAGE = 1.5  # free cells separate the clusters
_N_GREYS = 40  # besides the colours: fewer make a smaller file


def write_confusion(path: Path, matrix: np.ndarray, classes: Sequence[str]) -> None:
    """Draw counts of predicted classes for each true class."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_png(lambda ax: ConfusionDisplay(matrix, list(classes)).plot(ax=ax), path)


def write_mosaic(
    path: Path, images: Sequence[Any], labels: np.ndarray, vectors: np.ndarray, title: str
) -> None:
    """Place thumbnails by t-SNE of their vectors, on a grid without overlaps."""
    classes = np.unique(labels)
    colours = {name: COLOURS[k % len(COLOURS)] for k, name in enumerate(classes)}
    places, shape = snap_to_grid(_embed(vectors))
    cell = max(16, 1000 // shape[1])
    canvas = np.full((shape[0] * cell, shape[1] * cell, 3), 255, np.uint8)
    for image, label, (row, column) in zip(images, labels, places, strict=True):
        tile = _framed(read_image(image), cell - _GAP, colours[label])
        top, left = row * cell, column * cell
        canvas[top : top + len(tile), left : left + len(tile)] = tile
    _write(path, canvas, title, colours, labels)
    greys = np.linspace(0, 255, _N_GREYS).round().astype(int)
    palette = Image.new("P", (1, 1))
    entries = [_rgb(colour) for colour in colours.values()] + [(g, g, g) for g in greys.tolist()]
    palette.putpalette([value for entry in entries for value in entry])
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(palette=palette, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


def snap_to_grid(points: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """Assign each point (n, 2) to its own cell, with the smallest total squared distance.

    Returns
    -------
    places : ndarray of int, shape (n, 2)
        Row and column, all different.
    shape : (int, int)
        Rows and columns of the grid, cropped to the points.

    Examples
    --------
    >>> places, shape = snap_to_grid(np.array([[0.0, 0.0], [0.0, 0.1], [1.0, 1.0]]))
    >>> len({tuple(place) for place in places.tolist()})
    3
    """
    side = math.ceil(math.sqrt(_CELLS_PER_IMAGE * len(points)))
    low, high = points.min(axis=0), points.max(axis=0)
    scaled = (points - low) / np.maximum(high - low, 1e-9) * (side - 1)
    cells = np.stack(np.divmod(np.arange(side * side), side), axis=1)
    distance = ((scaled[:, None, ::-1] - cells[None]) ** 2).sum(axis=2)
    _, chosen = linear_sum_assignment(distance)
    places = cells[chosen]
    places = places - places.min(axis=0)
    n_rows, n_columns = places.max(axis=0) + 1
    return places, (int(n_rows), int(n_columns))


def _embed(vectors: np.ndarray) -> np.ndarray:
    pca = PCA(min(50, len(vectors) - 1), svd_solver="randomized", random_state=0)
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init="pca", learning_rate="auto", random_state=0)
    embedded: np.ndarray = tsne.fit_transform(pca.fit_transform(vectors))
    return embedded


def _framed(pixels: np.ndarray, side: int, colour: str) -> np.ndarray:
    """Return a square thumbnail with a frame, (side, side, 3) uint8."""
    grey = pixels if pixels.ndim == 2 else pixels.mean(axis=2)
    frame = max(2, side // 20)
    inner = side - 2 * frame
    small = np.clip(resize(grey, (inner, inner), anti_aliasing=True), 0, 1)
    tile = np.empty((side, side, 3), np.uint8)
    tile[:] = _rgb(colour)
    tile[frame:-frame, frame:-frame] = np.round(255 * small)[..., None]
    return tile


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _write(
    path: Path, canvas: np.ndarray, title: str, colours: dict[Any, str], labels: np.ndarray
) -> None:
    """Put title and legend above the canvas; its pixels keep their size."""
    height, width = canvas.shape[:2]
    longest = max(len(str(name)) for name in colours) + 5
    columns = int(np.clip(width // (12 * longest + 60), 1, len(colours)))
    head = 60 + 36 * math.ceil(len(colours) / columns)
    figure = Figure(
        figsize=((width + 40) / _DPI, (height + head + 20) / _DPI), dpi=_DPI, facecolor="white"
    )
    FigureCanvasAgg(figure)
    figure.figimage(canvas, xo=20, yo=20, origin="upper")
    top = (height + head + 20 - 14) / (height + head + 20)
    left = 20 / (width + 40)
    size = min(13.0, 0.72 * width / max(len(title), 1) * 72 / _DPI * 2.2)
    figure.text(left, top, title, fontsize=size, ha="left", va="top", weight="bold")
    handles = [
        Patch(facecolor=colour, label=f"{name} ({int((labels == name).sum())})")
        for name, colour in colours.items()
    ]
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(left, top - 32 / (height + head + 20)),
        ncols=columns,
        frameon=False,
        fontsize=min(10.0, size),
        borderaxespad=0,
        handlelength=1.2,
        columnspacing=1.4,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DPI, metadata={"Software": None})
