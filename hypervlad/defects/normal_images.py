"""``NormalImages``: what defect-free images look like, at three sizes, cell by cell."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter
from sklearn.cluster import KMeans

from hypervlad.common.constraints import Number
from hypervlad.common.limits import MAX_NORMAL_VALUE
from hypervlad.common.stored import Array, Each, Part, StoredPart, Value
from hypervlad.common.wording import warn_user
from hypervlad.defects.cells import (
    DESCRIPTIONS,
    MAX_EDGE_DISTANCE,
    SIDES,
    WIDE_WINDOW,
    CellMaps,
    Cells,
    covered_cells,
    describe,
    mean_and_deviation,
    places_of,
    resized,
    window_means,
    without_covered,
)
from hypervlad.defects.thresholds import PlaceScores, image_score
from hypervlad.features.encoding import random_pixels
from hypervlad.features.lazy_torch import torch
from hypervlad.features.patches import WindowGrid
from hypervlad.features.windows import PreparedImage

_RIDGE = 0.01  # of the mean variance, added to all directions
_TRIM_FRACTION, _TRIM_ROUNDS = 0.01, 2  # the least likely cells: some images may have defects
_MIN_PER_CODEWORD, _MAX_PER_CODEWORD = 4, 100
_MAX_CELLS, _MIN_PER_IMAGE = 50_000, 20  # sampled from all images together, and from each
_N_PLACES = (MAX_EDGE_DISTANCE + 1) ** 2
_TOP_SHARES = (0.001, 0.01, 0.1)  # of an image's cells
_MIN_MEAN = 1.0  # of their distances, which a tenth of defect-free cells reach: less is no evidence
_MIN_IMAGES = 10  # from which the spread of their scores is known well enough
_HIGH_QUANTILE = 0.9  # the quantile of distances that is 1 after standardisation
_MAX_PROFILE_IMAGES = 200  # held out, from which usual distances are learnt
_ROWS = 8  # of cells, of which means over windows are taken at once, to save memory
_BLOCK = 2**11  # cells whose distances are computed at once, in the processor's cache
_ALIGNED_SHAPE = (28, 28)  # of the maps of usual distances of aligned images
_N_ALIGNED_PLACES = math.prod(_ALIGNED_SHAPE)
_MAX_STRETCH = 1.1  # between the widest and the narrowest of aligned images
# A map shows where; the score of an image, whether. Each is weighted for its own purpose.
_MAP_WEIGHTS = np.array([4, 4, 1, 1], np.float32) / 10  # the finest parts show places best
_WIDE_SHARE = 0.85  # of the highest place in a wide window, which the window reaches as a whole
_PLACE_SHARE = 1 / 3  # of the logarithm of a spread that is of the own place: see `standardised`
_IMAGE_POWER, _USUAL_LEVEL = 0.5, 0.5  # see `combined`

_MIN_SCALE = 1e-3  # if even the highest cells of all images are more usual than the median

_VECTOR = Array("float32", 1, -MAX_NORMAL_VALUE, MAX_NORMAL_VALUE)
_MATRIX = Array("float32", 2, -MAX_NORMAL_VALUE, MAX_NORMAL_VALUE)
_PROFILE = Array("float32", 1, 0, MAX_NORMAL_VALUE)

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class NormalCells(StoredPart):
    """A codebook of whitened defect-free cells, or of windows of them, at one size of images."""

    mean: Annotated[NDArray[np.float32], _VECTOR]  # (D,)
    # (D, D), to a space of equal variance in all directions
    whitening: Annotated[NDArray[np.float32], _MATRIX]
    codewords: Annotated[NDArray[np.float32], _MATRIX]  # (K, D), in that space
    # The median of held-out defect-free cells, and how far their 90 % quantile lies above it: by
    # the distances from the edges in cells, or, for aligned images, by place, row by row.
    usual: Annotated[NDArray[np.float32], _PROFILE] = field(
        default_factory=lambda: np.zeros(_N_PLACES, np.float32)
    )
    spread: Annotated[NDArray[np.float32], _PROFILE] = field(
        default_factory=lambda: np.ones(_N_PLACES, np.float32)
    )

    def __post_init__(self) -> None:
        n, shapes = len(self.mean), [getattr(self, each.name).shape for each in fields(self)]
        n_places = _N_ALIGNED_PLACES if self.is_aligned else _N_PLACES
        expected = [(n,), (n, n), (len(self.codewords), n), (n_places,), (n_places,)]
        if not (n and len(self.codewords)) or shapes != expected or not self.spread.all():
            raise ValueError(f"the arrays of the model of normal images do not fit: {shapes}")

    @classmethod
    def fit(cls, rows: Cells, n_codewords: int, seed: int) -> NormalCells:
        """Learn from described cells (n, D); usual distances are still missing."""
        kept, mean, whitening = whitened(rows)
        codewords = codewords_of(kept, mean, whitening, n_codewords, seed)
        return cls(*(array.astype(np.float32) for array in (mean, whitening, codewords)))

    @property
    def is_aligned(self) -> bool:
        return len(self.usual) != _N_PLACES

    def distances(self, cells: Cells, window: int, *, relative: bool) -> NDArray[np.float32]:
        """Return the distance (R, S) of each cell (R, S, D) of an image from its codeword.

        ``window`` is that of a description, which may be ``relative``.
        """
        centre, whitening, offset = self.mean, self.whitening, np.zeros_like(self.mean)
        if relative:  # a matrix is divided faster than all cells
            centre, deviation = mean_and_deviation(cells)
            offset, whitening = -self.mean @ whitening, whitening / deviation[:, None]
        arrays = centre, offset, whitening, self.codewords
        middle, start, matrix, codewords = map(torch.from_numpy, arrays)
        halves = 0.5 * codewords.square().sum(1)
        found = []
        for first in range(0, len(cells), _ROWS):
            means = torch.from_numpy(window_means(cells, window, first, _ROWS))
            for block in means.flatten(0, 1).split(_BLOCK):
                white = torch.addmm(start, block - middle, matrix)
                nearest = torch.addmm(halves, white, codewords.T, alpha=-1).amin(1)
                found.append(white.square_().sum(1).add_(nearest, alpha=2))
        distances: NDArray[np.float32] = torch.cat(found).clamp_(min=0).sqrt_().numpy()
        return distances.reshape(cells.shape[:2])

    def standardised(
        self, distances: NDArray[np.float32], place_share: float = 1.0
    ) -> NDArray[np.float32]:
        """Return distances (R, S) relative to the usual ones at the same place.

        Spreads are geometric means of the place's, with weight ``place_share``, and a typical one.
        """
        typical = float(np.median(self.spread) if self.is_aligned else self.spread[-1])
        spread = self.spread**place_share * typical ** (1 - place_share)
        if self.is_aligned:
            maps = (each.reshape(_ALIGNED_SHAPE) for each in (self.usual, spread))
            usual, spread = (resized(each, distances.shape) for each in maps)
        else:
            place = places_of(distances.shape)
            usual, spread = self.usual[place], spread[place]
        return np.asarray((distances - usual) / spread)

    def standardised_by(
        self, held_out: Sequence[NDArray[np.float32]], aligned: bool
    ) -> NormalCells:
        """Learn the usual distances from those (R, S) of held-out images."""
        if aligned:
            stack = np.stack([resized(each, _ALIGNED_SHAPE) for each in held_out])
            around = np.pad(stack, [(0, 0), (1, 1), (1, 1)], mode="edge")
            views = np.lib.stride_tricks.sliding_window_view(around, (3, 3), axis=(1, 2))
            groups = views.transpose(1, 2, 0, 3, 4).reshape(_N_ALIGNED_PLACES, -1)
            usual, high = np.quantile(groups, [0.5, _HIGH_QUANTILE], axis=-1)
        else:
            values = np.concatenate([each.ravel() for each in held_out])
            places = np.concatenate([places_of(each.shape).ravel() for each in held_out])
            found = np.full((2, _N_PLACES), np.nan)
            for place in np.flatnonzero(np.bincount(places)):
                found[:, place] = np.quantile(values[places == place], [0.5, _HIGH_QUANTILE])
            # Images that are too small have no place far from an edge: the next nearer one counts.
            last = np.flatnonzero(np.isfinite(found[0]))[-1]
            usual, high = np.where(np.isfinite(found), found, found[:, [last]])
        spread = high - usual
        typical = float(np.median(spread)) or 1.0  # 0 for images without any variation
        spread = np.maximum(spread, 0.1 * typical)
        return replace(self, usual=usual.astype(np.float32), spread=spread.astype(np.float32))


@dataclass(frozen=True, eq=False)
class NormalImages(StoredPart):
    """What defect-free images look like: a `NormalCells` for each of the `DESCRIPTIONS`.

    Distances are relative to those of held-out images: 0 is usual, and about one cell in ten of a
    usual image reaches 1.
    """

    parts: Annotated[Sequence[NormalCells], Each(Part(NormalCells), list)]
    # Of all parts but the last; their sum is 1, and they are small where defect-free images differ.
    weights: Annotated[NDArray[np.float32], Array("float32", 1, 0, 1)]
    levels: Annotated[NDArray[np.float32], _PROFILE]  # the usual values of `log_of_highest`
    # The usual score of an image.
    scale: Annotated[float, Value(float, Number(above=0, below=MAX_NORMAL_VALUE))] = 1.0

    def __post_init__(self) -> None:
        n_parts, weights = len(DESCRIPTIONS), self.weights
        fits = weights.shape == self.levels.shape == (n_parts - 1,) and len(self.parts) == n_parts
        fits &= len({(part.mean.shape, part.is_aligned) for part in self.parts}) == 1
        if not fits or not weights.all() or abs(float(weights.sum()) - 1) >= 1e-3:
            raise ValueError(
                f"the {len(self.parts)} parts do not fit: weights {weights}, levels {self.levels}"
            )

    @property
    def n_features(self) -> int:
        return len(self.parts[0].mean)

    def scores(
        self, maps: CellMaps, image: PreparedImage
    ) -> tuple[NDArray[np.float32], WindowGrid, float]:
        """Return the scores (R, S) of an image's places, their grid, and the image's score."""
        found = {side: maps.cells(image, side) for side in SIDES}
        stride = found[None][1]
        of_side = {side: cells for side, (cells, _) in found.items()}
        covered = covered_of(image, of_side)
        distances = distances_of(self.parts, of_side, covered)
        places, score = self.combined(distances)
        return places, WindowGrid.of_cells(distances[0].shape, stride), score

    def combined(
        self, distances: Sequence[NDArray[np.float32]]
    ) -> tuple[NDArray[np.float32], float]:
        """Return the scores of places, on the grid of the first part, and that of the image.

        The score s of an image is the weighted geometric mean of the highest standardised distances
        of all parts but the last, relative to what is usual. The score of a place is the weighted
        mean m of the same distances, higher in an unusual image: (m + 1/2) s^1/2 - 1/2. In a wide
        defect, the wide window of the last part is more unusual than its places, and its distance
        counts, if higher; around a narrow defect, it would only spread it.
        """
        *narrow, (last, far) = zip(self.parts, distances, strict=True)
        wide = last.standardised(far, _PLACE_SHARE) + _USUAL_LEVEL
        logarithms = np.array([log_of_highest(part.standardised(own)) for part, own in narrow])
        unusual = math.exp(np.dot(self.weights, logarithms - self.levels))
        maps = [resized(part.standardised(own, _PLACE_SHARE), wide.shape) for part, own in narrow]
        places = np.tensordot(_MAP_WEIGHTS, maps, axes=1) + _USUAL_LEVEL
        is_wide = wide > _WIDE_SHARE * maximum_filter(places, WIDE_WINDOW)
        places = np.where(is_wide, np.maximum(places, wide), places)
        places = places * unusual**_IMAGE_POWER - _USUAL_LEVEL
        return places.astype(np.float32), self.scale * unusual

    @staticmethod
    def raised(least: float, ratio: float) -> float:
        """Return a score of places for an image whose score is ``ratio`` times that of usual ones.

        `combined` raises all places of an unusual image, also those far from its defects.
        """
        return float((least + _USUAL_LEVEL) * max(1.0, ratio) ** _IMAGE_POWER - _USUAL_LEVEL)


class NormalImagesFit:
    """Learns from the cells of at most ``n_images`` images, and scores each image by the others."""

    def __init__(
        self, maps: CellMaps, n_images: int, n_codewords: int, aligned: bool, seed: int
    ) -> None:
        self.sizes: dict[int, tuple[int, int]] = {}
        self.keys: dict[int, str] = {}
        self._maps = maps
        self._n_each = max(_MIN_PER_IMAGE, _MAX_CELLS // n_images)
        self._n_codewords, self._aligned, self._seed = n_codewords, aligned, seed
        self._rows: dict[int, list[Cells]] = {}
        self._covered: dict[int, list[NDArray[np.bool_] | None]] = {}

    def add(self, position: int, image: PreparedImage) -> None:
        """Sample the cells of an image, by the seed and the image alone."""
        self.keys[position], self.sizes[position] = image.key, image.size
        samples = []
        of_side = {side: self._maps.cells(image, side)[0] for side in SIDES}
        self._covered[position] = covered_of(image, of_side)
        pairs = zip(DESCRIPTIONS, self._covered[position], strict=True)
        for (side, window, relative), covered in pairs:
            flat = describe(of_side[side], window, relative)
            if covered is not None and not covered.all():
                flat = flat[~covered.ravel()]
            samples.append(flat[random_pixels(self._seed, image.key, len(flat), self._n_each)])
        self._rows[position] = samples

    def parts(self, positions: Iterable[int]) -> list[NormalCells]:
        """Learn from some images; usual distances are still missing."""
        ordered = sorted(positions, key=lambda at: (self.keys[at], at))
        return [
            NormalCells.fit(np.concatenate(rows), self._n_codewords, self._seed)
            for rows in zip(*(self._rows[at] for at in ordered), strict=True)
        ]

    def finish(
        self, parts: list[NormalCells], of_image: Mapping[int, list[NormalCells]]
    ) -> tuple[NormalImages, dict[int, NormalImages], dict[int, PlaceScores]]:
        """Return the model, models without the image at each position, and their scores of it.

        ``parts`` are learnt from all images, ``of_image`` without the image at each position.
        """
        distances = {}
        for at, own in of_image.items():
            kept = partial(self._maps.kept_cells, self.keys[at], self.sizes[at])
            of_side = {side: kept(side) for side in SIDES}
            distances[at] = distances_of(own, of_side, self._covered[at])

        def model(fitted: list[NormalCells], without: Any = None) -> NormalImages:
            # By the images that other models score: an image hides its own defects.
            known = [at for at, own in of_image.items() if own is not without] or list(of_image)
            of_part = zip(*(distances[at] for at in known[:_MAX_PROFILE_IMAGES]), strict=True)
            standardised, logarithms = [], []
            for part, own in zip(fitted, of_part, strict=True):
                standardised.append(part.standardised_by(own, self._aligned))
                logarithms.append([log_of_highest(standardised[-1].standardised(d)) for d in own])
            low, levels, high = np.quantile(logarithms[:-1], [0.25, 0.5, 0.75], axis=1)
            spreads = high - low if len(logarithms[0]) >= _MIN_IMAGES else np.ones(len(levels))
            weights = weights_of(spreads)
            return NormalImages(standardised, weights, levels.astype(np.float32))

        folds = {id(own): own for own in of_image.values()}  # the images of a fold share a model
        of_fold = {key: model(own, without=own) for key, own in folds.items()}
        scored = {at: of_fold[id(of_image[at])].combined(own) for at, own in distances.items()}
        ratios = [image_score(places) / score for places, score in scored.values()]
        scale = max(float(np.median(ratios)), _MIN_SCALE)
        of_fold = {key: replace(each, scale=scale) for key, each in of_fold.items()}
        return (
            replace(model(parts), scale=scale),
            {at: of_fold[id(own)] for at, own in of_image.items()},
            {at: (places, scale * score) for at, (places, score) in scored.items()},
        )


def warn_of_shapes(sizes: Sequence[tuple[int, int]]) -> None:
    """Warn if aligned images of these sizes differ in their proportions."""
    narrow, wide = (rule(sizes, key=lambda size: size[1] / size[0]) for rule in (min, max))
    if wide[1] * narrow[0] > _MAX_STRETCH * narrow[1] * wide[0]:
        first, second = (f"{height} x {width}" for height, width in (narrow, wide))
        warn_user(
            f"aligned=True is for images of the same part in the same position, but one is {first} "
            f"and another {second} pixels; fit without it, or crop the images alike"
        )


def covered_of(
    image: PreparedImage, of_side: Mapping[int | None, Cells]
) -> list[NDArray[np.bool_] | None]:
    """Return which cells (R, S) of each part hold annotations of an image; None if none does."""
    return [
        covered_cells(image.covered, of_side[side].shape[:2], window)
        for side, window, _ in DESCRIPTIONS
    ]


def distances_of(
    parts: Sequence[NormalCells],
    of_side: Mapping[int | None, Cells],
    covered: Sequence[NDArray[np.bool_] | None],
) -> list[NDArray[np.float32]]:
    """Return the distances (R, S) of an image's cells by each part, usual ones where covered."""
    found = [
        part.distances(of_side[side], window, relative=relative)
        for part, (side, window, relative) in zip(parts, DESCRIPTIONS, strict=True)
    ]
    return [without_covered(*each) for each in zip(found, covered, strict=True)]


