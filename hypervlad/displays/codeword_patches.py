"""The visual words that speak for a class, as patches of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from hypervlad.displays.class_words import ClassWord, Patch, WordFinder
from hypervlad.displays.evidence import FOR, signed
from hypervlad.displays.figures import axes_or_new
from hypervlad.displays.tiles import GREY, Tile, draw_tiles, literal, sheet_size, shorten
from hypervlad.images import check_image_list

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PATCH_SCALE = 0.6  # of a tile of the other displays
_TEXT, _TITLE = 1.15, 0.25  # to the left and above, in tiles
_TINT = 0.5
_EMPTY = Tile(np.ones((1, 1)))


class CodewordPatchesDisplay:
    """The visual words that speak most for each class, each as a row of patches.

    Red places are where the word speaks for the class; with turned copies, also where it was found
    in one of these. The number beside a row is what the word adds to the class's margin in an image
    of the class, on average. Channel averages (``pooled``) have no words, so their evidence is not
    shown here.

    It is best made by `from_estimator`.

    Parameters
    ----------
    words : sequence of ClassWord
        Those of one class side by side.
    title : str, optional

    Attributes
    ----------
    figure_ : matplotlib Figure
    ax_ : matplotlib Axes
    """

    figure_: Figure
    ax_: Axes

    def __init__(self, words: Sequence[ClassWord], title: str = "") -> None:
        self.words = words
        self.title = title

    @classmethod
    def from_estimator(
        cls,
        model: Any,
        images: Sequence[Any],
        y: Sequence[Any],
        *,
        labels: Sequence[Any] | None = None,
        n_words: int = 3,
        n_patches: int = 6,
        n_images: int = 60,
        patch_share: float = 0.2,
        verbose: bool = False,
        ax: Axes | None = None,
    ) -> CodewordPatchesDisplay:
        """Find the words that speak most for each class, and where they do, and plot.

        Some images of each class are explained (see `MicrographClassifier.explain`), one at a
        time. The words with the most evidence for the class, on average over these images, are
        shown where that is strongest: first one patch of each image, then more that do not
        overlap.

        Parameters
        ----------
        model : fitted MicrographClassifier
        images : sequence of n path or ndarray of shape (H, W) or (H, W, 3)
            Best those that the model was trained on.
        y : sequence of n labels
        labels : sequence of labels, optional
            Classes to show; by default all that the model knows.
        n_words : int, default=3
            Words for each class at most; those that do not speak for it are left out.
        n_patches : int, default=6
            Patches for each word at most.
        n_images : int, default=60
            Images to look at, of all classes together (but at least one of each), evenly spaced in
            the list of each class. The title says how many they were.
        patch_share : float, default=0.2
            Side of a patch as a share of its image's shorter side.
        verbose : bool, default=False
            Show a progress bar.
        ax : matplotlib Axes, optional

        Returns
        -------
        CodewordPatchesDisplay

        Raises
        ------
        ValueError
            If lengths differ, a number is out of range, a class has no image, or the model has no
            linear part (see `MicrographClassifier.explain`).
        ImageReadError
            An image that cannot be read.
        """
        images = check_image_list(images)
        _check_numbers(n_words, n_patches, n_images, patch_share)
        chosen = chosen_images(images, y, model.classes_ if labels is None else labels, n_images)
        n_used = sum(len(members) for _, members in chosen)
        words: list[ClassWord] = []
        with tqdm(desc="words", unit="image", total=n_used, disable=not verbose) as bar:
            finder = WordFinder(model, images, patch_share, bar.update)
            for label, members in chosen:
                words += finder.words_of(label, members, n_words, n_patches)
        of = f"{n_used}" if n_used == len(images) else f"{n_used} of {len(images)}"
        title = f"Patches{_width_in_words(words)} from {of} images; red: where the word speaks"
        return cls(words, title).plot(ax=ax)

    @property
    def n_columns(self) -> int:
        """The most patches of a word."""
        return max((len(word.patches) for word in self.words), default=1)

    @property
    def figure_size(self) -> tuple[float, float]:
        """Width and height in inches that suit the number of words and patches."""
        width, height = sheet_size(self.n_columns * len(self.words), self.n_columns, 0)
        tile = sheet_size(1, 1, 0)[0]
        return (width + _TEXT * tile) * _PATCH_SCALE, (height + _TITLE * tile) * _PATCH_SCALE

    def plot(self, ax: Axes | None = None) -> CodewordPatchesDisplay:
        """Draw a row of patches for each word.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            A new figure by default.

        Returns
        -------
        CodewordPatchesDisplay
            Itself.
        """
        self.figure_, self.ax_ = axes_or_new(ax, self.figure_size)
        tiles = []
        for word in self.words:
            shown = [Tile(_tinted(patch)) for patch in word.patches]
            tiles += shown + [_EMPTY] * (self.n_columns - len(shown))
        draw_tiles(self.ax_, tiles, self.n_columns)
        (left, right), (bottom, top) = self.ax_.get_xlim(), self.ax_.get_ylim()
        self.ax_.set_xlim(left - _TEXT, right)
        self.ax_.set_ylim(bottom, top - _TITLE)
        pitch = (bottom - top) / max(1, len(self.words))
        self._write(left - _TEXT, 0.6 * (top - _TITLE), self.title, GREY)
        for row, word in enumerate(self.words):
            y = row * pitch + 0.2
            if row == 0 or self.words[row - 1].label != word.label:
                self._write(left - _TEXT, y, shorten(str(word.label), 16), weight="bold")
            self._write(left - _TEXT, y + 0.25, _name(word), GREY)
            self._write(left - _TEXT, y + 0.5, f"evidence {signed(word.evidence, 2)}", GREY)
        return self

    def _write(
        self, x: float, y: float, text: str, colour: str = "#222222", weight: str = "normal"
    ) -> None:
        self.ax_.text(
            x, y, literal(text), fontsize=8.5, color=colour, fontweight=weight, va="center"
        )


def chosen_images(
    images: Sequence[Any], y: Sequence[Any], labels: Sequence[Any], n_images: int
) -> list[tuple[Any, list[int]]]:
    """Choose images of each class, evenly spaced in its list.

    Parameters
    ----------
    images : sequence of n images
    y : sequence of n labels
    labels : sequence of labels
    n_images : int
        Of all classes together at most, but at least one of each.

    Returns
    -------
    list of (label, list of int)

    Examples
    --------
    >>> chosen_images(range(6), list("aaaabb"), ["a", "b"], n_images=4)
    [('a', [0, 3]), ('b', [4, 5])]
    """
    truth = np.asarray(y)
    if len(truth) != len(images):
        raise ValueError(f"got {len(images)} images but {len(truth)} labels (y).")
    n_each = max(1, n_images // max(1, len(labels)))
    chosen = []
    for label in labels:
        members = np.flatnonzero(truth == label)
        if not len(members):
            raise ValueError(f"none of the {len(truth)} images is of the class {str(label)!r}.")
        places = np.linspace(0, len(members) - 1, min(n_each, len(members))).round().astype(int)
        chosen.append((label, members[places].tolist()))
    return chosen


def _check_numbers(n_words: int, n_patches: int, n_images: int, patch_share: float) -> None:
    for name, value in (("n_words", n_words), ("n_patches", n_patches), ("n_images", n_images)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value!r}.")
    if not 0 < patch_share <= 1:
        raise ValueError(f"patch_share must be above 0 and at most 1, not {patch_share!r}.")


def _name(word: ClassWord) -> str:
    layer = word.part.removeprefix("per_layer.")
    return f"word {word.word}, {'all taps' if word.part == 'joint' else layer}"


def _tinted(patch: Patch) -> NDArray[np.floating[Any]]:
    grey = patch.pixels[..., None]
    tinted: NDArray[np.floating[Any]] = np.where(
        patch.mask[..., None], (1 - _TINT) * grey + _TINT * np.array(FOR), grey
    )
    return tinted


def _width_in_words(words: Sequence[ClassWord]) -> str:
    """How wide the patches are: in pixels, and in nanometres where all images tell."""
    patches = [patch for word in words for patch in word.patches]
    if not patches:
        return ""
    pixels = [patch.box[1] - patch.box[0] for patch in patches]
    text = f" {_range(pixels)} pixels wide"
    sizes = [patch.pixel_size for patch in patches if patch.pixel_size is not None]
    if len(sizes) == len(patches):
        text += f" ({_range([n * size for n, size in zip(pixels, sizes, strict=True)])} nm)"
    return text


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.4g}", f"{max(values):.4g}"
    return low if low == high else f"{low} to {high}"
