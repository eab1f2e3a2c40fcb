"""The model of defect-free images, against slow ways to the same scores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hypervlad.features.windows import WindowGrid
from hypervlad.features.windows.vectors import PaddedMaps
from hypervlad.models.defects.cells import (
    DESCRIPTIONS,
    Description,
    cells_of,
    describe,
    mean_and_deviation,
    places_of,
    resized,
    sharpened,
)
from hypervlad.models.defects.normal_images import (
    NormalCells,
    NormalImages,
    NormalImagesFit,
    log_of_highest,
    weights_of,
)


def fitted(
    rows: NDArray[Any], n_codewords: int = 1, how: Description = DESCRIPTIONS[0]
) -> NormalCells:
    return NormalCells.fit(how, rows, n_codewords, seed=0)


def model_of(part: NormalCells) -> NormalImages:
    parts = tuple(replace(part, description=each) for each in DESCRIPTIONS)
    weights = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    return NormalImages(parts, weights, np.log(np.array([2, 1, 1, 2], np.float32)))


def as_cells(rows: NDArray[Any]) -> NDArray[np.float32]:
    """Cells in one row of an image."""
    return rows[None].astype(np.float32)


def test_codewords_are_whitened_and_robust() -> None:
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((5, 5)) * [1, 3, 0.2, 1, 5]
    normal = rng.standard_normal((2000, 5)) @ mixing
    # One codeword: Mahalanobis distance, with a ridge of a hundredth of the mean variance.
    covariance = np.cov(normal.T)
    covariance += 0.01 * np.trace(covariance) / 5 * np.eye(5)
    offsets = normal - normal.mean(0)
    expected = np.sqrt(np.einsum("ni,ij,nj->n", offsets, np.linalg.inv(covariance), offsets))
    single = Description(None, 1, relative=False)
    distances = fitted(normal, how=single).distances(as_cells(normal))[0]
    assert np.corrcoef(distances, expected)[0, 1] > 0.99
    odd = normal[:15] + 40
    with_odd = fitted(np.vstack([normal, odd]), how=single)
    assert with_odd.distances(as_cells(odd)).min() > 3 * with_odd.distances(as_cells(normal)).max()


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("window", [1, 3])
def test_distances_from_the_nearest_codeword(window: int, relative: bool) -> None:
    rng = np.random.default_rng(1)
    model = fitted(rng.standard_normal((300, 4)), 7, Description(None, window, relative))
    cells = (5 + rng.standard_normal((4, 5, 4)) * [1, 2, 3, 4]).astype(np.float32)
    found = model.distances(cells)
    mean, deviation = (np.zeros(4), np.ones(4))
    if relative:
        flat = cells.reshape(20, 4)
        mean, deviation = flat.mean(0), flat.std(0) + 0.3 * flat.std(0).mean()
    for row in range(4):
        for column in range(5):
            steps = range(-(window // 2), window // 2 + 1)
            inside = [
                (cells[np.clip(row + y, 0, 3), np.clip(column + x, 0, 4)] - mean) / deviation
                for y in steps
                for x in steps
            ]
            white = (np.mean(inside, axis=0) - model.mean) @ model.whitening
            nearest = min(np.linalg.norm(white - codeword) for codeword in model.codewords)
            assert found[row, column] == pytest.approx(nearest, rel=1e-4)


def test_few_or_equal_cells() -> None:
    rng = np.random.default_rng(1)
    assert len(fitted(rng.standard_normal((12, 4)), 128).codewords) == 2
    flat = fitted(np.ones((50, 4)), 3)
    assert np.isfinite(flat.distances(np.ones((2, 2, 4), np.float32))).all()
    model = flat.standardised_by([np.zeros((3, 3), np.float32)], aligned=False)
    assert np.isfinite(model.standardised(np.ones((3, 3), np.float32))).all()


@given(st.integers(1, 12), st.integers(1, 12))
def test_places_are_distances_from_both_edges(height: int, width: int) -> None:
    found = places_of((height, width))
    for y in range(height):
        for x in range(width):
            near, far = sorted([min(y, height - 1 - y, 4), min(x, width - 1 - x, 4)])
            assert found[y, x] == 5 * near + far


def test_distances_are_relative_to_those_at_the_same_distances_from_edges() -> None:
    rng = np.random.default_rng(0)
    places = places_of((30, 40))
    level = (9 - places // 5 - 0.2 * (places % 5)).astype(np.float32)
    held_out = [(level * rng.uniform(0.5, 1.5, level.shape)).astype(np.float32) for _ in range(60)]
    model = fitted(rng.standard_normal((50, 3))).standardised_by(held_out, aligned=False)
    values = np.concatenate([model.standardised(each).ravel() for each in held_out])
    of_place = np.tile(places.ravel(), 60)
    for place in np.unique(places):
        own = values[of_place == place]
        assert np.median(own) == pytest.approx(0, abs=1e-5)
        assert np.mean(own >= 1) == pytest.approx(0.1, abs=0.01)
    # An image of another size, and one so small that it has only edges.
    small_level = np.pad(level[:4, :3], ((0, 3), (0, 3)), mode="reflect")
    assert np.abs(model.standardised(small_level)).max() < 3
    small = fitted(rng.standard_normal((50, 3))).standardised_by([held_out[0][:2, :2]], False)
    assert small.usual.shape == (25,)
    assert np.unique(small.usual).size == 1


def test_scores_are_weighted_means() -> None:
    model = model_of(fitted(np.random.default_rng(0).standard_normal((50, 3))))
    shapes = {None: (6, 8), 224: (28, 28), 112: (14, 14)}
    maps = [
        np.full(shapes[part.description.side], i + 1, np.float32)
        for i, part in enumerate(model.parts)
    ]
    places, score = model.combined(maps)
    assert score == pytest.approx(0.5**0.1 * 2**0.2 * 3**0.3 * 2**0.4)
    # The first part counts four times; higher in unusual images.
    mean = (4 * 1 + 2 + 3 + 4) / 7
    expected = (mean + 0.5) * np.sqrt(score) - 0.5
    np.testing.assert_allclose(places, np.full((6, 8), expected), rtol=1e-6)
    # A defect in one cell of the last: of 196 cells it is the highest 0.1 %, half of the highest
    # 1 % and a twentieth of the highest 10 %.
    maps[3][5, 5] = 64
    highest = (64 * (64 + 4) / 2 * (64 + 19 * 4) / 20) ** (1 / 3)
    expected = 0.5**0.1 * 2**0.2 * 3**0.3 * (highest / 2) ** 0.4
    assert model.combined(maps)[1] == pytest.approx(expected, rel=1e-5)
    assert replace(model, scale=0.5).combined(maps)[1] == pytest.approx(expected / 2, rel=1e-5)


def test_a_part_in_which_an_image_is_very_usual_hides_nothing() -> None:
    assert log_of_highest(np.full((3, 3), -2, np.float32)) == 0
    values = np.array([[-2, -2], [-2, 9]], np.float32)
    assert log_of_highest(values) == pytest.approx(np.log(9))


def test_descriptions_in_which_good_images_differ_have_a_small_weight() -> None:
    weights = weights_of(np.array([1.0, 3.0]))
    assert weights.sum() == pytest.approx(1)
    assert weights[0] / weights[1] == pytest.approx(np.sqrt((9 + 4 / 9) / (1 + 4 / 9)))
    np.testing.assert_allclose(weights_of(np.zeros(4)), 0.25)


def test_two_ways_to_the_mean_and_deviation_of_an_image() -> None:
    rng = np.random.default_rng(3)
    cells = (5 + rng.standard_normal((30, 40, 4)) * [1e-4, 1, 2, 30]).astype(np.float32)
    mean, deviation = mean_and_deviation(cells)
    expected = cells.reshape(1200, 4).astype(np.float64)
    np.testing.assert_allclose(mean, expected.mean(0), rtol=1e-6)
    spread = expected.std(0)
    np.testing.assert_allclose(deviation, spread + 0.3 * spread.mean(), rtol=1e-5)
    found = (cells.reshape(1200, 4) - mean) / deviation
    np.testing.assert_allclose(found, describe(cells, 1, relative=True), atol=1e-5)


def test_relative_to_an_image_its_brightness_and_contrast_do_not_matter() -> None:
    cells = np.random.default_rng(0).random((6, 7, 5)).astype(np.float32)
    found = describe(cells, 1, relative=True)
    np.testing.assert_allclose(describe(3 * cells + 2, 1, relative=True), found, atol=1e-4)
    assert np.abs(found.mean(axis=0)).max() < 1e-5
    np.testing.assert_array_equal(describe(cells, 1, relative=False), cells.reshape(42, 5))
    # Of a channel that hardly varies, noise is not blown up; an image without any variation.
    cells[..., 0] *= 1e-4
    assert np.abs(describe(cells, 1, relative=True)[:, 0]).max() < 1e-2
    for n in (2, 14, 100):
        flat = np.full((n, n, 4), [0.1, 0.3, 0.7, 1.1], np.float32)
        assert np.abs(describe(flat, 1, True)).max() < 1e-3
        noisy = flat + 1e-7 * np.random.default_rng(0).standard_normal(flat.shape)
        assert np.abs(describe(noisy.astype(np.float32), 3, True)).max() < 1e-2
    np.testing.assert_array_equal(describe(np.zeros((2, 3, 4), np.float32), 1, True), 0)


class KnownCells:
    """In place of `CellMaps`: an image's cells at each size, by its key."""

    def __init__(self, n: int) -> None:
        rng = np.random.default_rng(0)
        shapes = {None: (9, 12), 224: (8, 8), 112: (7, 7)}
        self.of = {
            (str(i), side): (rng.gamma(2, size=(*shape, 3)) * (1 + i / n)).astype(np.float32)
            for i in range(n)
            for side, shape in shapes.items()
        }

    def kept_cells(self, key: str, size: tuple[int, int], side: int | None) -> NDArray[Any]:
        return self.of[key, side]


