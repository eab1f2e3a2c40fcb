"""What a model remembers of its training images, and how unlike them new images are.

*Distance* is the mean distance to the three nearest training images of a class, divided by the
usual one within this class; of all classes, the least. *Emptiness* is the distance to the nearest
training image, divided by that to the nearest of a few images without content: constant ones and
noise (as J. Ren et al. 2021, "A simple fix to Mahalanobis distance for improving near-OOD
detection"). The limits come from comparing the training images with those of other groups.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct
from sklearn.metrics import pairwise_distances_chunked

from hypervlad.common.constraints import Integer
from hypervlad.common.limits import MAX_POINT
from hypervlad.common.progress import Sentence
from hypervlad.common.stored import Array, Each, Labels, Part, StoredPart, Value
from hypervlad.common.wording import name_some, warn_user
from hypervlad.features.encoder import HypercolumnVLAD
from hypervlad.features.encoding import EncoderParams
from hypervlad.features.loading import ImageInfo
from hypervlad.images import ReadOptions, TrainingImagesWarning
from hypervlad.images.faults import Effects, Faults, UsualFaults
from hypervlad.images.pixels import ImageDigests
from hypervlad.statistics.conformal import weighted_limit

DISTANCES_MB = 64  # of pairwise distances in memory at a time
_N_DIRECTIONS = 1024
_N_NEAREST = 3
_MIN_DISTANCE = 1e-9
_UNUSUAL_SHARE = 0.05  # of images like the training images, by both limits together
_BLANK = 0.1  # of a class's usual distance from images without content: what is nearer is one
_NEAREST_TO_EMPTY = 0.01  # of all: no image counts as nearer, so that ratios stay readable
_FENCE = 2  # distances of the quartiles: what is farther above them is an outlier
_MAX_OUTLIERS = 0.05  # of the images
_EMPTY_SIZE = 256  # pixels per side
_WHITE_NOISE = ((0.5, 0.02), (0.25, 0.05), (0.75, 0.05), (0.5, 0.1), (0.25, 0.2), (0.5, 0.3))
_POINTS = Array("float32", 2, -MAX_POINT, MAX_POINT)


@dataclass(frozen=True, eq=False)
class TrainingImages(StoredPart):
    """The labelled images given to ``fit``, those that could be read.

    Attributes
    ----------
    names : list of n str
        Paths relative to the common folder of all, with forward slashes; "" for an array.
    labels : ndarray of shape (n,)
    groups, positions : ndarray of int, shape (n,)
        The group of each image, and its position in the list given to ``fit``.
    digests : ImageDigests
        SHA-256 of the pixels.
    points, empty : ndarray of float32, shape (n, d) and (m, d)
        Projected vectors of the images, and of images without content.
    n_features : int
        Length of the vectors before projection.
    n_joined : int
        How many fewer groups there are because near copies share one.
    usual : ndarray of float, shape (n_classes,)
        Of each class, the median distance of its images to the nearest three of other groups.
    limits : ndarray of float, shape (2,)
        Limits of distance and emptiness, each exceeded by 2.5 % of the training images.
    """

    names: Annotated[list[str], Each(Value(str), list)]
    labels: Annotated[NDArray[Any], Labels(distinct=False)]
    groups: Annotated[NDArray[np.intp], Array("int64", 1)]
    positions: Annotated[NDArray[np.intp], Array("int64", 1, at_least=0)]
    digests: Annotated[ImageDigests, Part(ImageDigests)]
    points: Annotated[NDArray[np.float32], _POINTS]
    empty: Annotated[NDArray[np.float32], _POINTS]
    n_features: Annotated[int, Value(int, Integer(1))]
    n_joined: Annotated[int, Value(int, Integer(0))]
    usual: Annotated[NDArray[np.float64], Array("float64", 1, at_least=_MIN_DISTANCE)] = field(
        default_factory=lambda: np.empty(0)
    )
    limits: Annotated[NDArray[np.float64], Array("float64", 1, at_least=0, at_most=np.inf)] = field(
        default_factory=lambda: np.zeros(2)
    )

    def __len__(self) -> int:
        return len(self.labels)

    def with_limits(self) -> TrainingImages:
        """Return them with the `usual` distances and the `limits` that they show.

        A class of one group gets the usual distance of all.
        """
        codes = self._codes
        found = list(self._distances(self.points, among_groups=True))
        within = np.concatenate([each.by_class for each in found])[np.arange(len(codes)), codes]
        compared = np.isfinite(within)  # with other groups of their class
        overall = np.median(within[compared]) if compared.any() else 1.0
        of_class = (within[compared & (codes == code)] for code in range(codes.max() + 1))
        medians = [np.median(own) if len(own) else overall for own in of_class]
        usual = np.maximum(np.array(medians), _MIN_DISTANCE)
        if not compared.any():
            compared[:] = True
        scores = np.concatenate([each.scores(usual) for each in found])
        share = _UNUSUAL_SHARE / 2 if len(self.empty) else _UNUSUAL_SHARE
        limits = [
            _limit(scores[rows, kind], self.groups[rows], share)
            for kind, rows in enumerate((compared, compared & ~self._is_empty))
        ]
        return replace(self, usual=usual, limits=np.array(limits))

    def nearest(self, points: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Return the rows (m, 3) of the nearest training images of points (m, d), and novelty (m,).

        Novelty is the larger of distance and emptiness, each divided by its limit.
        """
        rows, novelty = [np.empty((0, min(_N_NEAREST, len(self))), np.intp)], [np.empty(0)]
        limits = np.maximum(self.limits, np.finfo(np.float64).tiny)
        for found in self._distances(points):
            rows.append(found.rows)
            novelty.append((found.scores(self.usual) / limits).max(axis=1))
        return np.concatenate(rows), np.concatenate(novelty)

    def _distances(
        self, points: NDArray[np.float32], *, among_groups: bool = False
    ) -> Iterator[_Distances]:
        """Yield the distances of blocks of points; infinite ones if there is no image.

        With `among_groups`, the points are the known ones; those of the same group do not count.
        """
        ends = np.cumsum(np.bincount(self._codes))
        columns_of_class = np.split(np.argsort(self._codes), ends[:-1])
        start = 0
        if not len(points):
            return
        least = max(_NEAREST_TO_EMPTY * float(np.median(self._own_to_empty)), _MIN_DISTANCE)
        for block in pairwise_distances_chunked(points, self.points, working_memory=DISTANCES_MB):
            stop = start + len(block)
            distances = np.asarray(block, dtype=np.float64)
            if among_groups:
                distances[self.groups[start:stop, None] == self.groups[None]] = np.inf
            rows, _ = _smallest(distances)
            near = (_smallest(distances[:, own])[1] for own in columns_of_class)
            by_class = list(map(_mean_of_finite, near))
            emptiness = np.zeros(len(block))
            if len(self.empty):
                to_nearest = np.where(self._is_empty, np.inf, distances).min(axis=1)
                to_empty = np.maximum(self._to_empty(points[start:stop]), least)
                emptiness = to_nearest / to_empty
            yield _Distances(rows, np.stack(by_class, axis=1), emptiness)
            start = stop

    @functools.cached_property
    def _codes(self) -> NDArray[np.intp]:
        return np.unique(self.labels, return_inverse=True)[1]

    @functools.cached_property
    def _is_empty(self) -> NDArray[np.bool_]:
        """Which training images, such as a frame that was missed, have no content.

        They are compared with their own class, because a class may consist of empty fields.
        """
        own, codes = self._own_to_empty, self._codes
        usual = [np.median(own[codes == code]) for code in range(codes.max() + 1)]
        return own < _BLANK * np.array(usual)[codes]

    @functools.cached_property
    def _own_to_empty(self) -> NDArray[np.float64]:
        return self._to_empty(self.points)

    def _to_empty(self, points: NDArray[np.float32]) -> NDArray[np.float64]:
        if not len(self.empty):
            return np.full(len(points), np.inf)
        blocks = pairwise_distances_chunked(points, self.empty, working_memory=DISTANCES_MB)
        return np.concatenate([block.min(axis=1) for block in blocks]).astype(np.float64)

    def warn_of_known(self, digests: Sequence[str]) -> None:
        if n_known := int(self.digests.contains(digests).sum()):
            warn_user(TrainingImagesWarning.about(n_known, len(digests)))

    def check(self, n_features: int, classes: NDArray[Any]) -> None:
        """Raise a ValueError unless they fit a model of so many features and these classes."""
        if self.n_features != n_features:
            raise ValueError(
                f"the training images have {self.n_features} features where the encoder gives "
                f"{n_features}"
            )
        damaged = "the record of the training images is damaged"
        columns = (self.names, self.groups, self.positions, self.digests, self.points)
        if {len(each) for each in columns} != {len(self)}:
            raise ValueError(damaged)
        if self.limits.shape != (2,):
            raise ValueError(f"{damaged}: its limits")
        if len(self.usual) != len(np.unique(self.labels)):
            raise ValueError(f"{damaged}: usual distances")
        width = min(n_features, _N_DIRECTIONS)
        if not self.points.shape[1] == self.empty.shape[1] == width:
            raise ValueError(f"{damaged}: its points")
        if not np.isin(self.labels, classes).all():
            raise ValueError("training images have labels that are not among the classes")


