"""Evidence maps: which places of an image speak for a class, and which against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from hypervlad.displays.contact_sheet import RIGHT, WRONG, image_names
from hypervlad.displays.facts import read_options_of
from hypervlad.displays.figures import axes_or_new
from hypervlad.displays.tiles import (
    GREY,
    TILE_INCHES,
    Line,
    Tile,
    columns_for_maps,
    draw_tiles,
    sheet_size,
    shorten,
    thumbnail,
)
from hypervlad.images import check_image_list, read_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hypervlad.classifier import Explanation

FOR = (0.86, 0.10, 0.16)  # red
AGAINST = (0.10, 0.38, 0.92)  # blue
_ROBUST_PERCENTILE = 99
_MOST_OPAQUE = 0.85
_DARKEST = 0.3  # black under an overlay becomes this grey, or colours would drown in it
_LEGEND_INCHES = 0.3
_LETTERS = 22  # of the captions' bold font, across one tile


class EvidenceDisplay:
    """Images beside maps of the evidence for the class that the model names.

    Red places speak for the class, blue ones against it, grey ones hardly matter. For reading, the
    map is smoothed and laid over the image. Full colour begins where 1 % of an image's places
    begin, so colours compare places and classes of one image, not images. Of the numbers beneath,
    "places" is the sum over the image, "start" what the model says before it looks, and "trees",
    if the model has any, what they add, which has no place. All are logarithms of odds; together
    they are the margin of the class.

    Intra-normalisation makes rare words as loud as frequent ones: small spots of strong colour are
    rare words. Networks pad images with zeros, so words of their own, and strong evidence, may
    lie in corners and along borders; that is what the model uses, not a fault of the picture.

    It is best made by `from_estimator`.

    Parameters
    ----------
    images : sequence of n path or ndarray of shape (H, W) or (H, W, 3)
    explanations : sequence of n Explanation
        What `MicrographClassifier.explain` returns.
    labels : sequence of labels, optional
        Classes to show, the same for every image. By default the one that the model names.
    runner_up : bool, default=False
        Show the second most probable class too.
    y_true : sequence of n labels, optional
        The right labels, where they are known.
    names : sequence of n str, optional
        What to call each image.
    smoothing : float, default=0.02
        Standard deviation of the Gaussian that the map is smoothed with, as a share of its longer
        side; 0 shows the evidence as it is.
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
        explanations: Sequence[Explanation],
        *,
        labels: Sequence[Any] | None = None,
        runner_up: bool = False,
        y_true: Sequence[Any] | None = None,
        names: Sequence[str] | None = None,
        smoothing: float = 0.02,
        read_options: Mapping[str, Any] | None = None,
    ) -> None:
        if len(images) != len(explanations):
            raise ValueError(
                f"expected one explanation for each of {len(images)} images; got "
                f"{len(explanations)}."
            )
        if y_true is not None and len(y_true) != len(images):
            raise ValueError(f"got {len(images)} images but {len(y_true)} true labels.")
        if not smoothing >= 0:
            raise ValueError(f"smoothing must be a number of at least 0, not {smoothing!r}.")
        self.images = images
        self.explanations = explanations
        self.y_true = y_true
        self.smoothing = smoothing
        self.names = image_names(images) if names is None else names
        self.read_options = read_options
        self.shown = [_classes_shown(found, labels, runner_up) for found in explanations]

    @classmethod
    def from_estimator(
        cls,
        model: Any,
        images: Sequence[Any],
        *,
        labels: Sequence[Any] | None = None,
        runner_up: bool = False,
        y_true: Sequence[Any] | None = None,
        names: Sequence[str] | None = None,
        smoothing: float = 0.02,
        ax: Axes | None = None,
    ) -> EvidenceDisplay:
        """Explain what a model says of images, and plot.

        Parameters
        ----------
        model : fitted MicrographClassifier
            Images are read for showing as the model reads them.
        images : sequence of n path or ndarray of shape (H, W) or (H, W, 3)
        labels, runner_up, y_true, names, smoothing
            As for the class.
        ax : matplotlib Axes, optional

        Returns
        -------
        EvidenceDisplay

        Raises
        ------
        ImageReadError
            An image that cannot be read, or something that is not a list of images.
        ValueError
            If the model has no linear part (see `MicrographClassifier.explain`), or does not know
            one of the labels.
        """
        images = check_image_list(images)
        display = cls(
            images,
            [model.explain(image) for image in images],
            labels=labels,
            runner_up=runner_up,
            y_true=y_true,
            names=names,
            smoothing=smoothing,
            read_options=read_options_of(model.encoder_),
        )
        return display.plot(ax=ax)

    @property
    def n_columns(self) -> int:
        """The image and its maps; two images a row where there is one map each."""
        n_maps = max((len(classes) for classes in self.shown), default=1)
        return columns_for_maps(len(self.images), n_maps)

    @property
    def figure_size(self) -> tuple[float, float]:
        """Width and height in inches that suit the number of images and maps."""
        n_tiles = sum(1 + len(classes) for classes in self.shown)
        n_lines = 3 if any(found.trees.any() for found in self.explanations) else 2
        width, height = sheet_size(n_tiles, self.n_columns, n_lines)
        return width, height + _LEGEND_INCHES

    def plot(self, ax: Axes | None = None) -> EvidenceDisplay:
        """Read the images and draw them beside their evidence.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            A new figure by default.

        Returns
        -------
        EvidenceDisplay
            Itself.
        """
        self.figure_, self.ax_ = axes_or_new(ax, self.figure_size)
        tiles = [tile for row in range(len(self.images)) for tile in self._tiles(row)]
        draw_tiles(self.ax_, tiles, self.n_columns)
        _draw_legend(self.ax_)
        return self

    def _tiles(self, row: int) -> list[Tile]:
        pixels = thumbnail(read_image(self.images[row], **dict(self.read_options or {})))
        found, classes = self.explanations[row], self.shown[row]
        caption = [Line(self.names[row])]
        if self.y_true is not None:
            right = str(self.y_true[row]) == str(found.label)
            colour = RIGHT if right else WRONG
            caption.append(Line(f"{'✓' if right else '✗'} true: {self.y_true[row]}", colour))
        maps = smoothed(found.maps[classes], self.smoothing)
        limit = float(np.percentile(np.abs(maps), _ROBUST_PERCENTILE)) or 1.0
        of_classes = [
            Tile(overlay(pixels, evidence / limit), _caption(found, index))
            for index, evidence in zip(classes, maps, strict=True)
        ]
        return [Tile(pixels, caption), *of_classes]