def test_what_is_usual_is_learnt_from_other_images() -> None:
    """Weights, levels, scale and held-out scores, with loops over images."""
    n, maps = 24, KnownCells(24)
    fit = NormalImagesFit(maps, n, 3, False, 0)  # type: ignore[arg-type]
    fit.keys, fit.sizes = {i: str(i) for i in range(n)}, dict.fromkeys(range(n), (72, 96))
    rng = np.random.default_rng(1)
    folds = [
        [NormalCells.fit(each, rng.gamma(2, size=(60, 3)), 3, seed) for each in DESCRIPTIONS]
        for seed in range(2)
    ]
    of_image = {i: folds[i % 2] for i in range(n)}
    model, without, scored = fit.finish(folds[0], of_image)
    distances = [
        [part.distances(maps.of[str(i), part.description.side]) for part in of_image[i]]
        for i in range(n)
    ]

    def learnt(
        images: list[int], fold: list[NormalCells]
    ) -> tuple[list[NormalCells], NDArray[Any], NDArray[Any]]:
        parts, logarithms = [], np.zeros((len(images), 4))
        for p, part in enumerate(fold):
            parts.append(part.standardised_by([distances[i][p] for i in images], False))
            for row, i in enumerate(images):
                logarithms[row, p] = log_of_highest(parts[p].standardised(distances[i][p]))
        spread = np.percentile(logarithms, 75, axis=0) - np.percentile(logarithms, 25, axis=0)
        weights = 1 / np.sqrt(spread**2 + (spread.mean() / 3) ** 2)
        return parts, weights / weights.sum(), np.median(logarithms, axis=0)

    parts, weights, levels = learnt(list(range(n)), folds[0])
    np.testing.assert_allclose(model.weights, weights, rtol=1e-4)
    np.testing.assert_allclose(model.levels, levels, rtol=1e-4)
    for part, expected in zip(model.parts, parts, strict=True):
        np.testing.assert_allclose(part.usual, expected.usual, rtol=1e-5)
    places, scores = [], []
    for i in range(n):
        parts, weights, levels = learnt([j for j in range(n) if j % 2 != i % 2], of_image[i])
        own = [part.standardised(each) for part, each in zip(parts, distances[i], strict=True)]
        logarithms = np.array([log_of_highest(each) for each in own])
        scores.append(np.exp(np.sum(weights * (logarithms - levels))))
        mean = np.zeros((9, 12))
        for part, each, weight in zip(parts, distances[i], (4, 1, 1, 1), strict=True):
            spread = np.cbrt(part.spread * part.spread[24] ** 2)  # a third from the place
            at = places_of(each.shape)
            mean += weight / 7 * resized((each - part.usual[at]) / spread[at], (9, 12))
        places.append((mean + 0.5) * np.sqrt(scores[-1]) - 0.5)
    scale = np.median([each.max() / score for each, score in zip(places, scores, strict=True)])
    assert model.scale == pytest.approx(scale, rel=1e-4)  # of 108 places, the highest 1 % is one
    for i in range(n):
        np.testing.assert_allclose(scored[i][0], places[i], rtol=1e-3, atol=1e-4)
        assert scored[i][1] == pytest.approx(scale * scores[i], rel=1e-4)
        assert without[i].combined(distances[i])[1] == scored[i][1]