def log_of_highest(values: NDArray[np.floating]) -> float:
    """Return the logarithm of the geometric mean of the means over the highest 0.1, 1 and 10 %.

    Means below 1 count as 1: a part in which an image is very usual must not hide other parts.
    """
    ordered = np.sort(values, axis=None)
    means = [ordered[-max(1, round(share * ordered.size)) :].mean() for share in _TOP_SHARES]
    return float(np.log(np.maximum(means, _MIN_MEAN)).mean())


def weights_of(spreads: FloatArray) -> NDArray[np.float32]:
    """Return weights (n,), inversely proportional to spreads (n,); their sum is 1."""
    typical = float(spreads.mean()) or 1.0  # 0 for copies of one image
    # A third of it is added, as variances are, so that no part counts alone by chance.
    weights: FloatArray = 1 / np.hypot(spreads, typical / 3)
    weights /= weights.sum()
    return weights.astype(np.float32)


def whitened(rows: Cells) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the cells (n, D) that are kept, their mean, and the matrix that whitens them.

    Twice, the 1 % with the largest Mahalanobis distance are left out.
    """
    cells: FloatArray = np.asarray(rows, dtype=np.float64)
    kept = cells
    for _ in range(_TRIM_ROUNDS):
        mean, whitening = _whitening(kept)
        distances = np.square((cells - mean) @ whitening).sum(axis=1)
        kept = cells[distances <= np.quantile(distances, 1 - _TRIM_FRACTION)]
    return kept, *_whitening(kept)


def codewords_of(
    cells: FloatArray, mean: FloatArray, whitening: FloatArray, n_codewords: int, seed: int
) -> FloatArray:
    """Return at most so many K-means codewords (K, D) of whitened cells."""
    n_codewords = max(1, min(n_codewords, len(cells) // _MIN_PER_CODEWORD))
    every = -(-len(cells) // (_MAX_PER_CODEWORD * n_codewords))  # more would only take longer
    white = (cells[::every] - mean) @ whitening
    distinct = np.unique(white, axis=0)
    n_codewords = min(n_codewords, len(distinct))
    start = np.random.default_rng(seed).choice(distinct, n_codewords, replace=False)
    kmeans = KMeans(n_codewords, init=start, n_init=1, max_iter=20).fit(white)
    return np.asarray(kmeans.cluster_centers_)


def _whitening(cells: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the mean, and the matrix that makes cells vary equally in all directions."""
    mean = cells.mean(axis=0)
    centred = cells - mean
    variances, directions = np.linalg.eigh(centred.T @ centred / max(1, len(cells) - 1))
    usual = variances.mean() or 1.0
    return mean, directions / np.sqrt(np.maximum(variances, 0) + _RIDGE * usual)
