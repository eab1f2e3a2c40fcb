"""Sizes and shapes of particles."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import csgraph
from scipy.spatial.distance import pdist

from hypervlad.common.constraints import InstanceOf, check_value
from hypervlad.common.wording import counted
from hypervlad.images.annotations import words_of_annotations
from hypervlad.images.morphology import EIGHT, hull_areas, hull_of
from hypervlad.objects.particle import Outlines, Particle
from hypervlad.objects.windows import side_by_side

if TYPE_CHECKING:
    import pandas as pd

_LENGTHS = (
    *("equivalent_diameter", "feret_max", "feret_min", "length", "width"),
    *("end_to_end", "persistence_length"),
)
#: Columns of sizes and shapes.
MEASURES = (
    *("area_px2", "area_nm2"),
    *(f"{name}_{unit}" for name in _LENGTHS for unit in ("px", "nm")),
    *("aspect_ratio", "circularity", "solidity"),
)
_FIRST = (
    *("micrograph", "particle", "class", "left_out", "equivalent_diameter_{}", "area_{}2"),
    *("length_{}", "width_{}", "aspect_ratio", "touches_edge"),
)
_MIN_CHORDS = 9  # for a persistence length
_MAX_STRAIGHT = 8.0  # persistence length over length
_STRAIGHT = math.cos(0.3)  # of two headings of an end
_CHORD = 8  # steps along a path from pixel to pixel, which alone would make it too long

#: What `shape_measures` returns; all but the first are at most 1.
SHAPE_MEASURES = (
    "log_equivalent_diameter",  # of the disc of the same area, in pixels times the scale
    "axis_ratio",  # minor by major axis of the ellipse of the same second moments
    "circularity",  # as in `measure`
    "solidity",
    "extent",  # area by that of the upright box
    "eccentricity",  # of the ellipse
    "feret_ratio",  # smallest by largest caliper diameter
)


def measure(
    particles: Sequence[Particle] | Outlines, classes: Sequence[Any] | None = None
) -> pd.DataFrame:
    """Measure each particle on its own mask.

    Parameters
    ----------
    particles : sequence of n Particle, or Outlines
        Of any number of micrographs; or what was found in one, such as fibres or pores.
    classes : sequence of n labels, optional
        The class of each particle.

    Returns
    -------
    DataFrame with n rows
        Names end in the unit, ``_px`` or ``_nm`` for lengths, ``_px2`` or ``_nm2`` for areas; what
        is in nanometres is NaN where the pixel size is unknown. The columns:

        - ``micrograph``, ``particle`` (its label in the outlines), and ``class`` if it is given;
          then what most people need, the rest from ``area`` in the other unit on;
        - ``area``, without holes, and ``equivalent_diameter`` of the disc of that area;
        - ``feret_max`` and ``feret_min``, the largest and the smallest caliper diameter [1]_;
        - ``length``, along the particle: the longest path through its skeleton [2]_, and from both
          ends straight on to the outline, right to about two pixels for rods three times as long as
          wide or longer, and at least the equivalent diameter. Of a closed loop it is half the
          circumference, of crossed fibres in one outline the longest way; holes smaller than the
          largest disc in the particle are no loop;
        - ``width``, the mean along the particle: that of a rod with round ends and the same length
          and area, at most the length; of a particle with a hole, such as a ring or a hollow shell,
          that of its wall;
        - ``end_to_end``, the distance between the ends of the path that the length is measured on,
          at most the length;
        - ``persistence_length`` P, from the directions along that path: their mean squared
          difference over a distance s is s / P, as of a chain that lies in a plane. NaN if
          the particle is shorter than about 80 pixels, or so straight that P exceeds 8 lengths. One
          particle gives a rough value only: take the median of many that are alike, with infinity
          for straight ones;
        - ``aspect_ratio`` = length / width, 1 for a disc, however curved the particle is (the
          aspect ratio of [1]_ is ``feret_min / feret_max``);
        - ``circularity`` = 4 pi area / perimeter^2, with Crofton's perimeter in four directions,
          and ``solidity`` = area / area of the convex hull, both at most 1;
        - ``touches_edge``: whether the particle may go on beyond its field, and ``confidence``, if
          what found it gives one;
        - ``top``, ``left``, ``bottom``, ``right``, the box, and ``centroid_row`` and
          ``centroid_column``, in pixels of the micrograph;
        - ``field_height``, ``field_width`` in pixels, ``pixel_size_nm``;
        - of `Outlines`, ``annotations``, which were left out of the image, in words, and
          ``annotation_share``, the share of the image that they cover.

    Raises
    ------
    ValueError
        If the lengths differ, or what is given are no particles.

    References
    ----------
    .. [1] ISO 9276-6, "Representation of results of particle size analysis: descriptive and
       quantitative representation of particle shape and morphology", 2008.
    .. [2] T. Y. Zhang and C. Y. Suen, "A fast parallel algorithm for thinning digital patterns",
       Communications of the ACM 27, 1984.

    Examples
    --------
    >>> import numpy as np
    >>> from hypervlad.particles import cut_particles, measure
    >>> labels = np.zeros((60, 60), int)
    >>> labels[10:12, 5:45] = 1
    >>> table = measure(cut_particles(labels / 1.0, labels, pixel_size=2.0))
    >>> table[["area_px2", "length_nm", "feret_max_nm"]].round(1).values.tolist()
    [[80.0, 80.0, 80.0]]
    """
    import pandas as pd

    if isinstance(particles, Outlines):
        table = measure(particles.as_particles(), classes)
        table["annotations"] = words_of_annotations(particles.annotations)
        table["annotation_share"] = particles.annotation_share
        return table
    if isinstance(particles, list | tuple) and any(isinstance(p, Outlines) for p in particles):
        raise ValueError(
            f"particles: got the outlines of {counted(len(particles), 'image')}; measure those of "
            "each: [measure(outlines) for outlines in particles]"
        )
    check_value("particles", particles, [InstanceOf((Sequence, np.ndarray), "a list of particles")])
    if classes is not None and len(classes) != len(particles):
        of = counted(len(particles), "particle")
        raise ValueError(f"classes: got {counted(len(classes), 'value')} for {of}")
    for number, particle in enumerate(particles):
        check_value(f"particles[{number}]", particle, [InstanceOf(Particle, "a Particle")])
    found = np.array([(*_describe(p.mask), *_along(p.mask)) for p in particles]).reshape(-1, 11)
    area, row, column, feret_max, feret_min, circularity, solidity = found.T[:7]
    length, end_to_end, persistence, walls = found.T[7:]
    # A rod with round ends has the area l w - (1 - pi / 4) w^2; the shortest one is a disc.
    length = np.maximum(length, np.sqrt(4 * area / np.pi))
    root = np.sqrt(np.maximum(length**2 - (4 - np.pi) * area, 0))
    width = np.where(walls > 0, area / np.maximum(walls, 1), 2 * area / (length + root))
    lengths = {
        "equivalent_diameter": np.sqrt(4 * area / np.pi),
        "feret_max": feret_max,
        "feret_min": feret_min,
        "length": length,
        "width": np.minimum(width, length),
        "end_to_end": end_to_end,
        "persistence_length": persistence,
    }
    nm = np.array([p.pixel_size or math.nan for p in particles], np.float64)
    confidence = np.array([p.confidence for p in particles], np.float64)
    top, left, bottom, right = np.array([p.box for p in particles], np.int64).reshape(-1, 4).T
    height, width = np.array([p.field_shape for p in particles], np.int64).reshape(-1, 2).T
    columns: dict[str, Any] = {
        "micrograph": [p.micrograph for p in particles],
        "particle": np.array([p.label for p in particles], np.int64),
    }
    if classes is not None:
        columns["class"] = [str(label) for label in classes]
    columns |= {"area_px2": area, "area_nm2": area * nm**2}
    for name, values in lengths.items():
        columns |= {f"{name}_px": values, f"{name}_nm": values * nm}
    table = pd.DataFrame(
        columns
        | {"aspect_ratio": length / lengths["width"]}
        | {"circularity": circularity, "solidity": solidity}
        | {"touches_edge": np.array([p.touches_edge for p in particles], bool)}
        | ({"confidence": confidence} if np.isfinite(confidence).any() else {})
        | {"top": top, "left": left, "bottom": bottom, "right": right}
        | {"centroid_row": top + row, "centroid_column": left + column}
        | {"field_height": height, "field_width": width, "pixel_size_nm": nm}
    )
    return in_reading_order(table)


def in_reading_order(table: pd.DataFrame) -> pd.DataFrame:
    """Put the ten columns first that people read, in nanometres if any are known."""
    unit = "px" if len(table) and table["pixel_size_nm"].isna().all() else "nm"
    first = [name.format(unit) for name in _FIRST if name.format(unit) in table]
    return table[[*first, *(name for name in table if name not in first)]]


def check_table(table: Any, *columns: str) -> None:
    """Raise a ValueError unless this is a table with these columns."""
    import pandas as pd

    check_value("table", table, [InstanceOf(pd.DataFrame, "a table from measure")])
    if absent := [column for column in columns if column not in table]:
        raise ValueError(f"the table lacks {', '.join(absent)}; give one from measure")


def pixel_size_power(measure: str) -> int:
    """Return with which power a measure of the table depends on the pixel size; 0 in pixels."""
    return dimension_of(measure) if measure.endswith(("_nm", "_nm2")) else 0


def dimension_of(measure: str) -> int:
    """Return 1 for lengths, 2 for areas, 0 for measures without a unit."""
    return {"px": 1, "nm": 1, "px2": 2, "nm2": 2}.get(measure.rpartition("_")[2], 0)


def lacks_pixel_size(table: pd.DataFrame, column: str) -> NDArray[np.bool_]:
    """Return of which particles a column is unknown, although it is known in pixels."""
    in_px = table.get(re.sub(r"_nm(2?)$", r"_px\1", column))
    is_known = True if in_px is None else in_px.notna()
    return np.asarray(table[column].isna() & is_known & column.endswith(("_nm", "_nm2")))


def shape_measures(mask: NDArray[np.bool_], scale: float = 1.0) -> tuple[float, ...]:
    """Describe the shape of a mask that has a pixel by `SHAPE_MEASURES`, without its skeleton."""
    area, _, _, largest, smallest, circularity, solidity = _describe(mask)
    places = np.nonzero(mask)
    squares = np.eye(2) / 12  # the second moments of a pixel
    minor, major = np.linalg.eigvalsh(np.cov(np.stack(places), bias=True) + squares)
    return (
        math.log(math.sqrt(4 * area / math.pi) * scale),
        math.sqrt(minor / major),
        circularity,
        solidity,
        area / float(np.ptp(places[0]) + 1) / float(np.ptp(places[1]) + 1),
        math.sqrt(1 - minor / major),
        smallest / largest,
    )


def feret_diameters(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the longest and the shortest diameter of a mask that has a pixel, in pixels."""
    longest, shortest = _describe(mask)[3:5]
    return longest, shortest