def overlay(pixels: NDArray[Any], evidence: NDArray[Any]) -> NDArray[np.float64]:
    """Lay evidence over an image: red for, blue against, the clearer the stronger.

    Parameters
    ----------
    pixels : ndarray of shape (H, W) or (H, W, 3), in [0, 1]
    evidence : ndarray of shape (h, w)
        In [-1, 1]; beyond, it is cut off. It is enlarged to the image bilinearly.

    Returns
    -------
    ndarray of shape (H, W, 3)
        RGB in [0, 1].
    """
    from skimage.transform import resize

    grey = pixels if pixels.ndim == 2 else pixels.mean(axis=2)
    faint = (_DARKEST + (1 - _DARKEST) * np.clip(grey, 0, 1))[..., None]
    enlarged = resize(evidence.astype(np.float64), grey.shape, order=1, mode="edge")
    strength = np.clip(enlarged, -1, 1)[..., None]
    colours = np.where(strength > 0, FOR, AGAINST)
    opacity = _MOST_OPAQUE * np.abs(strength)
    blended: NDArray[np.float64] = (1 - opacity) * faint + opacity * colours
    return blended


def smoothed(maps: NDArray[Any], smoothing: float) -> NDArray[np.float64]:
    """Smooth maps (n, H, W) by a Gaussian of this share of their longer side."""
    sigma = smoothing * max(maps.shape[1:])
    result: NDArray[np.float64] = gaussian_filter(
        maps.astype(np.float64), (0, sigma, sigma), mode="nearest"
    )
    return result


def _classes_shown(found: Explanation, labels: Sequence[Any] | None, runner_up: bool) -> list[int]:
    if isinstance(labels, str):
        raise ValueError(f"labels: expected a list of classes; wrap one in a list: [{labels!r}].")
    by_probability = np.argsort(-found.probabilities, kind="stable").tolist()
    if labels is None:
        return by_probability[: 2 if runner_up else 1]
    return [found.index_of(label) for label in labels]


def _caption(found: Explanation, index: int) -> list[Line]:
    ending = f", {100 * found.probabilities[index]:.0f} %"
    name = shorten(str(found.classes[index]), _LETTERS - len(ending))
    places = found.maps[index].sum(dtype=np.float64)
    lines = [f"places {signed(places)}, start {signed(found.baseline[index])}"]
    if found.trees.any():
        lines.append(f"trees {signed(found.trees[index])}")
    return [Line(name + ending, weight="bold"), *(Line(line, GREY) for line in lines)]


def signed(value: float, decimals: int = 1) -> str:
    """A number with its sign.

    Examples
    --------
    >>> signed(-1.26), signed(-0.01)
    ('−1.3', '+0.0')
    """
    rounded = round(float(value), decimals) + 0.0  # no negative zero
    return f"{rounded:+.{decimals}f}".replace("-", "−")


def _draw_legend(ax: Axes) -> None:
    """Add a bar from blue to red beneath the tiles."""
    left, bottom = ax.get_xlim()[0], ax.get_ylim()[0]
    inch = 1 / TILE_INCHES
    scale = np.linspace(-1, 1, 129)[None]
    bar = overlay(np.full(scale.shape, 0.7), scale)
    x, y, width, height = left + 0.75 * inch, bottom + 0.06 * inch, 1.2 * inch, 0.12 * inch
    ax.imshow(bar, extent=(x, x + width, y + height, y), aspect="equal")
    for place, side, text in (
        (x - 0.06 * inch, "right", "against"),
        (x + width, "left", " for the class"),
    ):
        ax.text(place, y + height / 2, text, ha=side, va="center", fontsize=8.5, color=GREY)
    # The image of the bar would else set the limits.
    ax.set_xlim(left, ax.get_xlim()[1])
    ax.set_ylim(bottom + _LEGEND_INCHES * inch, ax.get_ylim()[1])
