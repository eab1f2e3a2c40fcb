"""Which visual words speak for a class, and where in its images they do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from hypervlad.displays.facts import read_options_of
from hypervlad.displays.tiles import thumbnail
from hypervlad.images import Micrograph, read_micrograph

if TYPE_CHECKING:
    from hypervlad.classifier import Explanation

_PATCH_PIXELS = 160  # more would not be seen
# Of the strongest evidence of a word: what a layer's cell spreads thinner is not its place.
_LEAST_SHOWN = 0.1


@dataclass(frozen=True, eq=False)
class Patch:
    """A cut from an image, around a place where a visual word speaks.

    Attributes
    ----------
    pixels : ndarray of shape (h, w)
        Grey, in [0, 1]; averaged down if there are many.
    mask : ndarray of bool, shape (h, w)
        The places where the word speaks for the class.
    image : int
        Which image of the list it is from.
    box : tuple of int
        Top, bottom, left and right in the image, pixels.
    pixel_size : float or None
        Of the image, nanometres per pixel.
    """

    pixels: NDArray[np.floating[Any]]
    mask: NDArray[np.bool_]
    image: int
    box: tuple[int, int, int, int]
    pixel_size: float | None = None


@dataclass(frozen=True, eq=False)
class ClassWord:
    """A visual word that speaks for a class.

    Attributes
    ----------
    label : label of the class
    part : str
        The codebook that it is of: a key of `Explanation.words`.
    word : int
        Its number there.
    evidence : float
        What it adds to the class's margin in an image of the class, on average.
    patches : sequence of Patch
        The strongest first.
    """

    label: Any
    part: str
    word: int
    evidence: float
    patches: Sequence[Patch]


class WordFinder:
    """Finds the words of a class and their patches, with one image in memory at a time.

    Parameters
    ----------
    model : fitted MicrographClassifier
    images : sequence of path or ndarray
    patch_share : float
        Side of a patch as a share of the image's shorter side.
    tick : callable
        Called once after each image looked at for the first time.
    """

    def __init__(
        self, model: Any, images: Sequence[Any], patch_share: float, tick: Callable[[], Any]
    ) -> None:
        self._model, self._images = model, images
        self._read_options = read_options_of(model.encoder_)
        self._patch_share, self._tick = patch_share, tick

    def words_of(
        self, label: Any, members: Sequence[int], n_words: int, n_patches: int
    ) -> list[ClassWord]:
        """Return the words with the most evidence for a class over some of its images.

        Parameters
        ----------
        label : label of the class
        members : sequence of int
            Which images to look at.
        n_words, n_patches : int
            At most.
        """
        names, table = self._evidence_by_word(label, members)
        mean = table.mean(axis=0)
        best = [int(k) for k in np.argsort(-mean, kind="stable")[:n_words] if mean[k] > 0]
        strongest = {k: _strongest(table[:, k], n_patches) for k in best}
        found: dict[int, dict[int, list[Patch]]] = {k: {} for k in best}
        for row in sorted({row for rows in strongest.values() for row in rows}):
            wanted = {names[k]: k for k, rows in strongest.items() if row in rows}
            for word, patches in self._patches(label, members[row], [*wanted], n_patches).items():
                found[wanted[word]][row] = patches
        return [
            ClassWord(
                label,
                *names[k],
                float(mean[k]),
                _best_of_each_first([found[k][row] for row in strongest[k]])[:n_patches],
            )
            for k in best
        ]

    def _evidence_by_word(
        self, label: Any, members: Sequence[int]
    ) -> tuple[list[tuple[str, int]], NDArray[np.float64]]:
        """Return each word's codebook and number, and its evidence in each image, (n, words)."""
        names: list[tuple[str, int]] = []
        rows = []
        for member in members:
            explanation = self._model.explain(self._images[member])
            index = explanation.index_of(label)
            rows.append(np.concatenate([values[index] for values in explanation.words.values()]))
            names = [
                (part, k)
                for part, values in explanation.words.items()
                for k in range(values.shape[1])
            ]
            self._tick()
        return names, np.stack(rows)

    def _patches(
        self, label: Any, member: int, wanted: list[tuple[str, int]], n_patches: int
    ) -> dict[tuple[str, int], list[Patch]]:
        """Cut the strongest places of some words out of one image."""
        explanation: Explanation = self._model.explain(self._images[member], words=wanted)
        micrograph = read_micrograph(self._images[member], **self._read_options)
        shape = (micrograph.pixels.shape[0], micrograph.pixels.shape[1])
        side = max(1, round(self._patch_share * min(shape)))
        found = {}
        for word, maps in explanation.word_maps.items():
            evidence = maps[explanation.index_of(label)]
            boxes = strongest_boxes(evidence, shape, side, n_patches)
            mask = evidence > _LEAST_SHOWN * evidence.max()
            found[word] = [_cut(micrograph, mask, member, box) for box in boxes]
        return found


