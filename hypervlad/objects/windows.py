"""Windows of many regions side by side in one array, which NumPy and SciPy compute at once.

Each of their calls takes tens of microseconds, however few pixels a region has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hypervlad.images.resampling import areas_of

LabelMap: TypeAlias = NDArray[np.int32]
BoolMap: TypeAlias = NDArray[np.bool_]
Window: TypeAlias = tuple[slice, ...]

# The place of a window that the image cuts, and by how many pixels it does.
_Cut: TypeAlias = tuple[Window, tuple[tuple[int, int], ...]]

_AT_ONCE = 1 << 18  # pixels of an array, unless one window has more


def grown_window(window: Window, by: int) -> Window:
    """Return a window with so many pixels more on each side, but none before the first."""
    return tuple(slice(max(0, side.start - by), side.stop + by) for side in window)


def joint_window(*windows: Window) -> Window:
    """Return the window that contains all of these."""
    sides = zip(*windows, strict=True)
    return tuple(slice(min(s.start for s in own), max(s.stop for s in own)) for own in sides)


class SideBySide:
    """Some regions of a label image, each with a margin of its own around its window.

    Attributes
    ----------
    numbers : ndarray of int32, shape (n,)
        The regions' labels.
    of_column, at : ndarray, shape (width,)
        The label of the region that each column of the array belongs to, and its place in
        `numbers`.
    """

    def __init__(
        self, numbers: NDArray[np.int32], boxes: NDArray[np.int64], shape: tuple[int, ...]
    ) -> None:
        tops, bottoms, lefts, rights = boxes.T
        widths = rights - lefts
        self._starts = np.cumsum(widths) - widths
        self.numbers, self.at = numbers, np.repeat(np.arange(len(numbers)), widths)
        self.of_column = numbers[self.at]
        self._size = int((bottoms - tops).max()), len(self.at)
        # Of each column, the image's row of its first pixel, and the image's column.
        self._row, self._column = tops[self.at], np.arange(len(self.at))
        self._column = self._column + (lefts - self._starts)[self.at]
        self._places = list[tuple[Window, Window, _Cut | None]]()
        height, width = shape
        self._n_columns = width
        for (top, bottom, left, right), start in zip(
            boxes.tolist(), self._starts.tolist(), strict=True
        ):
            y, x, below, after = max(0, top), max(0, left), min(bottom, height), min(right, width)
            here = slice(y - top, below - top), slice(start + x - left, start + after - left)
            cut, more = None, ((y - top, bottom - below), (x - left, right - after))
            if any(map(any, more)):
                cut = (slice(0, bottom - top), slice(start, start + right - left)), more
            self._places.append(((slice(y, below), slice(x, after)), here, cut))

    def take(self, values: NDArray[Any], beyond: int | None = 0) -> NDArray[Any]:
        """Return values of the image (H, W) in each window.

        Beyond the image, they are `beyond`, or those of the window mirrored, if that is None.
        """
        found = np.full(self._size, beyond or 0, values.dtype)
        for window, here, cut in self._places:
            found[here] = values[window]
            if beyond is None and cut is not None:
                place, more = cut
                found[place] = np.pad(values[window], more, mode="symmetric")
        return found

    def put(self, values: NDArray[Any], where: BoolMap, found: NDArray[Any] | int) -> None:
        """Put an array's values, or one, into the image where it says so."""
        for rows in self._some_rows():
            y, x = np.nonzero(where[rows])
            some = found if isinstance(found, int) else found[rows][y, x]
            values[self._row[x] + y + rows.start, self._column[x]] = some

    def own(self, labels: LabelMap) -> BoolMap:
        """Return where each window has its region."""
        return np.asarray(self.take(labels) == self.of_column)

    def counts(self, mask: BoolMap) -> NDArray[np.int64]:
        """Return the number of pixels of each region, (n,)."""
        return np.add.reduceat(np.count_nonzero(mask, axis=0), self._starts)

    def sums(self, values: NDArray[Any], mask: BoolMap) -> NDArray[np.float64]:
        """Return the sums of values in a mask, of each region, (n,)."""
        columns = np.einsum("ij,ij->j", values, mask, dtype=np.float64, casting="unsafe")
        return np.add.reduceat(columns, self._starts)

    def histograms(self, values: NDArray[np.uint8], mask: BoolMap) -> NDArray[np.int64]:
        """Return how often each region has each value in a mask, (n, 256)."""
        found = np.zeros(256 * len(self.numbers), np.int64)
        for rows in self._some_rows():
            codes = (256 * self.at + values[rows])[mask[rows]]
            found += np.bincount(codes, minlength=len(found))
        return found.reshape(-1, 256)

    def parts(self, labels: LabelMap) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """Return the place in `numbers` of what each of n labels is part of, and their areas."""
        areas = areas_of(labels, int(labels.max(initial=0)))
        of = np.zeros(len(areas), np.intp)
        for rows in self._some_rows():
            of[labels[rows]] = self.at
        return of[1:], areas[1:]

    def firsts(self, labels: LabelMap, n: int) -> NDArray[np.intp]:
        """Return the flat index in the image of the first pixel of labels 0 to n."""
        found = np.zeros(n + 1, np.intp)
        for rows in reversed(list(self._some_rows())):
            y, x = (each[::-1] for each in np.nonzero(labels[rows]))
            at = (self._row[x] + y + rows.start) * self._n_columns + self._column[x]
            found[labels[rows][y, x]] = at
        return found

    def _some_rows(self) -> Iterator[slice]:
        """Yield few rows at once, as indices take 64 bits."""
        height, width = self._size
        step = max(1, _AT_ONCE // width)
        return (slice(top, top + step) for top in range(0, height, step))

    def largest(self, regions: NDArray[np.intp], areas: NDArray[np.int64]) -> NDArray[np.intp]:
        """Return the number of the largest piece of each region, the first of equal ones."""
        found = np.zeros(len(self.numbers), np.intp)
        order = np.lexsort((-np.arange(len(areas)), areas))
        found[regions[order]] = order + 1
        return found


def side_by_side(labels: LabelMap, margin: int) -> Iterator[SideBySide]:
    """Yield all regions of a label image, with a margin of a pixel or more; few at once."""
    found = [
        (number, window[0].start, window[0].stop, window[1].start, window[1].stop)
        for number, window in enumerate(ndimage.find_objects(labels), start=1)
        if window is not None
    ]
    regions = np.array(found, np.int64).reshape(-1, 5)
    regions = regions[np.argsort(regions[:, 2] - regions[:, 1], kind="stable")]  # with few gaps
    boxes = regions[:, 1:] + margin * np.array([-1, 1, -1, 1])
    heights, ends = boxes[:, 1] - boxes[:, 0], np.cumsum(boxes[:, 3] - boxes[:, 2])
    first = 0
    while first < len(regions):
        before = ends[first - 1] if first else 0
        n = np.count_nonzero((ends - before)[first:] * heights[first:] <= _AT_ONCE)
        some = slice(first, first + max(1, int(n)))
        yield SideBySide(regions[some, 0].astype(np.int32), boxes[some], labels.shape)
        first = some.stop
