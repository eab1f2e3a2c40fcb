"""What is known of parts, against plain loops, before and after some are joined."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from benchmarks.particles import train_joining
from benchmarks.particles.train_joining import drawn
from hypervlad.common.dense import stored_arrays
from hypervlad.particles.joining import Joiner, PartGraph
from hypervlad.particles.scales import Scales


def random_field(seed):
    """Labels of parts, fields in 255 steps, and labels of a smaller scale."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 5, (40, 5)).repeat(4, axis=0).repeat(3, axis=1)[:150]
    _, labels = np.unique(blocks, return_inverse=True)
    fields = rng.integers(0, 256, (3, *blocks.shape)).astype(np.uint8)
    coarse = rng.integers(0, 3, (15, 2)).repeat(10, axis=0).repeat(8, axis=1)[:150, :15]
    return labels.reshape(blocks.shape).astype(np.int32), fields, coarse.astype(np.int32)


def measured_in_loops(labels, fields, coarse):
    """Of each part: sums, largest depth and shared pixels. Of each pair: sums, and the way."""
    depth = np.sqrt(fields[1].astype(float) * fields[2]) / 255 * (fields[0] < 180)
    depth = ndimage.gaussian_filter(depth, 1, radius=4)
    parts, borders = {}, {}
    for row, column in zip(*np.nonzero(labels), strict=True):
        own = parts.setdefault(labels[row, column], [np.zeros(7), 0.0, np.zeros(3)])
        squares = (row * row, row * column, column * column)
        own[0] += (1, row, column, *squares, fields[0, row, column] / 255)
        own[1] = max(own[1], depth[row, column])
        own[2][coarse[row, column]] += 1
        for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
            there = row + down, column + right
            if there[0] < len(labels) and 0 <= there[1] < labels.shape[1] and labels[there]:
                ends = tuple(sorted((labels[row, column], labels[there])))
                if ends[0] != ends[1]:
                    both = [(each[row, column], each[there]) for each in (depth, *fields[[1, 0]])]
                    border = borders.setdefault(ends, [np.zeros(4), 0.0])
                    border[0] += (1, *(np.mean(pair) for pair in both)) / np.array([1, 1, 255, 255])
                    border[1] = max(border[1], min(both[0]))
    return parts, borders


def assert_measured(graph, labels, fields, coarse):
    parts, borders = measured_in_loops(labels, fields, coarse)
    for number, (sums, peak, shared) in parts.items():
        np.testing.assert_allclose(graph.parts[number - 1], [*sums, peak], rtol=1e-4)
        np.testing.assert_array_equal(graph.shared[[number - 1]].toarray()[0], shared[1:])
    assert {tuple(pair) for pair in graph.pairs + 1} == {*borders}
    for pair, own in zip(graph.pairs + 1, graph.borders, strict=True):
        sums, way = borders[tuple(pair)]
        np.testing.assert_allclose(own, [*sums, way], rtol=1e-4)


def described(mask):
    """Axes of an ellipse of equal second moments, and the share of it that a mask has."""
    moments = np.cov(np.nonzero(mask), bias=True) + np.eye(2) / 12
    short, long = 4 * np.sqrt(np.linalg.eigvalsh(moments))
    return long, short, mask.sum() / (np.pi / 4 * long * short)