def strongest_boxes(
    evidence: NDArray[Any], shape: tuple[int, int], side: int, n_boxes: int
) -> list[tuple[int, int, int, int]]:
    """Find squares in an image around the strongest evidence, that do not overlap.

    Parameters
    ----------
    evidence : ndarray of shape (h, w)
        Over the whole image, whatever its own size.
    shape : tuple of int
        Height and width of the image, pixels.
    side : int
        Of the squares, pixels; not more than the image's.
    n_boxes : int
        At most; only around positive evidence.

    Returns
    -------
    list of tuple of int
        Top, bottom, left, right, the strongest first.

    Examples
    --------
    >>> evidence = np.zeros((4, 4))
    >>> evidence[1, 2] = 1
    >>> strongest_boxes(evidence, (40, 80), side=10, n_boxes=3)
    [(10, 20, 45, 55)]
    """
    # Where much evidence lies together, rather than at the one strongest place.
    sigma = [side / length * n / 6 for length, n in zip(shape, evidence.shape, strict=True)]
    near = gaussian_filter(evidence.astype(np.float64), sigma, mode="constant")
    near[~(evidence > 0)] = 0
    centres = [
        (np.arange(n) + 0.5) * length / n for length, n in zip(shape, evidence.shape, strict=True)
    ]
    boxes: list[tuple[int, int, int, int]] = []
    while len(boxes) < n_boxes and near.max() > 0:
        row, column = np.unravel_index(near.argmax(), near.shape)
        top, left = (
            int(np.clip(round(centre - side / 2), 0, length - side))
            for centre, length in (
                (centres[0][row], shape[0]),
                (centres[1][column], shape[1]),
            )
        )
        if not any(abs(top - b[0]) < side and abs(left - b[2]) < side for b in boxes):
            boxes.append((top, top + side, left, left + side))
        rows = np.abs(centres[0] - centres[0][row]) < side / 2
        columns = np.abs(centres[1] - centres[1][column]) < side / 2
        near[np.ix_(rows, columns)] = 0
        near[row, column] = 0
    return boxes


def _strongest(evidence: NDArray[np.float64], n_patches: int) -> list[int]:
    rows = np.argsort(-evidence, kind="stable")[:n_patches]
    return [int(row) for row in rows if evidence[row] > 0]


def _best_of_each_first(patches: Sequence[Sequence[Patch]]) -> list[Patch]:
    """Put every image's first patch before any image's second."""
    rounds = max(map(len, patches), default=0)
    return [each[turn] for turn in range(rounds) for each in patches if turn < len(each)]


def _cut(
    micrograph: Micrograph, mask: NDArray[np.bool_], member: int, box: tuple[int, int, int, int]
) -> Patch:
    top, bottom, left, right = box
    step = max(1, (bottom - top) // _PATCH_PIXELS)
    pixels = micrograph.pixels[top:bottom, left:right]
    pixels = thumbnail(pixels if pixels.ndim == 2 else pixels.mean(axis=2), _PATCH_PIXELS)
    height, width = micrograph.pixels.shape[:2]
    rows = (np.arange(len(pixels)) + 0.5) * step + top
    columns = (np.arange(pixels.shape[1]) + 0.5) * step + left
    own_rows = (rows * mask.shape[0] / height).astype(int)
    own_columns = (columns * mask.shape[1] / width).astype(int)
    own = mask[np.ix_(own_rows, own_columns)]
    return Patch(pixels.copy(), own, member, box, micrograph.pixel_size)
