"""Sizes and shapes of particles."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage, sparse
from scipy.sparse import csgraph
from scipy.spatial import ConvexHull

from hypervlad.common.wording import counted
from hypervlad.particles.particle import Particle

if TYPE_CHECKING:
    import pandas as pd

FloatArray = NDArray[np.float64]

_STRIP_PIXELS = 2**22  # measured at once
_CHORD = 8  # steps along a path from pixel to pixel, which alone would make it too long
_LENGTHS = ("equivalent_diameter", "feret_max", "feret_min", "length", "width")


#: What `shape_measures` returns; all but the first are at most 1.
SHAPE_MEASURES = (
    "log_equivalent_diameter",
    "axis_ratio",
    "circularity",
    "solidity",
    "extent",
    "eccentricity",
    "feret_ratio",
)


def measure(
    particles: Sequence[Particle],
    classes: Sequence[Any] | None = None,
    confidence: ArrayLike | None = None,
) -> pd.DataFrame:
    """Measure each particle on its own mask.

    Parameters
    ----------
    particles : sequence of n Particle
        Of any number of micrographs.
    classes : sequence of n labels, optional
        The class of each particle.
    confidence : array-like of shape (n,), optional
        The probability of that class.

    Returns
    -------
    DataFrame with n rows
        Names end in the unit, ``_px`` or ``_nm`` for lengths, ``_px2`` or ``_nm2`` for areas; what
        is in nanometres is NaN where the pixel size is unknown. The columns:

        - ``micrograph``, ``particle`` (its label in the outlines), and ``class`` and
          ``confidence`` if they are given;
        - ``area``, without holes, and ``equivalent_diameter`` of the disc of that area;
        - ``feret_max`` and ``feret_min``, the largest and the smallest caliper diameter [1]_;
        - ``length``, along the particle: the longest path through its skeleton [2]_, and from both
          of its ends the distance to the outline, right to about 3 pixels. Of a closed loop it is
          half the circumference, of crossed fibres in one outline the longest way;
        - ``width``, the mean along the particle: that of a rod with round ends and the same length
          and area, at most the length;
        - ``aspect_ratio`` = length / width, 1 for a disc, however curved the particle is (the
          aspect ratio of [1]_ is ``feret_min / feret_max``);
        - ``circularity`` = 4 pi area / perimeter^2, with Crofton's perimeter in four directions,
          and ``solidity`` = area / area of the convex hull, both at most 1;
        - ``touches_edge``: whether the particle may go on beyond its field;
        - ``top``, ``left``, ``bottom``, ``right``, the box, and ``centroid_row`` and
          ``centroid_column``, in pixels of the micrograph;
        - ``field_height``, ``field_width`` in pixels, ``pixel_size_nm``.

    Raises
    ------
    ValueError
        If a mask is empty, or the lengths differ.

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

    for name, values in (("classes", classes), ("confidence", confidence)):
        n_values = len(particles) if values is None else len(np.asarray(values))
        if n_values != len(particles):
            of = counted(len(particles), "particle")
            raise ValueError(f"{name}: got {counted(n_values, 'value')} for {of}")
    for particle in particles:
        if not particle.mask.any():
            raise ValueError(f"{particle.name}: its mask has no pixel; leave the particle out")
    columns: dict[str, Any] = {
        "micrograph": [particle.micrograph for particle in particles],
        "particle": np.array([particle.label for particle in particles], np.int64),
    }
    if classes is not None:
        columns["class"] = [str(label) for label in classes]
    if confidence is not None:
        columns["confidence"] = np.asarray(confidence, np.float64)
    nm = np.array([p.pixel_size or math.nan for p in particles], np.float64)
    found = _measured([particle.mask for particle in particles])
    columns |= {"area_px2": found["area"], "area_nm2": found["area"] * nm**2}
    for name in _LENGTHS:
        columns |= {f"{name}_px": found[name], f"{name}_nm": found[name] * nm}
    columns["aspect_ratio"] = found["length"] / found["width"]
    columns |= {name: found[name] for name in ("circularity", "solidity")}
    columns["touches_edge"] = np.array([p.touches_edge for p in particles], bool)
    boxes = np.array([p.box for p in particles], np.int64).reshape(-1, 4)
    columns |= dict(zip(("top", "left", "bottom", "right"), boxes.T, strict=True))
    columns["centroid_row"] = boxes[:, 0] + found["row"]
    columns["centroid_column"] = boxes[:, 1] + found["column"]
    fields = np.array([p.field_shape for p in particles], np.int64).reshape(-1, 2)
    columns |= {"field_height": fields[:, 0], "field_width": fields[:, 1], "pixel_size_nm": nm}
    return pd.DataFrame(columns)