class _Distances(NamedTuple):
    """Distances of m images from known ones."""

    rows: NDArray[np.intp]  # of the nearest known images, (m, k)
    by_class: NDArray[np.float64]  # the nearest three of each class in the mean, (m, n_classes)
    emptiness: NDArray[np.float64]  # (m,)

    def scores(self, usual: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return distance and emptiness, (m, 2)."""
        return np.stack([(self.by_class / usual).min(axis=1), self.emptiness], axis=1)


def _limit(scores: NDArray[np.float64], groups: NDArray[np.intp], share: float) -> float:
    """Return the limit that a share of the scores exceeds, without outliers.

    Outliers are far above the quartiles of the logarithms (J. W. Tukey, "Exploratory data
    analysis", 1977). If there are more than one in twenty, they are a class of their own.
    """
    logarithms = np.log(np.clip(scores, np.finfo(np.float64).tiny, np.finfo(np.float64).max))
    low, high = np.quantile(logarithms, [0.25, 0.75])
    usual = logarithms <= high + _FENCE * (high - low)
    if np.count_nonzero(~usual) > max(1, _MAX_OUTLIERS * len(scores)):
        usual[:] = True
    return weighted_limit(scores[usual], groups[usual], share)


def _smallest(distances: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return columns and values of the smallest three of each row, in order."""
    k = min(_N_NEAREST, distances.shape[1])
    columns = np.argpartition(distances, k - 1, axis=1)[:, :k]
    near = np.take_along_axis(distances, columns, axis=1)
    order = np.argsort(near, axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1), np.take_along_axis(near, order, axis=1)


def _mean_of_finite(near: NDArray[np.float64]) -> NDArray[np.float64]:
    finite = np.isfinite(near)
    sums = np.where(finite, near, 0).sum(axis=1)
    return np.where(finite.any(axis=1), sums / np.maximum(finite.sum(axis=1), 1), np.inf)


def project_vectors(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Project vectors (n, p) onto 1,024 fixed random directions, unless p is less.

    Distances change by about 2 % (N. Ailon and B. Chazelle, "The fast Johnson-Lindenstrauss
    transform and approximate nearest neighbors", SIAM Journal on Computing 39, 2009).
    """
    n_features = vectors.shape[1]
    if n_features <= _N_DIRECTIONS:
        return vectors.astype(np.float32)
    rng = np.random.RandomState(0)
    signs = np.where(rng.randint(0, 2, n_features) == 0, -1, 1).astype(np.float32)
    chosen = rng.permutation(n_features)[:_N_DIRECTIONS]
    scale = np.sqrt(n_features / _N_DIRECTIONS)
    projected = np.empty((len(vectors), _N_DIRECTIONS), dtype=np.float32)
    for row, vector in enumerate(vectors):  # one by one: a transform of all would double the memory
        projected[row] = scale * dct(signs * vector, norm="ortho")[chosen]
    return projected


@functools.cache
def empty_images() -> tuple[NDArray[np.float32], ...]:
    """Return constant images and images of noise, (256, 256) each."""
    constant = [np.full((_EMPTY_SIZE, _EMPTY_SIZE), grey) for grey in (0, 0.25, 0.5, 0.75, 1)]
    rng = np.random.RandomState(0)
    white = [grey + contrast * _noise(rng, 0) for grey, contrast in _WHITE_NOISE]
    kinds = itertools.product((0.5, 1, 1.5, 2), (0.08, 0.2))
    coloured = [0.5 + contrast * _noise(rng, exponent) for exponent, contrast in kinds]
    images = (*constant, *white, *coloured)
    return tuple(np.clip(image, 0, 1).astype(np.float32) for image in images)


def empty_vectors(encoder: HypercolumnVLAD) -> NDArray[np.float32]:
    # They are pixels in [0, 1] already, whatever the options for the user's files.
    own = replace(
        encoder.loader(), read_options=ReadOptions(), pixel_size=None, memory=None, verbose=False
    )
    loaded = own.stream(list(empty_images()), "images without content", own.load)
    return np.concatenate([*map(encoder.batch_encoder(), own.batches(loaded))])


def _noise(rng: np.random.RandomState, exponent: float) -> NDArray[np.float64]:
    """Return noise of variance 1, its amplitudes falling with a power of the frequency."""
    down, across = np.fft.fftfreq(_EMPTY_SIZE), np.fft.rfftfreq(_EMPTY_SIZE)
    frequency = np.hypot(down[:, None], across[None, :])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.normal(size=(_EMPTY_SIZE, _EMPTY_SIZE))) / frequency**exponent
    noise = np.fft.irfft2(spectrum, s=(_EMPTY_SIZE, _EMPTY_SIZE))
    return np.asarray(noise / noise.std())


@dataclass(frozen=True)
class ImageFormats(UsualFaults):
    """What images are like: how they were stored, their faults, and how they look.

    Types of pixels ("float" for any floating point that is stretched), shortest and longest side.
    """

    dtypes: tuple[str, ...]
    sides: tuple[int, int]

    def __post_init__(self) -> None:
        super().__post_init__()
        shortest, longest = self.sides
        if not (0 < shortest <= longest and all(isinstance(each, str) for each in self.dtypes)):
            raise ValueError("the record of the training images is damaged: their formats")

    @classmethod
    def of(cls, images: Sequence[ImageInfo]) -> ImageFormats:
        sides = [side for image in images for side in image.shape[:2]]
        usual = UsualFaults.among([image.faults for image in images if image.faults is not None])
        kinds = tuple(sorted(set(map(_kind_of_pixels, images))))
        return cls(usual.least, usual.most, usual.n_measured, kinds, (min(sides), max(sides)))

    def differences(
        self,
        image: ImageInfo,
        params: EncoderParams,
        effects: Effects,
        of_size: Sentence | None = None,
        factor: float = 2.0,
    ) -> Iterator[tuple[Sentence, Any]]:
        """Give facts of an image that differ from all, or most, training images.

        They differ in the type of their pixels, in size by more than a factor, in faults, or in
        looks; those of images are not like those of patches, which labels may be of, and for which
        `of_size` is None.
        """
        (height, width, *_), (shortest, longest) = image.shape, self.sides
        is_far = max(height, width) < shortest / factor or min(height, width) > factor * longest
        found = image.faults or Faults()
        with_types = params.read_options.scaling not in ("percentile", "minmax")
        if with_types and (kind := _kind_of_pixels(image)) not in self.dtypes:
            yield _of_another_type, (kind, self.dtypes)
        if of_size and params.pixel_size is None and is_far:
            yield of_size, (image.shape[:2], self.sides)
        yield from self.effects(found.without_looks() if is_far and not of_size else found, effects)


def _of_another_type(facts: Mapping[str, tuple[str, tuple[str, ...]]]) -> str:
    known = next(iter(facts.values()))[1]
    return (
        f"pixels of another type than in all training images ({', '.join(known)}): "
        f"{name_some([f'{name} ({kind})' for name, (kind, _) in facts.items()])}; their brightness "
        "may differ once it is scaled"
    )


def _of_another_size(then: str, facts: Mapping[str, tuple[Any, tuple[int, int]]]) -> str:
    _, (shortest, longest) = next(iter(facts.values()))
    known = f"{shortest}" if shortest == longest else f"{shortest} to {longest}"
    each = [f"{name} ({height} x {width})" for name, ((height, width), _) in facts.items()]
    return (
        f"of another size than all training images (sides of {known} pixels): {name_some(each)}; "
        f"{then}"
    )


#: What the size of an image does to its class, and to the score of its defects.
OF_SIZE_ON_CLASSES = functools.partial(
    _of_another_size, "details may have another size for the network"
)
OF_SIZE_ON_DEFECTS = functools.partial(
    _of_another_size,
    "the more there is to see, the more often a defect-free image is called anomalous",
)


def _kind_of_pixels(image: ImageInfo) -> str:
    return "float" if image.dtype.startswith("float") else image.dtype
