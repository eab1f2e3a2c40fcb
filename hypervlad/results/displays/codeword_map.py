"""Codeword maps: the codeword that each place of an image is assigned to, in colour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.common.wording import counted
from hypervlad.images import ReadOptions
from hypervlad.results.displays.base import (
    Grid,
    GridDisplay,
    Line,
    Tile,
    columns_for_maps,
    names_or_default,
    thumbnail,
)
from hypervlad.results.displays.colours import codeword_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class CodewordMapDisplay(GridDisplay):
    """Images beside the maps of their codewords. Usually created by `from_estimator`.

    Parameters
    ----------
    images : sequence of paths or arrays
    maps : sequence of int ndarray of shape (n_codebooks, h, w)
        The codeword at each position of the grid; -1 where there is none.
    colours : sequence of n_codebooks arrays of shape (n_codewords, 3)
        RGB in [0, 1].
    names : sequence of str, optional
        By default the names of the files.
    codebook_names : sequence of n_codebooks str, optional
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
        """Assign every position of the images to its nearest codeword, and plot.

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
                yield Tile(painted, [Line(self._title(number))], aspect, crisp=True)

    def _title(self, number: int) -> str:
        if self.codebook_names is None:
            return "codewords"
        return f"codewords of {self.codebook_names[number]}"


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
