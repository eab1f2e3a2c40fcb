"""Parts of a field that are one particle are joined: a small network learnt from drawn fields."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.special import expit

from hypervlad.common.dense import DenseLayers
from hypervlad.common.progress import one_blas_thread
from hypervlad.images.resampling import areas_of
from hypervlad.objects.splitting import NEIGHBOURS, numbers_of, smoothed_depth, values_of
from hypervlad.objects.windows import LabelMap
from hypervlad.particles.decoder import particle_depth
from hypervlad.particles.doubt import Doubt
from hypervlad.particles.training_fields import at_own_scale

# Parts are joined above this probability of being one particle. It is above one half, as a wrong
# join loses two particles, and a missed one loses one. The others say how many there may be.
LIKELY = 2 / 3
_SURE, _POSSIBLE = 0.8, 0.2
CLIPPED = 6.0  # standard deviations of the features of the training
_STORED = "joining.npz"  # by `python -m benchmarks.particles.train_joining`
_ROWS, _PAIRS = 128, 1 << 16  # that are measured at once
_LEAST = 0.02  # depth, as ratios of less are noise

# What is known of a part: sums over its pixels, and its largest depth.
_AREA, _Y, _X, _YY, _YX, _XX, _BACKGROUND, _PEAK = range(8)
# Of a border: sums over pairs of pixels on both sides, and the largest of their lesser depths.
_LENGTH, _DEPTH, _INNER, _OUTER, _WAY = range(5)


@dataclass(frozen=True, eq=False)
class PartGraph:
    """The parts of a field, the borders between them, and what a smaller scale has there.

    All are numbers that add up, or of which the largest counts, when parts are joined.
    """

    parts: NDArray[np.float64]  # (n, 8)
    pairs: NDArray[np.int64]  # (m, 2), parts on both sides of a border, the lower number first
    borders: NDArray[np.float64]  # (m, 5)
    shared: csr_array  # (n, k), pixels that parts share with particles found on the smaller scale
    areas: NDArray[np.float64]  # (k,), those of these particles, in pixels of this scale
    numbers: NDArray[np.int64]  # (n_labels,), the part that each label now belongs to
    pixels: NDArray[np.int64]  # (n_labels,), the index of the deepest pixel of each label

    @classmethod
    def of(cls, labels: LabelMap, fields: NDArray[np.uint8], coarse: LabelMap | None) -> PartGraph:
        """Measure the parts of a label image by its fields (3, H, W), strip by strip.

        `coarse` has the size of `labels`.
        """
        n, depths = int(labels.max(initial=0)), partial(particle_depth, fields)
        areas = np.zeros(0) if coarse is None else areas_of(coarse, int(coarse.max(initial=0)))[1:]
        parts, shared = np.zeros((n, _PEAK + 1)), csr_array((n, len(areas)))
        pixels = np.zeros(n, np.int64)
        borders = [(np.empty(0, np.int64), np.empty((0, _WAY + 1)))]
        for top in range(0, len(labels), _ROWS):
            below = min(top + _ROWS, len(labels))
            strip = slice(top, min(below + 1, len(labels))), slice(0, labels.shape[1])
            depth = smoothed_depth(depths, strip)
            background, inner = fields[:2, *strip] / np.float32(255)
            found = _borders(labels[strip], (depth, inner, background), n, below - top)
            borders += (_sums(*each, _WAY) for each in found)
            y, x = np.nonzero(labels[top:below])
            of, at = labels[top:below][y, x] - 1, y + top
            sums = (np.ones(len(of)), at, x, at * at, at * x, x * x, background[y, x])
            for column, values in enumerate(sums):
                parts[:, column] += np.bincount(of, values, n)
            np.maximum.at(parts[:, _PEAK], of, depth[y, x])
            is_deepest = depth[y, x] == parts[of, _PEAK]
            pixels[of[is_deepest]] = (at * labels.shape[1] + x)[is_deepest]
            if coarse is not None:
                there = coarse[top:below][y, x]
                both = of[there > 0], there[there > 0] - 1
                shared = shared + coo_array((np.ones(len(both[0])), both), shared.shape).tocsr()
        codes, rows = map(np.concatenate, zip(*borders, strict=True))
        codes, rows = _sums(codes, rows, _WAY)
        pairs = np.stack(np.divmod(codes, max(n, 1)), axis=1)
        return cls(parts, pairs, rows, shared, areas.astype(float), np.arange(n), pixels)

    def seen(self, numbers: NDArray[np.int64]) -> PartGraph:
        """Return the graph where particles of one number are one on the smaller scale."""
        numbers = numbers[: len(self.areas)]  # the last may be lost in the size of this one
        to = len(numbers), int(numbers.max(initial=-1)) + 1
        of = coo_array((np.ones(len(numbers)), (np.arange(len(numbers)), numbers)), to).tocsr()
        return replace(self, shared=(self.shared @ of).tocsr(), areas=self.areas @ of)

    def joined(self, new: NDArray[np.int64]) -> PartGraph:
        """Return the graph of what parts of one new number form together."""
        n, before = int(new.max(initial=-1)) + 1, np.arange(len(new))
        ends = np.sort(new[self.pairs], axis=1)
        is_left = ends[:, 0] < ends[:, 1]
        codes, borders = _sums(ends[is_left] @ np.array([n, 1]), self.borders[is_left], _WAY)
        to = coo_array((np.ones(len(before)), (new, before)), (n, len(before))).tocsr()
        shared, (_, parts) = (to @ self.shared).tocsr(), _sums(new, self.parts, _PEAK)
        pairs, numbers = np.stack(np.divmod(codes, max(n, 1)), axis=1), new[self.numbers]
        return PartGraph(parts, pairs, borders, shared, self.areas, numbers, self.pixels)

    def features(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Describe some of the pairs, shape (len(rows), 25); only one has a unit: the area."""
        ends = self.pairs[rows]
        is_second = self.parts[ends[:, 0], _PEAK] < self.parts[ends[:, 1], _PEAK]
        ends[is_second] = ends[is_second, ::-1]  # the deeper one first
        a, b = self.parts[ends.T]
        length, depth, inner, outer, way = self.borders[rows].T
        (middle_a, long_a, short_a, _), (middle_b, long_b, short_b, _), _ = ellipses = [
            _ellipse(each) for each in (a, b, a + b)
        ]
        small, large = np.sort([a[:, _AREA], b[:, _AREA]], axis=0)
        peak = np.maximum(b[:, _PEAK], _LEAST)
        columns = [
            way,
            way / peak,
            depth / length / peak,
            a[:, _PEAK],
            b[:, _PEAK],
            inner / length,
            outer / length,
            a[:, _BACKGROUND] / a[:, _AREA],
            b[:, _BACKGROUND] / b[:, _AREA],
            length / np.sqrt(small),
            length / np.minimum(short_a, short_b),
            length / np.minimum(long_a, long_b),
            np.hypot(*(middle_a - middle_b)) / (np.sqrt(small) + np.sqrt(large)),
            np.log(small / large),
            np.log(small + large),
            *(share for *_, share in ellipses),
            *(short / long for _, long, short, _ in ellipses),
            *self._on_smaller_scale(*ends.T),
        ]
        return np.stack(columns, axis=1)

    def _on_smaller_scale(
        self, a: NDArray[np.int64], b: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], ...]:
        """Return what a smaller scale shows of pairs, 0 where it shows nothing.

        The share of both that belongs to one particle there; the share of the pair that belongs to
        the particle which has most of it; the logarithm of the share of that particle which the
        pair covers; and the share of the pair that belongs to none.
        """
        n, k = len(a), len(self.areas)
        (codes_a, pixels_a), (codes_b, pixels_b) = (self._shared_of(each) for each in (a, b))
        codes, at = np.unique(np.concatenate([codes_a, codes_b]), return_inverse=True)
        of_a = np.bincount(at[: len(codes_a)], pixels_a, len(codes))
        of_b = np.bincount(at[len(codes_a) :], pixels_b, len(codes))
        pair, particle = np.divmod(codes, max(k, 1))
        of_both, areas = of_a + of_b, self.parts[:, _AREA]
        same: NDArray[Any] = np.bincount(
            pair, np.minimum(of_a / areas[a[pair]], of_b / areas[b[pair]]), n
        )
        of_all, most, whole = np.bincount(pair, of_both, n), np.zeros(n), np.ones(n)
        np.maximum.at(most, pair, of_both)
        is_most = of_both == most[pair]
        whole[pair[is_most]] = self.areas[particle[is_most]]
        is_there = of_all > 0
        covered = np.log(np.where(is_there, most / whole + 1e-3, 1))
        area = areas[a] + areas[b]
        return same, most / area, covered, np.where(is_there, 1 - of_all / area, 0)

    def _shared_of(self, parts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return what the parts of numbered pairs share with particles, and a code of both."""
        first, counts = self.shared.indptr[parts], np.diff(self.shared.indptr)[parts]
        pair = np.repeat(np.arange(len(parts)), counts)
        before = np.cumsum(counts) - counts
        at = np.arange(len(pair)) + np.repeat(first - before, counts)
        return pair * len(self.areas) + self.shared.indices[at], self.shared.data[at]


@dataclass(frozen=True, eq=False)
class Joined:
    """Pieces that sure joins leave of a field, and which of them are one particle.

    That is the number, from 0, of the particle that each of n pieces belongs to, if likely joins
    are made, and if all possible ones are.
    """

    pieces: LabelMap  # (H, W), from 1
    likely: NDArray[np.int64]  # (n,)
    possible: NDArray[np.int64]  # (n,)

    def particles(self, out: LabelMap | None = None) -> LabelMap:
        """Return the labels of likely particles, from 1."""
        out = np.empty(self.pieces.shape, np.int32) if out is None else out
        return values_of(self.pieces, np.append(0, self.likely + 1), out)

    def within(self, particles: LabelMap) -> Joined:
        """Return the pieces that are in some of the likely particles, in few bits."""
        is_in = particles > 0
        own = np.zeros(len(self.likely) + 1, np.int32)
        own[self.pieces[is_in]] = particles[is_in]
        pieces = values_of(self.pieces, numbers_of(own > 0), self.pieces)
        pieces[~is_in] = 0
        is_kept = own[1:] > 0
        likely, possible = (
            np.unique(each[is_kept], return_inverse=True)[1] for each in (own[1:], self.possible)
        )
        return Joined(pieces.astype(np.min_scalar_type(len(likely))), likely, possible)

    def in_size(self, size: tuple[int, ...]) -> Joined:
        """Bring the pieces to the size of another scale."""
        return replace(self, pieces=at_own_scale(self.pieces, size))


class Joiner(DenseLayers):
    """Says which parts of a field are one particle: a network of two hidden layers."""

    @classmethod
    def pretrained(cls) -> Joiner:
        """Return the joiner that was trained on drawn fields."""
        return cls.stored(__package__, _STORED)

    def join(
        self, labels: LabelMap, fields: NDArray[np.uint8], coarse: Joined | None
    ) -> tuple[Joined, Doubt]:
        """Join, in place, the parts of fields (3, H, W).

        `coarse` is what was joined on a smaller scale, in the size of `labels`. In each round, two
        parts are joined if each is the other's most probable partner.
        """
        graph = PartGraph.of(labels, fields, None if coarse is None else coarse.pieces)
        seen = (None, None, None) if coarse is None else (None, coarse.likely, coarse.possible)
        own, known, found = graph, None, list[PartGraph]()
        with one_blas_thread():
            for least, by in zip((_SURE, LIKELY, _POSSIBLE), seen, strict=True):
                if by is not None and len(np.unique(by)) < len(by):
                    own, known = graph.seen(by).joined(own.numbers), None
                own, known = self._joined(own, known, least)
                found.append(own)
        sure, *others = found
        by_depth = np.argsort(graph.parts[:, _PEAK], kind="stable")
        of_part = (graph.pixels, *(each.numbers for each in others))
        of_piece = [np.zeros(len(sure.parts), np.int64) for _ in of_part]
        for to, values in zip(of_piece, of_part, strict=True):
            to[sure.numbers[by_depth]] = values[by_depth]  # of the deepest part
        pixels, likely, possible = of_piece
        pieces = np.append(0, sure.numbers + 1).astype(np.int32)
        joined = Joined(values_of(labels, pieces, labels), likely, possible)
        areas = sure.parts[:, _AREA]
        return joined, Doubt(pixels, areas, sure.parts[:, _BACKGROUND] / areas, possible)

    def _joined(
        self, graph: PartGraph, known: NDArray[np.float64] | None, least: float
    ) -> tuple[PartGraph, NDArray[np.float64]]:
        """Join pairs of more than the least probability; return those of the others, too."""
        if known is None:
            known = self.probability(graph, np.arange(len(graph.pairs)))
        while (merges := _merges(graph, known, least)).size:
            new = np.arange(len(graph.parts))
            new[merges[:, 1]] = merges[:, 0]
            new = np.unique(new, return_inverse=True)[1]
            is_changed = np.zeros(len(graph.parts), bool)
            is_changed[new[merges[:, 0]]] = True
            before = known[~is_changed[new[graph.pairs]].any(axis=1)]
            graph = graph.joined(new)
            # Pairs of unchanged parts keep their order, as numbers do.
            is_new = np.asarray(is_changed[graph.pairs].any(axis=1))
            known = np.empty(len(is_new))
            known[~is_new] = before
            known[is_new] = self.probability(graph, np.flatnonzero(is_new))
        return graph, known

    def probability(self, graph: PartGraph, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return, for some pairs of a graph, the probability that both parts are one particle."""
        blocks = np.array_split(rows, range(_PAIRS, len(rows), _PAIRS))
        return np.concatenate([self._of_features(graph.features(some)) for some in blocks])

    def _of_features(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        values = (features - self.weights["mean"]) / self.weights["deviation"]
        hidden = self.hidden(values.clip(-CLIPPED, CLIPPED), "first", "second")
        return np.asarray(expit(self.layer("last", hidden))[:, 0])


def _merges(graph: PartGraph, probability: NDArray[np.float64], least: float) -> NDArray[np.int64]:
    """Return the pairs in which each part is the other's most probable, and probable, partner."""
    rank = np.empty(len(probability), np.int64)
    rank[np.argsort(probability, kind="stable")] = np.arange(1, len(probability) + 1)
    rank[probability <= least] = 0
    best = np.zeros(len(graph.parts), np.int64)
    np.maximum.at(best, graph.pairs, rank[:, None])
    is_merged = (rank > 0) & (rank[:, None] == best[graph.pairs]).all(axis=1)
    return np.asarray(graph.pairs[is_merged])


def _borders(
    labels: LabelMap, values: tuple[NDArray[np.float32], ...], n: int, n_rows: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Yield codes of the parts of pairs of pixels, and what is known of the pairs.

    One more row than `n_rows` is the first of the next strip, which has the pairs within it.
    """
    for here, there in NEIGHBOURS:
        one, other = labels[here], labels[there]
        meets = (one != other) & (one > 0) & (other > 0)
        meets[n_rows:] = False
        low, high = np.sort([one[meets], other[meets]], axis=0).astype(np.int64) - 1
        depths, *others = [(each[here][meets], each[there][meets]) for each in values]
        means = [(first + second) / 2 for first, second in (depths, *others)]
        yield low * n + high, np.stack([np.ones(len(low)), *means, np.minimum(*depths)], axis=1)


def _sums(
    codes: NDArray[np.int64], rows: NDArray[np.float64], n_sums: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return each code once, the sums of its rows, and the largest of their last columns."""
    each, of = np.unique(codes, return_inverse=True)
    found = np.zeros((len(each), rows.shape[1]))
    for column in range(n_sums):
        found[:, column] = np.bincount(of, rows[:, column], len(each))
    np.maximum.at(found[:, n_sums:], of, rows[:, n_sums:])
    return each, found


def _ellipse(
    parts: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the middle (2, n) and the axes of ellipses of equal second moments, and the share of
    their area that parts have, 1 if these are ellipses.
    """
    area = parts[:, _AREA]
    y, x, yy, yx, xx = parts[:, _Y : _XX + 1].T / area
    of_pixel = 1 / 12
    middle, half = (yy - y**2 + xx - x**2) / 2 + of_pixel, (yy - y**2 - xx + x**2) / 2
    turned = np.hypot(half, yx - y * x)
    long, short = 4 * np.sqrt(middle + turned), 4 * np.sqrt(np.maximum(middle - turned, of_pixel))
    return np.stack([y, x]), long, short, area / (np.pi / 4 * long * short)
