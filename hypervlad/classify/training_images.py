"""What a model remembers of its training images: their labels, vectors, digests and formats."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hypervlad.classify.novelty import MIN_DISTANCE, N_DIRECTIONS, N_NEAREST, KnownPoints
from hypervlad.common.base import Array, CachingPart, Labels, Value, Values
from hypervlad.common.constraints import Integer
from hypervlad.common.limits import MAX_POINT
from hypervlad.common.wording import counted, verb, warn_user
from hypervlad.features.loading import ImageInfo
from hypervlad.images import TrainingImagesWarning
from hypervlad.images.pixels import ImageDigests

_LIMIT = Value(float, may_be_infinite=True)
_ARRAYS = {
    "groups": Array("int64", 1),
    "positions": Array("int64", 1, at_least=0),
    "points": Array("float32", 2, -MAX_POINT, MAX_POINT),
    "empty": Array("float32", 2, -MAX_POINT, MAX_POINT),
    "usual": Array("float64", 1, at_least=MIN_DISTANCE),
}


@dataclass(frozen=True, eq=False)
class TrainingImages(CachingPart):
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
    usual : ndarray of float, shape (n_classes,)
        Of each class, the median distance of its images to the nearest three of other groups.
    limits : ndarray of float, shape (2,)
        Limits of distance and emptiness, each exceeded by 2.5 % of the training images.
    n_features : int
        Length of the vectors before projection.
    """

    names: list[str]
    labels: NDArray[Any]
    groups: NDArray[np.intp]
    positions: NDArray[np.intp]
    digests: ImageDigests
    points: NDArray[np.float32]
    empty: NDArray[np.float32]
    usual: NDArray[np.float64]
    limits: NDArray[np.float64]
    n_features: int

    def __len__(self) -> int:
        return len(self.labels)

    @functools.cached_property
    def _known(self) -> KnownPoints:
        return KnownPoints(self.points, self.labels, self.empty)

    def nearest(self, points: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Return the rows (m, 3) of the nearest training images of points (m, d), and novelty (m,).

        Novelty is the larger of distance and emptiness, each divided by its limit.
        """
        rows, novelty = [np.empty((0, min(N_NEAREST, len(self))), np.intp)], [np.empty(0)]
        limits = np.maximum(self.limits, np.finfo(np.float64).tiny)
        for found in self._known.distances(points):
            rows.append(found.rows)
            novelty.append((found.scores(self.usual) / limits).max(axis=1))
        return np.concatenate(rows), np.concatenate(novelty)

    def warn_of_known(self, digests: Sequence[str]) -> None:
        n_known = int(self.digests.contains(digests).sum())
        if n_known:
            warn_user(TrainingImagesWarning.about(n_known, len(digests)))

    def to_state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        labels, _ = Labels(distinct=False).pack(self.labels)
        header = {
            "names": self.names,
            "labels": labels,
            "n_features": self.n_features,
            "limits": [_LIMIT.pack(limit)[0] for limit in self.limits],
        }
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        return header, arrays | self.digests.to_state()[1]

    @classmethod
    def from_state(
        cls, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
    ) -> TrainingImages:
        found = {name: field.checked(arrays[name], name) for name, field in _ARRAYS.items()}
        digests = ImageDigests.from_state({}, arrays)
        training = cls(
            names=list(Values(str).unpack(header["names"], {})),
            labels=Labels(distinct=False).unpack(header["labels"], {}),
            limits=np.array([_LIMIT.unpack(limit, {}) for limit in header["limits"]]),
            n_features=Value(int, Integer(1)).unpack(header["n_features"], {}),
            digests=digests,
            **found,
        )
        lengths = {len(digests), *(len(found[name]) for name in ("groups", "positions", "points"))}
        if lengths | {len(training)} != {len(training.names)}:
            raise ValueError("the record of the training images is damaged")
        if training.limits.shape != (2,) or not (training.limits >= 0).all():
            raise ValueError("the record of the training images is damaged: its limits")
        if len(training.usual) != len(np.unique(training.labels)):
            raise ValueError("the record of the training images is damaged: usual distances")
        return training

    def check(self, n_features: int, classes: NDArray[Any]) -> None:
        """Raise a ValueError unless they fit a model of so many features and these classes."""
        if self.n_features != n_features:
            raise ValueError(
                f"the training images have {self.n_features} features where the encoder gives "
                f"{n_features}"
            )
        width = min(n_features, N_DIRECTIONS)
        if not self.points.shape[1] == self.empty.shape[1] == width:
            raise ValueError("the record of the training images is damaged: its points")
        if not np.isin(self.labels, classes).all():
            raise ValueError("training images have labels that are not among the classes")


@dataclass(frozen=True)
class ImageFormats:
    """Types of pixels in files ("float" for any floating point), shortest and longest side."""

    dtypes: tuple[str, ...]
    sides: tuple[int, int]

    def __post_init__(self) -> None:
        shortest, longest = self.sides
        if not 0 < shortest <= longest or not all(isinstance(each, str) for each in self.dtypes):
            raise ValueError("the record of the training images is damaged: their formats")

    @classmethod
    def of(cls, images: Sequence[ImageInfo]) -> ImageFormats:
        sides = [side for image in images for side in image.shape[:2]]
        return cls(tuple(sorted(set(map(_kind_of_pixels, images)))), (min(sides), max(sides)))

    def differences(
        self, images: Sequence[ImageInfo], *, with_types: bool, with_sizes: bool
    ) -> list[str]:
        """Return sentences on files that differ from those of all training images.

        They differ in the type of their pixels, or in size by more than a factor of two.
        """
        sentences, n_images = [], counted(len(images), "image")
        others = [kind for kind in map(_kind_of_pixels, images) if kind not in self.dtypes]
        if others and with_types:
            sentences.append(
                f"{len(others)} of {n_images} {verb(len(others), 'has', 'have')} pixels of another "
                f"type ({', '.join(sorted(set(others)))}) than all training images "
                f"({', '.join(self.dtypes)}): their brightness may differ once it is scaled"
            )
        shortest, longest = self.sides
        sizes = [image.shape for image in images if with_sizes and self._is_far(image)]
        if sizes:
            height, width = sizes[0][:2]
            known = f"{shortest}" if shortest == longest else f"{shortest} to {longest}"
            sentences.append(
                f"{len(sizes)} of {n_images} {verb(len(sizes), 'is', 'are')} of another size, such "
                f"as {height} x {width} pixels, than all training images (sides of {known} "
                "pixels): details may have another size for the network"
            )
        return sentences

    def _is_far(self, image: ImageInfo) -> bool:
        shortest, longest = self.sides
        height, width = image.shape[:2]
        return max(height, width) < shortest / 2 or min(height, width) > 2 * longest


def _kind_of_pixels(image: ImageInfo) -> str:
    return "float" if image.dtype.startswith("float") else image.dtype