def test_from_few_images_all_parts_count_the_same() -> None:
    fit = NormalImagesFit(KnownCells(9), 9, 3, False, 0)  # type: ignore[arg-type]
    fit.keys, fit.sizes = {i: str(i) for i in range(9)}, dict.fromkeys(range(9), (72, 96))
    rng = np.random.default_rng(1)
    parts = [NormalCells.fit(each, rng.gamma(2, size=(60, 3)), 3, 0) for each in DESCRIPTIONS]
    model, *_ = fit.finish(parts, dict.fromkeys(range(9), parts))
    np.testing.assert_allclose(model.weights, 0.25)


def test_what_is_usual_is_learnt_once_per_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = NormalImagesFit(KnownCells(9), 9, 3, False, 0)  # type: ignore[arg-type]
    fit.keys, fit.sizes = {i: str(i) for i in range(9)}, dict.fromkeys(range(9), (72, 96))
    rng, learnt = np.random.default_rng(1), []
    folds = [
        [NormalCells.fit(each, rng.gamma(2, size=(60, 3)), 3, seed) for each in DESCRIPTIONS]
        for seed in range(3)
    ]
    whole = NormalCells.standardised_by

    def counted(self: NormalCells, *args: Any) -> NormalCells:
        learnt.append(self)
        return whole(self, *args)

    monkeypatch.setattr(NormalCells, "standardised_by", counted)
    fit.finish(folds[0], {i: folds[i % 3] for i in range(9)})
    assert len(learnt) == (3 + 1) * len(DESCRIPTIONS)


