"""Fields in which particles were looked for, and for how many each found one counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from hypervlad.common.constraints import Integer, ListOf, Number, OneOf, check_value
from hypervlad.common.wording import counted, name_some, verb
from hypervlad.common.workbooks import name_and_unit
from hypervlad.objects.detection import Detection, FindingRange
from hypervlad.objects.measures import check_table, dimension_of, pixel_size_power
from hypervlad.statistics.groups import Sample

if TYPE_CHECKING:
    import pandas as pd

FloatArray = NDArray[np.float64]
Edges = Literal["weight", "leave_out"]

_PLACE = ("top", "bottom", "left", "right", "field_height", "field_width")


@dataclass(frozen=True)
class Field:
    """A micrograph in which particles were looked for, whether or not there are any.

    Attributes
    ----------
    micrograph : str
        As in the table of particles.
    shape : (int, int)
        Height and width in pixels.
    pixel_size : float or None
        Nanometres per pixel.
    group, sample : str or None
        What fields are compared by, and what they are of: intervals are then from how much samples
        differ, or the fields of one sample.
    annotated : int
        Number of pixels, of an information bar or letters, in which nothing was looked for.
    by_person : bool
        Whether a person drew or corrected all outlines, or found them right; they are then not
        corrected for what finding misses.
    scale_bar_error : float
        By which share the pixel size may be wrong, within 95 %, if it is from a scale bar.
    finding_range : FindingRange or None
        Between which factors true numbers and sizes are those found, as far as the image tells.
    """

    micrograph: str
    shape: tuple[int, int]
    pixel_size: float | None = None
    group: str | None = field(default=None, repr=False)
    sample: str | None = field(default=None, repr=False)
    annotated: int = field(default=0, repr=False)
    by_person: bool = field(default=False, repr=False)
    scale_bar_error: float = field(default=0.0, repr=False)
    finding_range: FindingRange | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        sides = ListOf(Integer(), "height and width in pixels, without colours", 2, 2)
        check_value(f"shape of {self.micrograph}", self.shape, [sides])
        nm = Number(above=0, meaning="nanometres per pixel")
        check_value(f"pixel_size of {self.micrograph}", self.pixel_size, [nm, None])
        factors = tuple(self.finding_range or FindingRange())
        lows, highs = factors[::2], factors[1::2]
        if not (all(0 < low <= 1 for low in lows) and all(1 <= high < math.inf for high in highs)):
            raise ValueError(
                f"finding_range of {self.micrograph}: expected lows above 0 and at most 1, and "
                f"highs of at least 1, got {factors}"
            )


def edge_weights(table: pd.DataFrame, edges: Edges = "weight") -> FloatArray:
    """Return for how many particles each one counts.

    A particle that touches an edge of its field counts for none, as its size is unknown. As large
    particles touch edges more often, the others count for

    - ``edges="weight"``: 1 / (the share of all places at which a particle of this box touches no
      edge) [1]_, which makes numbers per area and sizes unbiased;
    - ``edges="leave_out"``: 1. Numbers per area are too small, and large particles too rare.

    At margins and information bars, too, particles touch an edge and count for none; the others
    are weighed as if the field were the whole image, and those that letters cover are missing. So
    numbers per area are a little too small, by 5 % for particles of 30 pixels below a bar of 60 of
    200 rows.

    Parameters
    ----------
    table : DataFrame
        From :func:`measure`.
    edges : {"weight", "leave_out"}

    Returns
    -------
    ndarray of shape (n,)

    References
    ----------
    .. [1] R. E. Miles, in "Stochastic Geometry", 1974; C. Lantuejoul, in "Geometrical Probability
       and Biological Structures", 1978; ISO 13322-1, 2014.

    Examples
    --------
    >>> import pandas as pd
    >>> from hypervlad.particles import edge_weights
    >>> box = {"top": [5, 0], "bottom": [15, 10], "left": [5, 5], "right": [44, 25]}
    >>> size = {"field_height": 21, "field_width": 80, "touches_edge": [False, True]}
    >>> edge_weights(pd.DataFrame(box | size))
    array([4.2, 0. ])
    """
    check_value("edges", edges, [OneOf("weight", "leave_out")])
    check_table(table, "touches_edge")
    touches = table["touches_edge"].to_numpy()
    if touches.dtype != bool and len(touches):  # a text "False" would be true
        raise ValueError(f"touches_edge must be True or False, not of type {touches.dtype}")
    inside = ~touches.astype(bool)
    weights: FloatArray = inside.astype(np.float64)
    if edges == "leave_out":
        return weights
    check_table(table, *_PLACE)
    for first, last, side in (("top", "bottom", "height"), ("left", "right", "width")):
        extent = table[f"field_{side}"].to_numpy(np.float64)[inside]
        # Of all places in a row of pixels, one per pixel, a box of width w touches no edge of the
        # field at W - w - 1.
        box = (table[last] - table[first]).to_numpy(np.float64)[inside]
        if not (extent - box > 1).all():
            raise ValueError(
                f"a particle is as large as its field from {first} to {last}, but touches_edge is "
                "False: correct touches_edge, the box, or the size of the field"
            )
        weights[inside] *= extent / (extent - box - 1)
    return weights


@dataclass(frozen=True, eq=False)
class WeightedParticles:
    """Particles in fields, and for how many each of them counts, corrected by `detection`.

    `weights` are (n,), and `others`, (m, n), those without each of the fields of `detection`. All
    pixel sizes may be wrong together by a share `given_error`, besides those of scale bars.
    """

    table: pd.DataFrame
    fields: Sequence[Field]
    detection: Detection | None
    given_error: float
    weights: FloatArray
    others: FloatArray

    @classmethod
    def of(
        cls,
        table: pd.DataFrame,
        fields: Sequence[Field],
        edges: Edges = "weight",
        detection: Detection | None = None,
        error: float = 0.0,
    ) -> WeightedParticles:
        """Weigh particles; a ValueError if their fields or sizes are not known."""
        check_value("pixel_size_error", error, [Number(at_least=0, at_most=1)])
        weights = edge_weights(table, edges)
        if detection is None:
            return cls(table, fields, None, error, weights, np.zeros((0, len(weights))))
        by_person = np.array([each.by_person for each in fields], bool)
        by_person = by_person[field_numbers(table, fields)]
        check_table(table, column := f"equivalent_diameter_{detection.unit}")
        if table[column].isna().any():
            raise ValueError(
                f"detection is in {detection.unit}, but {column} of some particles is unknown: "
                "give the pixel size of their images"
            )
        known = detection, *detection.without_each()
        found = np.array([each.weights(table[column]) for each in known])
        found = np.where(by_person, 1.0, found) * weights
        return cls(table, fields, detection, error, found[0], found[1:])

    def where(
        self, is_own: NDArray[np.bool_], fields: Sequence[Field] | None = None
    ) -> WeightedParticles:
        """Return some of the particles, in all fields or those that are given."""
        known = self.detection, self.given_error, self.weights[is_own], self.others[:, is_own]
        fields = self.fields if fields is None else fields
        return WeightedParticles(self.table[is_own], fields, *known)

    @cached_property
    def field_of(self) -> NDArray[np.intp]:
        """The number of the field of each particle."""
        return field_numbers(self.table, self.fields)

    @property
    def bar_error(self) -> float:
        """By which share all pixel sizes may be wrong together, as one scale bar is in all."""
        return max((each.scale_bar_error for each in self.fields), default=0.0)

    @property
    def error(self) -> float:
        return math.hypot(self.given_error, self.bar_error)

    @cached_property
    def finding_logs(self) -> FloatArray | None:
        """By how much logarithms of true numbers and sizes may be below and above, (2, 2).

        Within 95 %, in all fields alike, as these mostly have one look. None if nobody knows, also
        where nothing was found; 0 if numbers are corrected, or a person drew or corrected all
        outlines.
        """
        if self.detection is not None or all(each.by_person for each in self.fields):
            return np.zeros((2, 2))
        n = np.bincount(self.field_of, self.weights, len(self.fields))
        ranges, numbers = list[FindingRange](), list[float]()
        for each, number in zip(self.fields, n.tolist(), strict=True):
            if number and not each.by_person:
                if each.finding_range is None:
                    return None
                ranges.append(each.finding_range)
                numbers.append(number)
        return FindingRange.logs(ranges, numbers, n.sum()) if ranges else None

    def finding_reach(self, measure: str = "") -> FloatArray:
        """Return `finding_logs` of numbers, or of a measure, (2,); 0 if nobody knows."""
        number, size = np.zeros((2, 2)) if self.finding_logs is None else self.finding_logs
        return np.asarray(size * dimension_of(measure) if measure else number)

    def finding_text(self, measure: str) -> str:
        """Return in words what `finding_logs` says of numbers, and of a measure with a unit."""
        if self.finding_logs is None or not self.finding_logs.any():
            return ""
        (fewer, more), (smaller, larger) = np.exp(self.finding_logs * [-1, 1])
        sizes = f", and sizes {smaller:.2f} to {larger:.2f} times" * bool(dimension_of(measure))
        return (
            "by what is doubtful of the images, true numbers of all particles are "
            f"{fewer:.2f} to {more:.2f} times those found{sizes}"
        )

    def error_of(self, measure: str) -> FloatArray:
        """Return by which shares, (2,), all values of a measure may be below and above together."""
        scale = np.log1p(self.error * pixel_size_power(measure))
        return np.asarray(np.expm1(np.hypot(scale, self.finding_reach(measure))))

    @property
    def unit(self) -> str:
        """What differs independently: "sample", or "field" if all fields are of one sample."""
        return "sample" if len({each.sample for each in self.fields}) > 1 else "field"

    def missed_below(self, measure: str) -> float:
        """Return the size below which most may be missed; 0 if it is not known in this unit."""
        (name, unit), known = name_and_unit(measure), self.detection
        is_size = name.startswith(("equivalent", "feret"))  # not a width, or an area
        return known.maybe_missed_below if is_size and known and known.unit == unit else 0.0

    def is_measured(self, measure: str) -> NDArray[np.bool_]:
        """Return which particles touch no edge and have this measure."""
        values = self.table[measure].to_numpy(np.float64)
        return np.asarray((self.weights > 0) & np.isfinite(values))

    def sample(self, measure: str, by: str = "number") -> Sample:
        """Return the values of those that are measured, weighted by number or area."""
        values, area = self.table[measure].to_numpy(np.float64), np.ones(1)
        if by == "area":
            is_scaled = "area_nm2" in self.table and self.table["area_nm2"].notna().all()
            check_table(self.table, column := "area_nm2" if is_scaled else "area_px2")
            area = self.table[column].to_numpy(np.float64)
        units = independent(self.fields)[self.field_of]
        found = Sample(values, self.weights * area, units, self.others * area)
        return found.where(self.is_measured(measure))


def field_numbers(table: pd.DataFrame, fields: Sequence[Field]) -> NDArray[np.intp]:
    """Return the number of each particle's field, after checks of both."""
    import pandas as pd

    check_table(table, "micrograph")
    names = pd.Index([str(field.micrograph) for field in fields])
    if names.empty or names.has_duplicates:
        twice = names[names.duplicated()].unique().tolist()
        given = f"twice: {name_some(twice)}" if twice else "none"
        raise ValueError(f"give each field that was searched once, got {given}")
    field_of = names.get_indexer(table["micrograph"].astype(str))
    if absent := table["micrograph"][field_of < 0].astype(str).unique().tolist():
        raise ValueError(
            f"{counted(len(absent), 'micrograph')} of the table {verb(len(absent), 'is', 'are')} "
            f"not among the fields: {name_some(absent)}; give a Field for each"
        )
    unknown = [field.micrograph for field in fields if not field.pixel_size]
    if 0 < len(unknown) < len(fields):
        raise ValueError(
            f"{len(unknown)} of {len(fields)} fields have no pixel size: {name_some(unknown)}; "
            "give it, leave these out, or give none for any field"
        )
    own = np.array([(*field.shape, field.pixel_size or math.nan) for field in fields])[field_of]
    columns = ["field_height", "field_width", "pixel_size_nm"]  # not of tables of other programs
    given = table.reindex(columns=columns).to_numpy(np.float64)
    is_same = np.isclose(given, own, rtol=1e-6) | np.isnan(given)
    if wrong := table["micrograph"][~is_same.all(axis=1)].unique().tolist():
        raise ValueError(
            f"height, width or pixel size of {name_some(wrong)} differ between the table and the "
            "Field; both are those of the micrograph"
        )
    return np.asarray(field_of)


def independent(fields: Sequence[Field]) -> NDArray[np.intp]:
    """Return the number of each field's sample or, if all are of one, of the field itself."""
    samples = [each.sample for each in fields]
    if len(set(samples)) < 2:
        return np.arange(len(fields))
    known = [str(number) if name is None else f" {name}" for number, name in enumerate(samples)]
    return np.unique(known, return_inverse=True)[1]