def solidity(mask: NDArray[np.bool_]) -> float:
    """Return the area of a mask that has a pixel over that of its convex hull."""
    return min(np.count_nonzero(mask) / float(hull_of(mask).volume), 1.0)


def solidities(labels: NDArray[np.int32]) -> NDArray[np.float64]:
    """Return the solidity of each of n labels, which have no gaps."""
    found = np.full(int(labels.max(initial=0)), np.nan)
    for own in side_by_side(labels, 1):  # at once, large images would take a gigabyte
        inside = own.own(labels)
        hulls = hull_areas(inside * np.int32(own.at + 1))
        found[own.numbers - 1] = np.minimum(own.counts(inside) / hulls, 1.0)
    return found


def _describe(mask: NDArray[np.bool_]) -> tuple[float, ...]:
    """Return area, centroid (row and column), Feret diameters, circularity and solidity."""
    from skimage.measure import perimeter_crofton  # not above: importing it takes long

    hull = hull_of(mask)
    corners = hull.points[hull.vertices]
    # The smallest distance is perpendicular to a side of the hull.
    across = corners @ hull.equations[:, :2].T
    smallest = (across.max(axis=0) - across.min(axis=0)).min()
    places = np.nonzero(mask)
    area = len(places[0])
    return (
        area,
        *(float(each.mean()) for each in places),
        float(pdist(corners).max()),
        float(smallest),
        # Perimeters and hulls of few pixels are estimated too small.
        min(float(4 * math.pi * area / perimeter_crofton(mask) ** 2), 1.0),
        min(area / float(hull.volume), 1.0),
    )