def assert_described(graph, labels, coarse):
    """One pair, feature by feature."""
    features = graph.features(np.arange(len(graph.pairs)))
    assert np.isfinite(features).all()
    peaks = graph.parts[:, -1]
    a, b = sorted(graph.pairs[0], key=lambda part: -peaks[part])
    length, depth, inner, outer, way = graph.borders[0]
    masks = [labels == a + 1, labels == b + 1]
    masks.append(masks[0] | masks[1])
    (long_a, short_a, _), (long_b, short_b, _), _ = ellipses = list(map(described, masks))
    area_a, area_b, area = (mask.sum() for mask in masks)
    small, large = sorted((area_a, area_b))
    away = np.hypot(*(np.mean(np.nonzero(masks[0]), 1) - np.mean(np.nonzero(masks[1]), 1)))
    there = [[(mask & (coarse == k)).sum() for k in (1, 2)] for mask in masks]
    most = int(np.argmax(there[2]))
    expected = [
        *(way, way / peaks[b], depth / length / peaks[b], peaks[a], peaks[b]),
        *(inner / length, outer / length, graph.parts[a, 6] / area_a, graph.parts[b, 6] / area_b),
        *(length / small**0.5, length / min(short_a, short_b), length / min(long_a, long_b)),
        *(away / (small**0.5 + large**0.5), np.log(small / large), np.log(area)),
        *(share for *_, share in ellipses),
        *(short / long for long, short, _ in ellipses),
        sum(min(x / area_a, y / area_b) for x, y in zip(*there[:2], strict=True)),
        there[2][most] / area,
        np.log(there[2][most] / (coarse == most + 1).sum() + 1e-3),
        1 - sum(there[2]) / area,
    ]
    np.testing.assert_allclose(features[0], expected, rtol=1e-4)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10**6))
def test_parts_and_borders_are_those_of_plain_loops_also_when_joined(seed):
    labels, fields, coarse = random_field(seed)
    graph = PartGraph.of(labels, fields, coarse)
    assert_measured(graph, labels, fields, coarse)
    assert_described(graph, labels, coarse)
    new = np.random.default_rng(seed).integers(0, 2, len(graph.parts))
    new = np.unique(new, return_inverse=True)[1]
    joined = graph.joined(new)
    assert_measured(joined, np.append(0, new + 1)[labels], fields, coarse)


class Listed(Joiner):
    """Joins in the order of a list of pairs and their probabilities."""

    def __init__(self, probabilities):
        super().__init__({})
        self.probabilities, self.seen = probabilities, []

    def probability(self, graph, rows):
        first = np.unique(graph.numbers, return_index=True)[1] + 1
        ends = [frozenset(first[pair].tolist()) for pair in graph.pairs[rows]]
        self.seen.append({*map(tuple, map(sorted, ends))})
        return np.array([self.probabilities.get(each, 0.0) for each in ends])


def test_the_likeliest_are_joined_first_and_each_once_per_round():
    labels = np.repeat([[1, 2, 3, 4, 5]], 4, axis=0).repeat(4, axis=1).astype(np.int32)
    fields = np.full((3, *labels.shape), 100, np.uint8)
    pairs = {(1, 2): 0.79, (2, 3): 0.75, (3, 4): 0.7, (4, 5): 0.95, (1, 3): 0.6}
    joiner = Listed({frozenset(pair): each for pair, each in pairs.items()})
    joined, doubt = joiner.join(labels.copy(), fields, None)
    beside = {(1, 2), (2, 3), (3, 4)}
    assert joiner.seen == [{*beside, (4, 5)}, {(3, 4)}, {(1, 3)}, {(1, 3)}, set()]
    np.testing.assert_array_equal(joined.pieces[0, ::4], [1, 2, 3, 4, 4])
    particles = joined.particles()
    np.testing.assert_array_equal(particles[0, ::4], [1, 1, 2, 2, 2])
    assert doubt.between(particles, 16) == (1, 4)
    assert doubt.between(particles, 17) == (1, 2), "pieces of 16 pixels are too small"
    particles[particles == 2] = 0
    particles[particles == 1] = 3  # others were dropped
    assert doubt.between(particles, 16) == (1, 2), "of what was found"
    particles = np.kron([[1], [2], [3]], np.ones((16, 20), np.int32)).astype(np.int32)
    assert doubt.between(particles, 16) == (3, 3), "pieces of other particles do not count"


def test_a_joiner_is_trained_on_what_the_finder_compares(tmp_path):
    out = tmp_path / "joining.npz"
    train_joining.main(["--fields", "2", "--rounds", "2", "--epochs", "1", "--out", str(out)])
    found = Scales(drawn(5)[0], 20, Joiner(stored_arrays(out))).found("bright")
    assert found.labels.shape == (train_joining.SIDE,) * 2
    with pytest.raises(SystemExit):
        train_joining.main(["--rounds", "1", "--out", str(out)])