def least_squares_map(scores: NDArray[Any], side: int, levels: NDArray[Any]) -> NDArray[Any]:
    """Slowly: of each 3 x 3 cells a ridge regression, then the mean of the nine of each cell."""
    n_rows, n_columns = scores.shape
    padded = np.pad(levels, [(0, n_rows * side - len(levels)), (0, 0)], mode="edge")
    grey = np.array(
        [
            [
                padded[r * side : (r + 1) * side, c * side : (c + 1) * side].mean()
                for c in range(n_columns)
            ]
            for r in range(n_rows)
        ]
    )
    near = [
        [
            (
                np.clip([r - 1, r, r + 1], 0, n_rows - 1),
                np.clip([c - 1, c, c + 1], 0, n_columns - 1),
            )
            for c in range(n_columns)
        ]
        for r in range(n_rows)
    ]
    windows = [[np.ix_(*each) for each in row] for row in near]
    weak = 0.3 * np.mean([[grey[each].var() for each in row] for row in windows])
    lines = np.zeros((n_rows, n_columns, 2))
    for r, c in np.ndindex(n_rows, n_columns):
        x, y = grey[windows[r][c]].ravel(), scores[windows[r][c]].ravel()
        slope = np.cov(x, y, bias=True)[0, 1] / (x.var() + weak)
        lines[r, c] = slope, y.mean() - slope * x.mean()
    means = np.array([[lines[each].mean((0, 1)) for each in row] for row in windows])
    grid = WindowGrid.of_cells(scores.shape, side)
    slopes, starts = (
        grid.to_map(each, levels.shape, levels.shape) for each in means.transpose(2, 0, 1)
    )
    return np.asarray(slopes * levels + starts)


@given(st.integers(0, 2**31), st.floats(-3, 3), st.floats(0.1, 5))
def test_maps_follow_the_edges_of_the_image(seed: int, offset: float, gain: float) -> None:
    rng = np.random.default_rng(seed)
    scores, levels = rng.normal(size=(4, 5)), rng.uniform(size=(29, 40)).astype(np.float32)
    grid = WindowGrid.of_cells((4, 5), 8)
    found = sharpened(scores, grid, levels, levels.shape)
    np.testing.assert_allclose(found, least_squares_map(scores, 8, levels), atol=1e-4)
    # Brightness and contrast of the image do not matter, and where it is flat, cells are averaged.
    changed = sharpened(scores, grid, np.float32(offset) - np.float32(gain) * levels, levels.shape)
    np.testing.assert_allclose(changed, found, atol=1e-3)
    higher = sharpened(scores + offset, grid, levels, levels.shape)
    np.testing.assert_allclose(higher, found + offset, atol=1e-3)
    flat = sharpened(np.ones((4, 5)), grid, np.zeros((29, 40), np.float32), (29, 40))
    np.testing.assert_allclose(flat, 1, atol=1e-6)


