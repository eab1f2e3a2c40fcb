"""What is known of parts, against plain loops, before and after some are joined."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from hypervlad.particles.joining import Joiner, PartGraph


def random_field(seed):
    """Labels of parts, fields in 255 steps, and labels of a smaller scale."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 5, (40, 5)).repeat(4, axis=0).repeat(3, axis=1)[:150]
    _, labels = np.unique(blocks, return_inverse=True)
    fields = rng.integers(0, 256, (4, *blocks.shape)).astype(np.uint8)
    coarse = rng.integers(0, 3, (15, 2)).repeat(10, axis=0).repeat(8, axis=1)[:150, :15]
    return labels.reshape(blocks.shape).astype(np.int32), fields, coarse.astype(np.int32)


def measured_in_loops(labels, fields, coarse):
    """Of each part: sums, largest depth and shared pixels. Of each pair: sums, and the way."""
    depth = np.sqrt(fields[1].astype(float) * fields[3]) / 255 * (fields[0] < 180)
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


@settings(max_examples=5)
@given(st.integers(0, 10**6))
def test_parts_and_borders_are_those_of_plain_loops_also_when_joined(seed):
    labels, fields, coarse = random_field(seed)
    graph = PartGraph.of(labels, fields, coarse)
    assert_measured(graph, labels, fields, coarse)
    new = np.random.default_rng(seed).integers(0, 2, len(graph.parts))
    new = np.unique(new, return_inverse=True)[1]
    joined = graph.joined(new)
    assert_measured(joined, np.append(0, new + 1)[labels], fields, coarse)
    assert np.isfinite(joined.features()).all()


class Listed(Joiner):
    """Joins in the order of a list of pairs and their probabilities."""

    def __init__(self, probabilities):
        super().__init__({})
        self.probabilities, self.seen = probabilities, []

    def probability(self, graph, numbers):
        first = [np.flatnonzero(numbers == part).min() + 1 for part in range(len(graph.parts))]
        ends = [frozenset((first[a], first[b])) for a, b in graph.pairs]
        self.seen.append({*map(tuple, map(sorted, ends))})
        return np.array([self.probabilities.get(each, 0.0) for each in ends])


def test_the_likeliest_are_joined_first_and_each_once_per_round():
    labels = np.repeat([[1, 2, 3, 4, 5]], 4, axis=0).repeat(4, axis=1).astype(np.int32)
    fields = np.full((4, *labels.shape), 100, np.uint8)
    likely = {(1, 2): 0.9, (2, 3): 0.8, (3, 4): 0.7, (4, 5): 0.75, (1, 3): 0.6}
    joiner = Listed({frozenset(pair): each for pair, each in likely.items()})
    joined = joiner.joined(labels.copy(), fields, None)
    assert joiner.seen == [{(1, 2), (2, 3), (3, 4), (4, 5)}, {(1, 3), (3, 4)}, {(1, 3)}]
    np.testing.assert_array_equal(joined[0, ::4], [1, 1, 2, 2, 2])
