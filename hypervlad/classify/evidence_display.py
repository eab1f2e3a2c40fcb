"""What positions are evidence for or against a class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from hypervlad.common.constraints import one_each
from hypervlad.common.wording import percent
from hypervlad.images import ReadOptions
from hypervlad.images.reading import check_image_list
from hypervlad.pages.base import (
    Grid,
    GridDisplay,
    Line,
    Tile,
    columns_for_maps,
    names_or_default,
    shorten,
    thumbnail,
)
from hypervlad.pages.colours import AGAINST, FOR, GREY, RIGHT, WRONG

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hypervlad.classify.answers import Explanation

_SMOOTHING = 0.02  # sigma, over the longer side of a map
_ROBUST_PERCENTILE = 99
_MAX_OPACITY = 0.85
_DARKEST = 0.3  # grey that stands for black beneath colours, which would not show on black
_MAX_LETTERS = 22  # of the captions' bold font, across one tile


class EvidenceDisplay(GridDisplay):
    """Images beside maps of the evidence for the predicted class.

    Red positions are evidence for the class, blue ones against it. Colours are saturated at the
    99th percentile of the evidence in an image, so they do not compare images. The log-odds beneath
    a map add up to the margin of the class: "positions" is the sum over the image, "bias" that of
    the class, and "trees" that of boosted trees.

    Parameters
    ----------
    images : sequence of n paths or arrays
    explanations : sequence of n Explanation
        As returned by `MicrographClassifier.explain`.
    labels : sequence of labels, optional
        Classes to show, the same for every image. By default the predicted class.
    runner_up : bool, default=False
        Show the second most probable class too.
    y_true : sequence of n labels, optional
    names : sequence of n str, optional
        By default the names of the files.
    read_options : ReadOptions, optional

    Examples
    --------
    >>> from hypervlad import HypercolumnVLAD, MicrographClassifier, make_tem_images
    >>> from hypervlad.results import EvidenceDisplay
    >>> images, labels = make_tem_images(16, size=32, random_state=0)
    >>> encoder = HypercolumnVLAD(weights="random", image_size=32, n_codewords=4, sampling=900)
    >>> model = MicrographClassifier(encoder, random_state=0).fit(images, labels)
    >>> display = EvidenceDisplay.from_estimator(model, images[:1], names=["a.png"])
    >>> len(display.explanations)
    1
    """

    _has_legend = True

    def __init__(
        self,
        images: Sequence[Any],
        explanations: Sequence[Explanation],
        *,
        labels: Sequence[Any] | None = None,
        runner_up: bool = False,
        y_true: Sequence[Any] | None = None,
        names: Sequence[str] | None = None,
        read_options: ReadOptions | None = None,
    ) -> None:
        self.images = images
        self.explanations = one_each("explanation", explanations, len(images))
        self.y_true = one_each("true label", y_true, len(images))
        self.names = names_or_default(images, names)
        self.read_options = read_options
        self.shown = [_classes_shown(found, labels, runner_up) for found in explanations]

    @classmethod
    def from_estimator(
        cls,
        model: Any,
        images: Sequence[Any],
        *,
        y_true: Sequence[Any] | None = None,
        names: Sequence[str] | None = None,
        ax: Axes | None = None,
    ) -> EvidenceDisplay:
        """Explain the predictions of a model, and plot the evidence for the predicted classes.

        Parameters
        ----------
        model : fitted MicrographClassifier
            Images are shown as the model reads them.
        images, y_true, names
            As for the class.
        ax : matplotlib Axes, optional

        Raises
        ------
        ValueError
            If an image cannot be read, or the model has no linear part.
        """
        images = check_image_list(images)
        return cls(
            images,
            [model.explain(image) for image in images],
            y_true=y_true,
            names=names,
            read_options=model.encoder_.fitted_params_.read_options,
        ).plot(ax=ax)

    @property
    def grid(self) -> Grid:
        n_maps = max((len(classes) for classes in self.shown), default=1)
        n_tiles = sum(1 + len(classes) for classes in self.shown)
        n_lines = 3 if any(found.trees.any() for found in self.explanations) else 2
        return Grid(n_tiles, columns_for_maps(len(self.images), n_maps), n_lines)

    def _draw(self) -> None:
        super()._draw()
        scale = overlay(np.full((1, 129), 0.7), np.linspace(-1, 1, 129)[None])
        self._draw_legend([], ("against", scale, "for the class"))

    def _tiles(self) -> Iterator[Tile]:
        for row, (image, found) in enumerate(zip(self.images, self.explanations, strict=True)):
            pixels = thumbnail(self._read(image))
            yield Tile(pixels, self._image_caption(row))
            maps = smooth(found.maps[self.shown[row]])
            limit = float(np.percentile(np.abs(maps), _ROBUST_PERCENTILE)) or 1.0
            for index, evidence in zip(self.shown[row], maps, strict=True):
                yield Tile(overlay(pixels, evidence / limit), _map_caption(found, index))

    def _image_caption(self, row: int) -> list[Line]:
        if (label := self.y_true[row]) is None:
            return [Line(self.names[row])]
        right = str(label) == str(self.explanations[row].label)
        truth = f"{'✓' if right else '✗'} true: {label}"
        return [Line(self.names[row]), Line(truth, RIGHT if right else WRONG)]


def overlay(pixels: NDArray[Any], evidence: NDArray[Any]) -> NDArray[np.float64]:
    """Lay evidence, clipped to [-1, 1], over an image in [0, 1]: red for, blue against."""
    from skimage.transform import resize

    grey = pixels if pixels.ndim == 2 else pixels.mean(axis=2)
    faint = (_DARKEST + (1 - _DARKEST) * np.clip(grey, 0, 1))[..., None]
    enlarged = resize(evidence.astype(np.float64), grey.shape, order=1, mode="edge")
    strength = np.clip(enlarged, -1, 1)[..., None]
    colours = np.where(strength > 0, FOR, AGAINST)
    opacity = _MAX_OPACITY * np.abs(strength)
    return np.asarray((1 - opacity) * faint + opacity * colours)


def smooth(maps: NDArray[Any]) -> NDArray[np.float64]:
    """Smooth maps (n, H, W) by a Gaussian whose sigma is 2 % of their longer side."""
    sigma = _SMOOTHING * max(maps.shape[1:])
    exact = maps.astype(np.float64)
    return np.asarray(gaussian_filter(exact, (0, sigma, sigma), mode="nearest"))


def _classes_shown(found: Explanation, labels: Sequence[Any] | None, runner_up: bool) -> list[int]:
    if isinstance(labels, str):
        raise ValueError(f"labels: expected a list of classes; wrap one in a list: [{labels!r}].")
    if labels is not None:
        return [found.index_of(label) for label in labels]
    by_probability: list[int] = np.argsort(-found.probabilities, kind="stable").tolist()
    return by_probability[: 2 if runner_up else 1]


def _map_caption(found: Explanation, index: int) -> list[Line]:
    ending = f", {percent(found.probabilities[index])}"
    name = shorten(str(found.classes[index]), _MAX_LETTERS - len(ending))
    positions = found.maps[index].sum(dtype=np.float64)
    lines = [f"positions {_signed(positions)}, bias {_signed(found.baseline[index])}"]
    if found.trees.any():
        lines.append(f"trees {_signed(found.trees[index])}")
    return [Line(name + ending, weight="bold"), *(Line(line, GREY) for line in lines)]


def _signed(value: float) -> str:
    """Format a number with its sign; never a negative zero."""
    return f"{round(float(value), 1) + 0.0:+.1f}".replace("-", "−")