def test_a_defect_ends_where_its_grey_levels_do() -> None:
    levels = np.full((64, 64), 0.5, np.float32)
    levels[19:30, 35:50] = 0.1  # covers no cell wholly but one
    cells = levels.reshape(8, 8, 8, 8).mean((1, 3))
    scores = np.where(cells < 0.45, 5.0, 0.0)
    found = sharpened(scores, WindowGrid.of_cells((8, 8), 8), levels, (64, 64))
    np.testing.assert_array_equal(found >= 0.55 * found.max(), levels < 0.3)
    enlarged = sharpened(scores, WindowGrid.of_cells((8, 8), 8), levels, (128, 128))
    assert enlarged.shape == (128, 128)
    assert (enlarged >= 0.55 * enlarged.max()).sum() == pytest.approx(4 * 11 * 15, rel=0.05)


def test_layers_are_brought_to_one_grid_without_the_border() -> None:
    rng = np.random.default_rng(0)
    fine, middle, coarse = (
        torch.from_numpy(rng.standard_normal((96 // s, 128 // s, 2)).astype(np.float32))
        for s in (4, 8, 16)
    )
    cells, stride = cells_of(PaddedMaps([fine, middle, coarse], (96, 128), 16), (60, 90))
    assert (stride, cells.shape) == (8, (8, 12, 6))
    for row, column in [(0, 0), (3, 5), (7, 11)]:
        y, x = row + 2, column + 2
        block = fine[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean((0, 1))
        np.testing.assert_allclose(cells[row, column, :2], block, rtol=1e-5)
        np.testing.assert_array_equal(cells[row, column, 2:4], middle[y, x])
    # A cell of the middle layer lies a quarter of a cell from the centre of a coarse one.
    y, x = 4, 6
    weights = np.outer([0.25, 0.75], [0.25, 0.75])
    near = coarse[y // 2 - 1 : y // 2 + 1, x // 2 - 1 : x // 2 + 1].numpy()
    expected = np.einsum("ij,ijc->c", weights, near)
    np.testing.assert_allclose(cells[2, 4, 4:], expected, rtol=1e-4, atol=1e-5)


def test_layers_of_networks_that_do_not_pad_their_input() -> None:
    """Their size is no divisor of the image's; cells are as wide as the nearest power of two."""
    layer = torch.rand(9, 11, 2)
    cells, stride = cells_of(PaddedMaps([layer], (160, 192), 32), (96, 128))
    assert (stride, cells.shape) == (16, (6, 8, 2))


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("0.mean", np.zeros(2, np.float32)),
        ("0.mean", np.float32(1)),
        ("1.whitening", np.eye(2, dtype=np.float32)),
        ("2.codewords", np.zeros((0, 3), np.float32)),
        ("2.codewords", np.full((4, 3), 1e9, np.float32)),
        ("0.usual", np.zeros((28, 28), np.float32)),
        ("1.usual", np.zeros((28, 28), np.float32)),
        ("3.spread", np.zeros(5, np.float32)),
        ("weights", np.ones(4, np.float32)),
        ("weights", np.array([0, 0, 0, 1], np.float32)),
    ],
)
def test_arrays_that_do_not_fit_are_an_error(name: str, array: NDArray[Any]) -> None:
    rng = np.random.default_rng(0)
    part = fitted(rng.standard_normal((50, 3)))
    part = part.standardised_by([rng.random((9, 9)).astype(np.float32)], aligned=False)
    header, arrays = model_of(part).to_state()
    again = NormalImages.from_state(header, arrays)
    np.testing.assert_array_equal(again.parts[2].codewords, part.codewords)
    with pytest.raises(ValueError, match=r"do not fit|has type|has values"):
        NormalImages.from_state(header, arrays | {name: array})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"scale": float("nan")}, "the scale of the scores is"),
        ({"scale": None}, "the scale of the scores is"),
        ({"parts": [[None, 1, False]]}, r"descriptions are .* expected"),
    ],
)
def test_a_damaged_header_is_an_error(damage: dict[str, Any], message: str) -> None:
    header, arrays = model_of(fitted(np.random.default_rng(0).standard_normal((50, 3)))).to_state()
    with pytest.raises(ValueError, match=message):
        NormalImages.from_state(header | damage, arrays)
