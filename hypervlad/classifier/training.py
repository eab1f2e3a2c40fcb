"""What a model remembers of the images it learnt from: names, classes, and where they lie."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import pairwise_distances_chunked
from sklearn.random_projection import SparseRandomProjection

from hypervlad.conformal import weighted_limit

N_NEAREST = 3
_DIRECTIONS = 256
CHUNK_MB = 64  # of distances at a time
_UNUSUAL = 0.02  # of images like those learnt from


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """The labelled images given to ``fit``, those that could be read.

    Attributes
    ----------
    names : list of n str
        Paths below the folder that all of them lie in, with forward slashes; "" for an array.
    labels : ndarray of shape (n,)
    groups : ndarray of int, shape (n,)
    positions : ndarray of int, shape (n,)
        Of each in the list given to ``fit``.
    points : ndarray of float32, shape (n, d)
        Their vectors, as `projected` gives them.
    limit : float
        An image like these lies as a rule no farther from its nearest three than this: a fiftieth
        of the images lies farther from those of other groups, each group counting as much as
        another; of fewer than fifty groups, none does.
    """

    names: list[str]
    labels: NDArray[Any]
    groups: NDArray[np.intp]
    positions: NDArray[np.intp]
    points: NDArray[np.float32]
    limit: float

    @classmethod
    def of(
        cls,
        images: Sequence[Any],
        labels: NDArray[Any],
        groups: NDArray[np.intp],
        positions: NDArray[np.intp],
        points: NDArray[np.float32],
    ) -> TrainingImages:
        """Remember images; see the attributes."""
        usual = np.concatenate([far for _, far in _nearest(points, points, groups)])
        limit = weighted_limit(usual, groups, _UNUSUAL)
        return cls(names_below(images), labels, groups, positions, points, limit)

    def __len__(self) -> int:
        return len(self.labels)

    def nearest(self, points: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Find the training images nearest to new ones.

        Parameters
        ----------
        points : ndarray of shape (m, d)
            As `projected` gives them.

        Returns
        -------
        rows : ndarray of int, shape (m, k)
            Of the nearest three, or all if there are fewer, nearest first.
        novelty : ndarray of float, shape (m,)
            The mean of their distances, over the limit: above 1 is unusual.
        """
        found = list(_nearest(points, self.points))
        far = np.concatenate([distances for _, distances in found])
        return np.concatenate([rows for rows, _ in found]), far / max(
            self.limit, np.finfo(np.float64).tiny
        )

    def to_state(
        self, classes: NDArray[Any], n_features: int
    ) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return header and arrays; labels as positions among the classes."""
        return {"names": self.names}, {
            "codes": np.searchsorted(classes, self.labels),
            "groups": self.groups,
            "positions": self.positions,
            "points": self.points,
            "limit": np.array([self.limit]),
            "probe": _probe(n_features),
        }

    @classmethod
    def from_state(
        cls,
        header: Mapping[str, Any],
        arrays: Mapping[str, NDArray[Any]],
        classes: NDArray[Any],
    ) -> TrainingImages:
        """Undo `to_state`; ValueError if the arrays do not fit together."""
        names, codes = [str(name) for name in header["names"]], arrays["codes"]
        groups, positions, points = (arrays[name] for name in ("groups", "positions", "points"))
        limit = float(arrays["limit"][0])
        if {len(codes), len(groups), len(positions), len(points)} != {len(names)} or not names:
            raise ValueError("what is known of the training images is damaged")
        if not 0 <= codes.min() <= codes.max() < len(classes) or not limit >= 0:
            raise ValueError("what is known of the training images is damaged")
        if points.ndim != 2 or not np.isfinite(points).all():
            raise ValueError("what is known of the training images is damaged")
        return cls(names, classes[codes], groups, positions, points, limit)


def projected(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Bring vectors (n, p) onto 256 random directions, always the same; (n, p) if p is less.

    Distances stay as they are to about a sixteenth (D. Achlioptas, "Database-friendly random
    projections", Journal of Computer and System Sciences 66, 2003; P. Li, T. Hastie and K. Church,
    "Very sparse random projections", KDD 2006).
    """
    if not len(vectors):
        return np.empty((0, min(vectors.shape[1], _DIRECTIONS)), dtype=np.float32)
    if vectors.shape[1] <= _DIRECTIONS:
        return vectors.astype(np.float32)
    directions = SparseRandomProjection(_DIRECTIONS, dense_output=True, random_state=0)
    directions.fit(np.zeros((1, vectors.shape[1]), dtype=np.float32))
    return np.asarray(directions.transform(vectors), dtype=np.float32)


def check_directions(probe: NDArray[np.floating], n_features: int) -> None:
    """Raise a ValueError unless `projected` is what it was when a model was saved."""
    now = _probe(n_features)
    if probe.shape != now.shape or not np.allclose(probe, now, atol=1e-3):
        raise ValueError("this version of scikit-learn draws other random directions")


def _probe(n_features: int) -> NDArray[np.float32]:
    """Return what tells directions from others: where one vector comes to lie."""
    return projected(np.cos(np.arange(n_features, dtype=np.float64))[None].astype(np.float32))


def names_below(images: Sequence[Any]) -> list[str]:
    """Name files by their paths below the folder that all of them lie in; arrays not at all."""
    paths = [
        Path(os.path.abspath(image)) if isinstance(image, str | os.PathLike) else None
        for image in images
    ]
    parents = [path.parent for path in paths if path is not None]
    try:
        root = Path(os.path.commonpath(parents)) if parents else Path()
    except ValueError:  # two drives of Windows
        return ["" if path is None else path.name for path in paths]
    return ["" if path is None else path.relative_to(root).as_posix() for path in paths]


def _nearest(
    points: NDArray[np.float32], known: NDArray[np.float32], groups: NDArray[Any] | None = None
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float64]]]:
    """Find rows and mean distance of the nearest known points, some points at a time.

    With groups, of points that are the known ones themselves: the nearest of other groups. The
    distance is infinite where there are none.
    """
    k = min(N_NEAREST, len(known))
    start = 0
    for distances in pairwise_distances_chunked(points, known, working_memory=CHUNK_MB):
        if groups is not None:
            own = groups[start : start + len(distances), None]
            distances[own == groups[None]] = np.inf
        start += len(distances)
        rows = np.argpartition(distances, k - 1, axis=1)[:, :k]
        near = np.take_along_axis(distances, rows, axis=1)
        order = np.argsort(near, axis=1, kind="stable")
        near = np.take_along_axis(near, order, axis=1).astype(np.float64)
        yield np.take_along_axis(rows, order, axis=1), _mean_of_finite(near)


def _mean_of_finite(near: NDArray[np.float64]) -> NDArray[np.float64]:
    there = np.isfinite(near)
    sums = np.where(there, near, 0).sum(axis=1)
    return np.where(there.any(axis=1), sums / np.maximum(there.sum(axis=1), 1), np.inf)