def shape_measures(mask: NDArray[np.bool_], scale: float = 1.0) -> tuple[float, ...]:
    """Describe the shape of a mask that has a pixel by `SHAPE_MEASURES`, without its skeleton.

    The logarithm of the diameter of the disc of the same area, in pixels times the scale; minor by
    major axis of the ellipse of the same second moments;
    circularity and solidity as in :func:`measure`; area by that of the upright box; the ellipse's
    eccentricity; smallest by largest caliper diameter.

    Examples
    --------
    >>> found = shape_measures(np.ones((2, 8), bool))
    >>> found[SHAPE_MEASURES.index("axis_ratio")]
    0.25
    """
    from skimage.measure import perimeter_crofton

    rows, columns = np.nonzero(mask)
    area = len(rows)
    squares = np.eye(2) / 12  # the second moments of a pixel
    minor, major = np.linalg.eigvalsh(np.cov(np.stack([rows, columns]), bias=True) + squares)
    largest, smallest, hull = _calipers(mask)
    perimeter = max(perimeter_crofton(mask), math.sqrt(4 * math.pi * area))  # of a disc, at least
    return (
        math.log(math.sqrt(4 * area / math.pi) * scale),
        math.sqrt(minor / major),
        4 * math.pi * area / perimeter**2,
        min(area / hull, 1.0),
        area / float(np.ptp(rows) + 1) / float(np.ptp(columns) + 1),
        math.sqrt(1 - minor / major),
        smallest / largest,
    )


def _measured(masks: Sequence[NDArray[np.bool_]]) -> dict[str, FloatArray]:
    """Return the measures in pixels; row and column of the centroid count from the box."""
    from skimage.measure import regionprops_table

    names = ("area", "perimeter", "row", "column", "length")
    found = {name: np.zeros(len(masks)) for name in names}
    for chosen in _batches([mask.shape for mask in masks]):
        strip, lefts = _strip([masks[i] for i in chosen])
        regions = regionprops_table(strip, properties=("area", "perimeter_crofton", "centroid"))
        found["area"][chosen] = regions["area"]
        found["perimeter"][chosen] = regions["perimeter_crofton"]
        found["row"][chosen] = regions["centroid-0"] - 1
        found["column"][chosen] = regions["centroid-1"] - lefts
        found["length"][chosen] = _lengths(strip, len(chosen))
    calipers = np.array([_calipers(mask) for mask in masks]).reshape(-1, 3)
    found["feret_max"], found["feret_min"], hull = calipers.T
    area, length = found["area"], found["length"]
    found["equivalent_diameter"] = np.sqrt(4 * area / np.pi)
    # A rod with round ends has the area l w - (1 - pi / 4) w^2.
    root = np.sqrt(np.maximum(length**2 - (4 - np.pi) * area, 0))
    found["width"] = np.minimum(2 * area / (length + root), length)
    # Perimeters and hulls of few pixels are estimated too small.
    found["circularity"] = np.minimum(4 * np.pi * area / found["perimeter"] ** 2, 1)
    found["solidity"] = np.minimum(area / hull, 1)
    return found


