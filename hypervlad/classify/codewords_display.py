"""Codewords: maps of those that the places of an image are assigned to, and patches of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from hypervlad.classify.evidence_display import signed
from hypervlad.common.wording import counted
from hypervlad.images import Micrograph, ReadOptions, read_micrograph
from hypervlad.images.reading import check_image_list
from hypervlad.pages.base import (
    BLANK,
    Grid,
    GridDisplay,
    Line,
    Tile,
    columns_for_maps,
    evenly_spaced,
    literal,
    names_or_default,
    one_each,
    shorten,
    thumbnail,
)
from hypervlad.pages.colours import FOR, GREY, codeword_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hypervlad.classify.answers import Explanation

_N_IMAGES = 60  # that are explained, of all classes together
_N_CODEWORDS, _N_PATCHES = 3, 6  # at most, of each class and of each codeword
_PATCH_SHARE = 0.2  # side of a patch, over its image's shorter side
_TINT = 0.5
_PATCH_SCALE = 0.6  # of a tile of the other displays
_TITLE_INCHES = 0.3
_MAX_PATCH_PIXELS = 160
# Share of a codeword's strongest evidence: a cell of a coarse layer spreads evidence thinly.
_MIN_EVIDENCE = 0.1
# Share of an image's height and width, at each end: padding makes codewords of the border itself.
_BORDER = 0.05
_N_TRIED = 6  # codewords of each class, in case the first stand for the border

Box = tuple[int, int, int, int]  # top, bottom, left and right in an image, pixels
Codeword = tuple[str, int]  # codebook, a key of `Explanation.words`, and number in it


class CodewordMapDisplay(GridDisplay):
    """Images beside the maps of their codewords.

    Parameters
    ----------
    images : sequence of paths or arrays
    maps : sequence of int ndarray of shape (n_codebooks, h, w)
        The codeword at each position; -1 where there is none.
    colours : sequence of n_codebooks arrays of shape (n_codewords, 3)
        RGB in [0, 1].
    names : sequence of str, optional
        By default the names of the files.
    codebook_names : sequence of n_codebooks str, optional
        Written beneath the maps.
    read_options : ReadOptions, optional

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.results import CodewordMapDisplay
    >>> image, codewords = np.zeros((64, 64)), np.arange(64).reshape(1, 8, 8) % 3
    >>> display = CodewordMapDisplay([image], [codewords], [np.eye(3)], names=["a.png"]).plot()
    >>> display.figure_ is display.ax_.figure
    True
    """

    def __init__(
        self,
        images: Sequence[Any],
        maps: Sequence[NDArray[np.integer[Any]]],
        colours: Sequence[NDArray[np.float64]],
        *,
        names: Sequence[str] | None = None,
        codebook_names: Sequence[str] | None = None,
        read_options: ReadOptions | None = None,
    ) -> None:
        self.images = images
        self.maps = [_check_map(each) for each in maps]
        if len(images) != len(maps) or {len(each) for each in self.maps} - {len(colours)}:
            raise ValueError(
                f"expected one map for each of {counted(len(images), 'image')}, all of the same "
                f"number of codebooks; got maps of shapes {[each.shape for each in self.maps]}."
            )
        self.colours = colours
        self.names = names_or_default(images, names)
        self.codebook_names = codebook_names
        self.read_options = read_options

    @classmethod
    def from_estimator(
        cls,
        encoder: Any,
        images: Sequence[Any],
        *,
        names: Sequence[str] | None = None,
        read_options: ReadOptions | None = None,
        ax: Axes | None = None,
    ) -> CodewordMapDisplay:
        """Assign each position of the images to its nearest codeword, and plot the maps.

        Parameters
        ----------
        encoder : fitted HypercolumnVLAD or MicrographClassifier
        images : sequence of paths or arrays
        names, read_options
            As for the class.
        ax : matplotlib Axes, optional
        """
        encoder = getattr(encoder, "encoder_", encoder)
        centres = encoder.codebook_.codewords
        return cls(
            images,
            [np.asarray(encoder.codeword_maps(image)) for image in images],
            [codeword_colours(each) for each in centres],
            names=names,
            codebook_names=_codebook_names(encoder),
            read_options=read_options,
        ).plot(ax=ax)

    @property
    def grid(self) -> Grid:
        n_images, n_maps = len(self.images), len(self.colours)
        return Grid(n_images * (1 + n_maps), columns_for_maps(n_images, n_maps), n_lines=1)

    def _tiles(self) -> Iterator[Tile]:
        for image, name, planes in zip(self.images, self.names, self.maps, strict=True):
            pixels = self._read(image)
            yield Tile(thumbnail(pixels), [Line(name)])
            # The grid may be square: it covers the whole image all the same.
            aspect = pixels.shape[1] / pixels.shape[0]
            for number, plane in enumerate(planes):
                # Places without a codeword (-1) get the last row.
                painted = np.vstack([self.colours[number], [[1.0, 1.0, 1.0]]])[plane]
                of = "" if self.codebook_names is None else f" of {self.codebook_names[number]}"
                yield Tile(painted, [Line(f"codewords{of}")], aspect, crisp=True)


def _check_map(codewords: NDArray[Any]) -> NDArray[np.integer[Any]]:
    planes = np.asarray(codewords)
    if planes.ndim != 3 or not np.issubdtype(planes.dtype, np.integer):
        raise ValueError(
            "a codeword map is an array of integers of shape (n_codebooks, h, w); got "
            f"{planes.dtype} of shape {planes.shape}."
        )
    return planes


def _codebook_names(encoder: Any) -> list[str] | None:
    book = encoder.codebook_
    if len(book.codewords) == 1:
        return None
    layers = [str(tap) for tap in encoder.taps_[: len(book.per_layer)]]
    return layers if book.joint is None else ["all taps", *layers]


@dataclass(frozen=True, eq=False)
class Patch:
    """A grey patch of an image, and where a codeword is evidence for the class.

    ``image`` is the position of the image in the list, ``pixel_size`` in nanometres.
    """

    pixels: NDArray[np.floating[Any]]
    mask: NDArray[np.bool_]
    image: int
    box: Box
    pixel_size: float | None = None


@dataclass(frozen=True, eq=False)
class ClassCodeword:
    """A codeword, its mean contribution to the margin of a class, and patches, strongest first."""

    label: Any
    codebook: str
    number: int
    evidence: float
    patches: Sequence[Patch]


def _codewords_of(
    model: Any, images: Sequence[Any], label: Any, members: Sequence[int]
) -> list[ClassCodeword]:
    """Find the codewords with the most evidence for a class in some images, and their patches.

    Those with evidence only at the border of the images are left out.
    """
    found = [model.explain(images[member]) for member in members]
    index = found[0].index_of(label)
    evidence: dict[Codeword, NDArray[np.float64]] = {
        (codebook, number): np.array([each.words[codebook][index, number] for each in found])
        for codebook, values in found[0].words.items()
        for number in range(values.shape[1])
    }
    mean = {codeword: float(values.mean()) for codeword, values in evidence.items()}
    ranked = sorted((each for each in mean if mean[each] > 0), key=lambda each: -mean[each])
    rows = {each: _strongest(evidence[each]) for each in ranked[:_N_TRIED]}
    patches: dict[tuple[Codeword, int], Patch] = {}
    for row in sorted({row for own in rows.values() for row in own}):
        wanted = [codeword for codeword in rows if row in rows[codeword]]
        own = _patches(model, images[members[row]], members[row], label, wanted)
        patches |= {(codeword, row): patch for codeword, patch in own.items()}
    shown = [
        ClassCodeword(
            label,
            *each,
            mean[each],
            [patches[each, row] for row in rows[each] if (each, row) in patches],
        )
        for each in rows
    ]
    return [each for each in shown if each.patches][:_N_CODEWORDS]


def _patches(
    model: Any, image: Any, member: int, label: Any, wanted: Sequence[Codeword]
) -> dict[Codeword, Patch]:
    """Cut out where the evidence of each codeword is strongest, unless that is the border only."""
    explanation: Explanation = model.explain(image, words=wanted)
    micrograph = read_micrograph(image, **asdict(model.encoder_.fitted_params_.read_options))
    shape = (micrograph.pixels.shape[0], micrograph.pixels.shape[1])
    side = max(1, round(_PATCH_SHARE * min(shape)))
    found = {}
    for codeword, maps in explanation.word_maps.items():
        evidence = maps[explanation.index_of(label)]
        inner = _without_border(evidence)
        if inner.max() > 0:
            mask = evidence > _MIN_EVIDENCE * inner.max()
            found[codeword] = _cut(micrograph, mask, member, _strongest_box(inner, shape, side))
    return found


class CodewordPatchesDisplay(GridDisplay):
    """The codewords with the most evidence for each class, each as a row of patches.

    Red positions are evidence for the class, in the image or in one of its turned copies. The
    number beside a row is the codeword's mean contribution to the margin of the class. Codewords
    with evidence only at the border, in the outer 5 % of the sides, are left out.

    Parameters
    ----------
    codewords : sequence of ClassCodeword
        Those of a class follow each other.

    Examples
    --------
    >>> from hypervlad import HypercolumnVLAD, MicrographClassifier, make_tem_images
    >>> from hypervlad.results import CodewordPatchesDisplay
    >>> images, labels = make_tem_images(16, size=32, random_state=0)
    >>> encoder = HypercolumnVLAD(weights="random", image_size=32, n_codewords=4)
    >>> model = MicrographClassifier(encoder, random_state=0).fit(images, labels)
    >>> display = CodewordPatchesDisplay.from_estimator(model, images, labels)
    >>> sorted({str(each.label) for each in display.codewords})
    ['cluster', 'fiber', 'matrix', 'matrix-surface']
    """

    def __init__(self, codewords: Sequence[ClassCodeword]) -> None:
        self.codewords = codewords

    @classmethod
    def from_estimator(
        cls, model: Any, images: Sequence[Any], y: Sequence[Any], *, ax: Axes | None = None
    ) -> CodewordPatchesDisplay:
        """Find the three codewords with the most evidence for each class, and plot them.

        The evidence is averaged over at most 60 images, spaced evenly in the list of each class.
        At most six patches, of different images, show where it is strongest.

        Parameters
        ----------
        model : fitted MicrographClassifier
        images : sequence of n paths or arrays
            Preferably the training images.
        y : sequence of n labels
        ax : matplotlib Axes, optional

        Raises
        ------
        ValueError
            If lengths differ, a class has no image, an image cannot be read, or the model has no
            linear part.
        """
        images = check_image_list(images)
        codewords: list[ClassCodeword] = []
        for label, members in _chosen_images(images, y, model.classes_):
            codewords += _codewords_of(model, images, label, members)
        return cls(codewords).plot(ax=ax)

    @property
    def grid(self) -> Grid:
        n_columns = 1 + max((len(codeword.patches) for codeword in self.codewords), default=1)
        return Grid(n_columns * len(self.codewords), n_columns)

    @property
    def figure_size(self) -> tuple[float, float]:
        width, height = self.grid.size
        return _PATCH_SCALE * width, _PATCH_SCALE * height + _TITLE_INCHES

    def _tiles(self) -> Iterator[Tile]:
        for each in self.codewords:
            yield BLANK  # for what is written beside the patches
            yield from (Tile(_tinted(patch)) for patch in each.patches)
            yield from [BLANK] * (self.grid.n_columns - 1 - len(each.patches))

    def _draw(self) -> None:
        super()._draw()
        for row, each in enumerate(self.codewords):
            layer = each.codebook.removeprefix("per_layer.").replace("joint", "all taps")
            lines = [literal(shorten(str(each.label), 16)), f"codeword {each.number}"]
            lines += [shorten(layer, 16), f"evidence {signed(each.evidence, 2)}"]
            y = 1 - (row + 0.5) / len(self.codewords)
            style: dict[str, Any] = {"fontsize": 8.5, "va": "center", "linespacing": 1.5}
            self.ax_.text(0.01, y, "\n".join(lines), transform=self.ax_.transAxes, **style)
        patches = [patch for codeword in self.codewords for patch in codeword.patches]
        title = f"Codewords in patches{_width_text(patches)}; red: evidence for the class"
        self.ax_.set_title(title, fontsize=8.5, color=GREY, loc="left")


def _chosen_images(
    images: Sequence[Any], y: Sequence[Any], labels: Sequence[Any]
) -> list[tuple[Any, list[int]]]:
    """Choose images of each class at even intervals of its list, at least one of each."""
    truth = np.asarray(one_each("label", y, len(images)))
    n_each = max(1, _N_IMAGES // len(labels))
    chosen = []
    for label in labels:
        members = np.flatnonzero(truth == label)
        if not len(members):
            raise ValueError(
                f"none of the {counted(len(truth), 'image')} is of the class {str(label)!r}."
            )
        chosen.append((label, members[evenly_spaced(len(members), n_each)].tolist()))
    return chosen


def _tinted(patch: Patch) -> NDArray[np.floating[Any]]:
    grey = patch.pixels[..., None]
    tinted: NDArray[np.floating[Any]] = np.where(
        patch.mask[..., None], (1 - _TINT) * grey + _TINT * np.array(FOR), grey
    )
    return tinted


def _width_text(patches: Sequence[Patch]) -> str:
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


def _without_border(evidence: NDArray[Any]) -> NDArray[Any]:
    """Return evidence by position without that at the border; all zero if there is little else."""
    inner = np.zeros_like(evidence)
    rows, columns = (
        slice(n_border, n - n_border)
        for n in evidence.shape
        for n_border in [int(((np.arange(n) + 0.5) / n < _BORDER).sum())]
    )
    inner[rows, columns] = evidence[rows, columns]
    return inner if inner.max() > _MIN_EVIDENCE * evidence.max() else np.zeros_like(evidence)


def _strongest_box(evidence: NDArray[Any], shape: tuple[int, int], side: int) -> Box:
    """Return the square of this side, in pixels, around the strongest evidence."""
    # Smoothed, so that much evidence nearby counts more than a single strong place.
    sigma = [side / length * n / 6 for length, n in zip(shape, evidence.shape, strict=True)]
    near = gaussian_filter(evidence.astype(np.float64), sigma, mode="constant")
    near[~(evidence > 0)] = 0
    place = np.unravel_index(near.argmax(), near.shape)
    top, left = (
        int(np.clip(round((at + 0.5) * length / n - side / 2), 0, length - side))
        for at, n, length in zip(place, near.shape, shape, strict=True)
    )
    return top, top + side, left, left + side


def _strongest(evidence: NDArray[np.float64]) -> list[int]:
    rows = np.argsort(-evidence, kind="stable")[:_N_PATCHES]
    return [int(row) for row in rows if evidence[row] > 0]


def _cut(
    micrograph: Micrograph, mask: NDArray[np.bool_], member: int, box: tuple[int, int, int, int]
) -> Patch:
    top, bottom, left, right = box
    step = max(1, (bottom - top) // _MAX_PATCH_PIXELS)
    pixels = micrograph.pixels[top:bottom, left:right]
    pixels = thumbnail(pixels if pixels.ndim == 2 else pixels.mean(axis=2), _MAX_PATCH_PIXELS)
    height, width = micrograph.pixels.shape[:2]
    rows = (np.arange(len(pixels)) + 0.5) * step + top
    columns = (np.arange(pixels.shape[1]) + 0.5) * step + left
    own_rows = (rows * mask.shape[0] / height).astype(int)
    own_columns = (columns * mask.shape[1] / width).astype(int)
    own = mask[np.ix_(own_rows, own_columns)]
    return Patch(pixels.copy(), own, member, box, micrograph.pixel_size)
