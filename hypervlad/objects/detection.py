"""What finding misses, invents and outlines too large or small, and counts corrected by it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hypervlad.common.stored import Array, StoredPart, Value
from hypervlad.common.wording import counted, verb
from hypervlad.statistics.groups import left_out_interval
from hypervlad.statistics.outlines import matched_labels

if TYPE_CHECKING:
    import pandas as pd

# Of titania, errors hardly differ from 4 to 24 classes; those of D90 are largest below 12.
_N_CLASSES, _MIN_IN_CLASS = 12, 10
#: Area in pixels from which on particles are looked for, unless it is given.
MIN_AREA = 20
# What one particle leaves to chance, as `FindingRange.logs` of it: those of n are independent. By
# `python -m benchmarks.particles.train_doubt`.
_OF_ONE = 0.09, 0.78, 0.89, 0.62
_MAX_FACTOR = 10.0  # between how few and how many there may be; more is of no use
_MAX_WEIGHT = 10.0  # of sizes of which hardly any is found, so that no count depends on one outline


class FindingRange(NamedTuple):
    """Between which factors true numbers and sizes of particles are those found, within 95 %.

    It is of many particles in images like one, by what is doubtful of it; fewer leave more to
    chance. Sizes are D10, D50 and D90, by number and by area.
    """

    number_low: float = 1.0
    number_high: float = 1.0
    size_low: float = 1.0
    size_high: float = 1.0

    @property
    def tells_number(self) -> bool:
        """Whether the range of the number is narrow enough to be given: within a factor of ten."""
        return self.number_high < _MAX_FACTOR * self.number_low

    @staticmethod
    def logs(
        ranges: Sequence[FindingRange], numbers: ArrayLike, n_in_all: float
    ) -> NDArray[np.float64]:
        """Return by how much logarithms of numbers and sizes may be below and above, (2, 2).

        Of particles in all, of which those `numbers` are of images with these `ranges`, which hold
        for all images alike, and the others sure.
        """
        n = np.asarray(numbers, np.float64)
        logs = n @ np.abs(np.log(ranges)) + np.array(_OF_ONE) * n.sum() ** 0.5
        return np.asarray(logs / n_in_all).reshape(2, 2)


@dataclass(frozen=True, eq=False)
class Detection(StoredPart):
    """Found outlines beside the true ones, in fields from which nothing was learnt.

    A found particle counts for (true + 1) / (found + 1), the numbers of those of about its size in
    these fields, but for 10 at most. This corrects for what is missed, false, joined, split, or
    outlined too large or small, whichever it is, if the fields to measure are like these [1]_.

    Attributes
    ----------
    pairs : ndarray of shape (n, 3)
        Number of the field, from 0, and the equivalent diameters of a true particle and of the one
        that was found for it (see :func:`hypervlad.evaluation.matched_labels`); 0 if there is none.
    unit : {"nm", "px"}
        Of the diameters.
    n_fields : int
        With those in which nothing is, nor was found.

    References
    ----------
    .. [1] D. G. Horvitz and D. J. Thompson, Journal of the American Statistical Association 47,
       1952; the ratio of true to found is that of double sampling, W. G. Cochran, "Sampling
       Techniques", 1977.
    """

    pairs: Annotated[NDArray[np.float64], Array("float64", 2, at_least=0.0)]
    unit: Annotated[str, Value(str)]
    n_fields: Annotated[int, Value(int)]

    @classmethod
    def of(
        cls, fields: Iterable[tuple[ArrayLike, ArrayLike, float]], unit: str, min_area: int
    ) -> Detection:
        """Compare fields: label images of true and found particles, and the unit per pixel.

        True ones of less than `min_area` pixels, often strays of drawing, are none.
        """
        pairs, n_fields = [np.zeros((0, 3))], 0
        for true, found, size in fields:
            own = _diameters(np.asarray(true), np.asarray(found), min_area) * size
            pairs.append(np.column_stack([np.full(len(own), float(n_fields)), own]))
            n_fields += 1
        return cls(np.concatenate(pairs), unit, n_fields)

    def joined(self, other: Detection) -> Detection:
        """Return both together; they have one unit."""
        moved = other.pairs + np.array([self.n_fields, 0, 0])
        n_fields = self.n_fields + other.n_fields
        return Detection(np.concatenate([self.pairs, moved]), self.unit, n_fields)

    def without_each(self) -> list[Detection]:
        """Return what is known without each of the fields."""
        number = self.pairs[:, 0]
        return [
            Detection(self.pairs[number != k], self.unit, self.n_fields - 1)
            for k in range(self.n_fields)
        ]

    @cached_property
    def n_matched(self) -> int:
        return int((self.pairs[:, 1:] > 0).all(axis=1).sum())

    @property
    def numbers(self) -> str:
        """How many of the true particles were found, and how many found ones are false, in words.

        >>> Detection(np.array([[0, 9, 9], [0, 7, 0], [1, 0, 8]]), "px", 2).numbers
        '1 of 2 particles was found, and 1 of 2 outlines is false'
        """
        return numbers_text(self.n_matched, *map(int, (self.pairs[:, 1:] > 0).sum(axis=0)))

    @cached_property
    def _classes(self) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        """The limits between classes of size, as many true particles in each, and their number."""
        true = self.pairs[:, 1][self.pairs[:, 1] > 0]
        n = int(np.clip(len(true) // _MIN_IN_CLASS, 1, _N_CLASSES))
        limits = np.quantile(true, np.arange(1, n) / n) if n > 1 else np.zeros(0)
        return limits, np.bincount(np.searchsorted(limits, true), minlength=n)

    def weights(self, diameters: ArrayLike) -> NDArray[np.float64]:
        """Return for how many particles a found one of each diameter counts."""
        limits, n_true = self._classes
        found = self.pairs[:, 2][self.pairs[:, 2] > 0]
        n_found = np.bincount(np.searchsorted(limits, found), minlength=len(n_true))
        each = np.minimum((n_true + 1) / (n_found + 1), _MAX_WEIGHT)
        return np.asarray(each[np.searchsorted(limits, np.asarray(diameters, np.float64))])

    def by_size(self) -> pd.DataFrame:
        """Return, for classes of size, how much is found.

        The columns are the median ``diameter``, the numbers ``true`` and ``found`` of true
        particles, and the ``weight`` of found ones of this size.
        """
        import pandas as pd

        limits, n_true = self._classes
        is_true = self.pairs[:, 1] > 0
        true, is_found = self.pairs[is_true, 1], self.pairs[is_true, 2] > 0
        of_class = np.searchsorted(limits, true)
        medians = np.array([np.median(true[of_class == k]) for k, n in enumerate(n_true) if n])
        columns = {
            "diameter": medians,
            "true": n_true[n_true > 0],
            "found": np.bincount(of_class, is_found, len(n_true))[n_true > 0].astype(int),
            "weight": self.weights(medians),
        }
        return pd.DataFrame(columns)

    def mostly_missed_below(self) -> float | None:
        """Return the diameter at which half of the particles are found; None if more always are."""
        diameter, true, found, _ = self.by_size().to_numpy(np.float64).T
        found = found / true
        if not len(found) or found[0] >= 0.5:
            return None
        if not (found >= 0.5).any():
            return float(diameter[-1])
        k = int((found >= 0.5).argmax())
        return float(np.interp(0.5, found[k - 1 : k + 1], diameter[k - 1 : k + 1]))

    @cached_property
    def maybe_missed_below(self) -> float:
        """The upper end of the 95 % interval of `mostly_missed_below`; 0 if none is missed.

        It is from how much the fields differ, of at least two, and at most the largest size.
        """
        best, *without = (each.mostly_missed_below() for each in (self, *self.without_each()))
        if best is None and not any(without):
            return 0.0
        sizes = self.by_size()["diameter"]
        smallest, largest = float(sizes.iloc[0]), float(sizes.iloc[-1])
        if len(without) < 2:
            return best or smallest
        logs = np.log([each or smallest for each in (best, *without)])
        _, high, _ = left_out_interval(logs[0], logs[1:])
        return float(np.exp(min(high, np.log(largest))))


def numbers_text(n_matched: int, n_true: int, n_found: int) -> str:
    """Return `Detection.numbers`."""
    n_false = n_found - n_matched
    return (
        f"{n_matched} of {counted(n_true, 'particle')} {verb(n_matched, 'was', 'were')} found, and "
        f"{n_false} of {counted(n_found, 'outline')} {verb(n_false, 'is', 'are')} false"
    )


def _diameters(
    true: NDArray[np.integer], found: NDArray[np.integer], min_area: int
) -> NDArray[np.float64]:
    """Return the diameters (n, 2) of matched particles, and of those without a match beside 0."""
    true = true * (np.bincount(true.ravel().astype(np.int64)) >= min_area)[true]
    areas = [np.bincount(each.ravel().astype(np.int64)).astype(float) for each in (true, found)]
    matched, _ = matched_labels(true, found)
    rows = [np.column_stack([own[matched[:, k]] for k, own in enumerate(areas)])]
    for k, own in enumerate(areas):
        is_alone = own > 0
        is_alone[0] = False
        is_alone[matched[:, k]] = False
        alone = np.zeros((np.count_nonzero(is_alone), 2))
        alone[:, k] = own[is_alone]
        rows.append(alone)
    return np.asarray(2 * np.sqrt(np.concatenate(rows) / np.pi))