def _along(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """Return length, end-to-end distance, persistence length, and how long walls of holes are."""
    from skimage.graph import pixel_graph
    from skimage.morphology import skeletonize

    from hypervlad.objects.splitting import without_holes  # which imports much of skimage

    mask = np.pad(mask, 1)
    # The skeleton would run around small holes. Larger ones than a disc in it are of rings, loops.
    deepest = ndimage.distance_transform_edt(mask).max()
    mask = without_holes(mask, np.pi * deepest**2)
    # By default, nothing is left of diagonal lines that are two pixels wide.
    skeleton = skeletonize(mask, method="lee" if deepest < 2 else None)
    places = np.argwhere(skeleton)
    depths = ndimage.distance_transform_edt(mask)[skeleton] - 0.5
    graph, _ = pixel_graph(skeleton, connectivity=2)  # of distances between pixels that touch
    n_pieces, piece = csgraph.connected_components(graph, directed=False)
    # Of a piece without loops, the pixel farthest from any pixel is an end of the longest path.
    end = np.unique(piece, return_index=True)[1]
    for _ in range(2):
        start = end
        distances, before, _ = csgraph.dijkstra(
            graph, directed=False, indices=start, return_predecessors=True, min_only=True
        )
        by_piece = np.lexsort((distances, piece))
        end = by_piece[np.searchsorted(piece[by_piece], np.arange(n_pieces), side="right") - 1]
    best, reach = _Path(places[:1], 0.0, 0.0), 1.0
    for first, last in zip(start, end, strict=True):
        path = [last]
        while path[-1] != first:
            path.append(before[path[-1]])
        is_open = all(graph[[end]].nnz == 1 for end in (first, last))
        found = _Path.of(mask, places[path], depths[path], is_open)
        if found.length > best.length:
            best, reach = found, max(float(distances[last]), 1.0)
    walls = 0.0
    if ndimage.label(~mask)[1] > 1:
        # From pixel to pixel, the skeleton is too long, as is its longest path.
        steps = np.diff(best.chords, axis=0)
        walls = float(np.hypot(*steps.T).sum() * graph.sum() / 2 / reach)
    end_to_end = min(best.end_to_end, best.length)
    return best.length, end_to_end, _persistence_length(best.chords), walls


class _Path(NamedTuple):
    """A path through a particle, from its one end to the other."""

    chords: NDArray[Any]  # (n, 2), of the skeleton's pixels
    length: float
    end_to_end: float

    @classmethod
    def of(
        cls, mask: NDArray[np.bool_], points: NDArray[Any], depths: NDArray[Any], is_open: bool
    ) -> _Path:
        """Extend a path through the skeleton to the outline, unless it is of a loop."""
        middle = math.ceil(np.median(depths))
        ends = [
            _End.of(mask, points[::side], depths[::side], middle) if is_open else None
            for side in (1, -1)
        ]
        cut, tips = [0, 0], points[[0, -1]].astype(float)
        beyond = [float(depths[0]), float(depths[-1])]
        if sum(each.cut for each in ends if each) + middle < len(points):
            for i, each in enumerate(ends):
                if each:
                    cut[i], beyond[i], tips[i] = each
        kept = points[cut[0] : len(points) - cut[1]]
        steps = np.diff(_chords(kept), axis=0)
        apart = tips[1] - tips[0]
        outside = sum(reach for reach, each in zip(beyond, cut, strict=True) if not each)
        return cls(
            chords=_chords(points),
            length=float(np.hypot(*steps.T).sum()) + sum(beyond),
            end_to_end=float(np.hypot(*apart)) + outside,
        )


class _End(NamedTuple):
    """The end of a particle, from where it is as wide as within.

    Skeletons fork within flat ends and stop early within round ones: their last pixels say little.
    """

    cut: int  # pixels of the path
    reach: float  # of the particle from there
    tip: NDArray[Any]

    @classmethod
    def of(
        cls, mask: NDArray[np.bool_], points: NDArray[Any], depths: NDArray[Any], radius: int
    ) -> _End | None:
        """Follow a path (inwards) straight outwards; None if it is too short, or bent there."""
        radius = math.ceil(depths[: max(radius, math.ceil(depths[0])) + 1].max() + 0.5)
        inwards = points[radius : 4 * radius + 1]
        if len(inwards) < radius + 1:
            return None
        start, headings = inwards[0], [inwards[0] - inwards[i] for i in (radius, -1)]
        (heading, farther) = (each / np.hypot(*each) for each in headings)
        if heading @ farther < _STRAIGHT:
            return None
        low = np.maximum(start - 4 * radius, 0)
        part = mask[tuple(slice(first, first + 8 * radius + 1) for first in low)]
        offset = np.moveaxis(np.indices(part.shape), 0, -1) + low - start
        along, across = offset @ heading, offset @ np.array([-heading[1], heading[0]])
        pieces, _ = ndimage.label(part & (np.abs(across) <= max(radius / 3, 1)), EIGHT)
        along = along[pieces == pieces[tuple(start - low)]]
        # As many pixels as there are per length in the first part.
        whole, first = (
            np.mean([(along > 0).sum(), (along >= 0).sum()])
            - np.mean([(along > beyond).sum(), (along >= beyond).sum()])
            for beyond in (np.inf, radius)
        )
        reach = float(whole / max(first, 1) * radius)
        return cls(radius, reach, start + reach * heading)


def _chords(points: NDArray[Any]) -> NDArray[Any]:
    return points[[*range(0, len(points) - 1, _CHORD), -1]]


def _persistence_length(points: NDArray[Any]) -> float:
    """Return the distance over which the squared change of direction grows by 1, NaN if unknown."""
    steps = np.diff(points, axis=0)[:-1]  # the last one may be short
    if len(steps) < _MIN_CHORDS:
        return math.nan
    directions = np.unwrap(np.arctan2(*steps.T))
    lags = np.arange(1, len(steps) // 2 + 1)
    squares = [np.mean((directions[lag:] - directions[:-lag]) ** 2) for lag in lags]
    # The pixels add the same to all of them.
    growth = np.polyfit(lags * np.hypot(*steps.T).mean(), squares, 1)[0]
    length = np.hypot(*steps.T).sum()
    return float(1 / growth) if growth * length * _MAX_STRAIGHT > 1 else math.nan