def _batches(shapes: Sequence[tuple[int, ...]]) -> Iterator[list[int]]:
    """Give the numbers of masks of similar height, few enough for one strip."""
    batch: list[int] = []
    width = 1
    for i in sorted(range(len(shapes)), key=lambda i: shapes[i][0]):
        if batch and (width + shapes[i][1]) * shapes[i][0] > _STRIP_PIXELS:
            yield batch
            batch, width = [], 1
        batch.append(i)
        width += shapes[i][1] + 1
    if batch:
        yield batch


def _strip(masks: Sequence[NDArray[np.bool_]]) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """Return masks side by side, numbered from 1 and apart by a pixel, and their first columns.

    What is done per image, such as thinning, is then done once for many particles.
    """
    widths = np.array([mask.shape[1] + 1 for mask in masks])
    lefts = np.cumsum(widths) - widths + 1
    strip = np.zeros((max(mask.shape[0] for mask in masks) + 2, widths.sum() + 1), np.int32)
    for number, (mask, left) in enumerate(zip(masks, lefts, strict=True), start=1):
        strip[1 : mask.shape[0] + 1, left : left + mask.shape[1]] = mask * np.int32(number)
    return strip, lefts


def _lengths(strip: NDArray[np.int32], n_masks: int) -> FloatArray:
    """Return the length along each numbered region."""
    from skimage.morphology import skeletonize

    skeleton = skeletonize(strip > 0)
    places = np.argwhere(skeleton)
    depths = ndimage.distance_transform_edt(strip > 0)[skeleton] - 0.5
    graph = _neighbours(skeleton)
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
    lengths = depths[start] + depths[end]
    walked, corner, now, active = 0, end.copy(), end.copy(), np.arange(n_pieces)
    while len(active):
        walked += 1
        is_start = now[active] == start[active]
        now[active] = np.where(is_start, now[active], before[now[active]])
        stops = active[is_start | (walked % _CHORD == 0)]
        lengths[stops] += np.hypot(*(places[now[stops]] - places[corner[stops]]).T)
        corner[stops] = now[stops]
        active = active[~is_start]
    longest = np.zeros(n_masks)
    np.maximum.at(longest, strip[tuple(places[end].T)] - 1, lengths)
    return longest


def _neighbours(skeleton: NDArray[np.bool_]) -> sparse.coo_array:
    """Return the distances between pixels of a skeleton that touch, diagonally too."""
    number = np.cumsum(skeleton).reshape(skeleton.shape) - 1
    ones, others, steps = [], [], []
    for down, right in ((0, 1), (1, -1), (1, 0), (1, 1)):
        # The border of the strip is empty, so that nothing is its own neighbour around an edge.
        ones.append(np.flatnonzero(skeleton & np.roll(skeleton, (-down, -right), (0, 1))))
        others.append(ones[-1] + down * skeleton.shape[1] + right)
        steps.append(np.full(len(ones[-1]), math.hypot(down, right)))
    flat, n_pixels = number.ravel(), int(skeleton.sum())
    pairs = flat[np.concatenate(ones)], flat[np.concatenate(others)]
    return sparse.coo_array((np.concatenate(steps), pairs), (n_pixels, n_pixels)).tocsr()


def _calipers(mask: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Return the largest and smallest caliper diameter, and the area of the convex hull.

    The hull is that of the middles of the pixels' sides, as in ``skimage.morphology``.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    first = mask[rows].argmax(axis=1)
    last = mask.shape[1] - 1 - mask[rows, ::-1].argmax(axis=1)
    down = np.concatenate([rows, rows, rows - 0.5, rows + 0.5, rows - 0.5, rows + 0.5])
    right = np.concatenate([first - 0.5, last + 0.5, first, first, last, last])
    hull = ConvexHull(np.stack([down, right], axis=1))
    corners = hull.points[hull.vertices]
    apart = corners[:, None] - corners
    # The smallest distance is perpendicular to a side of the hull.
    across = corners @ hull.equations[:, :2].T
    smallest = (across.max(axis=0) - across.min(axis=0)).min()
    return math.sqrt((apart * apart).sum(axis=2).max()), float(smallest), float(hull.volume)
