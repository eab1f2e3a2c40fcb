"""Scores and what they are learnt from, recomputed slowly from the maps of the network."""

import functools

import numpy as np
import pytest
import torch
from scipy.ndimage import label, uniform_filter
from scipy.stats import gumbel_r, median_abs_deviation
from sklearn.base import clone
from support.recording import Recording
from support.surfaces import CELL, PATCH, blotted, surface

from hypervlad import PatchDefectScorer, default_patch_encoder
from hypervlad.features import get_backbone

BORDER = 32  # pixels that are mirrored around an image
# Side in pixels to which an image is resized, side of a window in cells, relative to the image?
NORMAL = [(None, 3, False), (None, 3, True), (224, 1, True), (112, 1, False), (None, 7, True)]
LABELLED = [(None, 1, False), (None, 3, False), (None, 3, True), (112, 1, False)]
pytestmark = pytest.mark.filterwarnings("ignore:Classes with only one or two:UserWarning")
A, B = ([surface(seed) for seed in range(start, start + 6)] for start in (0, 50))


def new_scorer(**parameters):
    encoder = default_patch_encoder(
        backbone="tiny", weights="random", taps=["1", "4"], n_codewords=4
    )
    usual = {"patch": PATCH, "n_planted": 0, "n_codewords": 16, "random_state": 0}
    return PatchDefectScorer(encoder, **usual | parameters)


# --- from an image to its cells -------------------------------------------------------------------


def cells_of(scorer, image, side=None):
    """Return the maps of both taps on the grid of the coarser one, (R, S, 16)."""
    tensor, border = get_backbone("tiny").preprocessing.prepare(image, image.shape), 0
    if side is None:
        border, widths = BORDER // CELL, [(0, 0), (BORDER, BORDER), (BORDER, BORDER)]
        tensor = torch.from_numpy(np.pad(tensor.numpy(), widths, mode="symmetric"))
    else:
        tensor = torch.nn.functional.interpolate(
            tensor[None], (side, side), mode="bilinear", antialias=True
        )[0]
    with torch.no_grad():
        fine, coarse = (
            maps[0].double().numpy() for maps in scorer.encoder_.network()(tensor[None])
        )
    n_rows, n_columns = coarse.shape[1:]
    means = fine.reshape(len(fine), n_rows, CELL, n_columns, CELL).mean((2, 4))
    both = np.concatenate([means, coarse]).transpose(1, 2, 0)
    return both[border : n_rows - border, border : n_columns - border]


def described(cells, window, relative):
    means = uniform_filter(cells, (window, window, 1), mode="nearest")
    if relative:
        mean, deviation = cells.mean((0, 1)), cells.std((0, 1))
        means = (means - mean) / (deviation + 0.3 * deviation.mean())
    return means


def hats(at, n, width=1):
    """Weights (len(at), n) of linear interpolation at some places among n, constant beyond."""
    weights = np.maximum(0, 1 - np.abs(np.arange(n) - at[:, None]) / width)
    return weights / weights.sum(1, keepdims=True)


def resized(values, shape):
    """Bring values (R, S) or (R, S, D) to another grid of cells over the same image."""

    def between(n, own):
        at = (np.arange(n) + 0.5) * own / n - 0.5
        return hats(at if n < own else at.clip(0, own - 1), own, max(1, own / n))

    rows, columns = (between(n, own) for n, own in zip(shape, values.shape[:2], strict=True))
    return np.einsum("ra,sb,ab...->rs...", rows, columns, values)


def guided(scores, image):
    """Of each 3 x 3 cells a ridge regression on grey levels; the mean of nine for each cell."""
    n_rows, n_columns = scores.shape
    grey = image.reshape(n_rows, CELL, n_columns, CELL).mean((1, 3))
    near = {
        (r, c): np.ix_(
            *(np.clip([i - 1, i, i + 1], 0, n - 1) for i, n in zip((r, c), grey.shape, strict=True))
        )
        for r, c in np.ndindex(grey.shape)
    }
    weak = 0.3 * np.mean([grey[where].var() for where in near.values()])
    lines = np.zeros((n_rows, n_columns, 2))
    for at, where in near.items():
        x, y = grey[where].ravel(), scores[where].ravel()
        slope = np.cov(x, y, bias=True)[0, 1] / (x.var() + weak)
        lines[at] = slope, y.mean() - slope * x.mean()
    means = np.array([lines[where].mean((0, 1)) for where in near.values()])
    # A cell's values are those of the pixel in its middle, the upper left of the middle four.
    pixels = [
        hats(((np.arange(n) - 1) / CELL).clip(0, n // CELL - 1), n // CELL) for n in image.shape
    ]
    slopes, starts = np.einsum("ra,sb,abi->irs", *pixels, means.reshape(lines.shape))
    return slopes * image + starts


def mean_of_highest(values, share):
    return float(np.sort(values, axis=None)[-max(1, round(share * values.size)) :].mean())


# --- defect-free images ---------------------------------------------------------------------------


class Normal:
    """What a scorer of defect-free images has learnt, by the names in its file."""

    def __init__(self, scorer):
        self.scorer, (_, arrays) = scorer, scorer.to_state()
        names = {name: name.removeprefix("model_.").removeprefix("parts.") for name in arrays}
        self.of = {own: arrays[name] for name, own in names.items()}

    def distances(self, image):
        """From the nearest codeword, for each description."""
        found = []
        for i, (side, *how) in enumerate(NORMAL):
            cells = described(cells_of(self.scorer, image, side), *how)
            white = (cells - self.of[f"{i}.mean"]) @ self.of[f"{i}.whitening"]
            apart = white[..., None, :] - self.of[f"{i}.codewords"]
            found.append(np.linalg.norm(apart, axis=-1).min(-1))
        return found


def scale_of(scorer):
    return float(scorer.to_state()[0]["fitted"]["model_"]["state"]["scale"])


@functools.cache
def places_of(shape):
    """5 x the distance from the nearest edge, plus that from the edge across; each at most 4."""
    places = np.zeros(shape, int)
    for r, c in np.ndindex(shape):
        near, far = sorted(min(i, n - 1 - i, 4) for i, n in zip((r, c), shape, strict=True))
        places[r, c] = 5 * near + far
    return places


def usual_and_spread(images):
    """The median at each place, and how far the 90 % quantile lies above it."""
    values = np.concatenate([each.ravel() for each in images])
    at = np.concatenate([places_of(each.shape).ravel() for each in images])
    # No cell is nearer to the edge across: such a place is not used, and has the last one's.
    own = [values[at == (place if (at == place).any() else at.max())] for place in range(25)]
    pairs = np.array([np.quantile(each, [0.5, 0.9]) for each in own])
    spread = pairs[:, 1] - pairs[:, 0]
    return pairs[:, 0], np.maximum(spread, 0.1 * np.median(spread))


def log_of_highest(values):
    means = [mean_of_highest(values, share) for share in (0.001, 0.01, 0.1)]
    return float(np.mean(np.log(np.maximum(means, 1))))


def combined(distances, profiles, weights, levels):
    """The scores of the cells and, but for its scale, of the image."""
    maps, logarithms, shape = [], [], distances[0].shape
    for own, (usual, spread) in zip(distances, profiles, strict=True):
        places = places_of(own.shape)
        above = own - usual[places]
        logarithms.append(log_of_highest(above / spread[places]))
        milder = np.cbrt(spread * spread[24] ** 2)  # a third of it from the place
        maps.append(resized(above / milder[places], shape) + 0.5)
    narrow, wide = np.average(maps[:4], axis=0, weights=[4, 4, 1, 1]), maps[4]
    scores = narrow.copy()
    for r, c in np.ndindex(scores.shape):
        if wide[r, c] > 0.85 * narrow[max(0, r - 3) : r + 4, max(0, c - 3) : c + 4].max():
            scores[r, c] = max(narrow[r, c], wide[r, c])
    unusual = np.exp(np.dot(weights, np.array(logarithms[:4]) - levels))
    return scores * np.sqrt(unusual) - 0.5, float(unusual)


@pytest.fixture(scope="module")
def two_groups(tiny_backbone):
    """A scorer of two groups of images, and one of each group."""
    both = new_scorer(fpr=0.4).fit([*A, *B], groups=[*"aaaaaa", *"bbbbbb"])
    of_a, of_b = (Normal(new_scorer(fpr=0.2).fit(images)) for images in (A, B))
    return both, of_a, of_b


def test_cells_far_from_the_codewords_of_defect_free_ones_score_high(two_groups):
    model = Normal(two_groups[0])
    image, _ = blotted(7, (30, 20))
    profiles = [(model.of[f"{i}.usual"], model.of[f"{i}.spread"]) for i in range(5)]
    learnt = profiles, model.of["weights"], model.of["levels"]
    places, score = combined(model.distances(image), *learnt)
    found = two_groups[0].find(image)
    assert found.score == pytest.approx(scale_of(two_groups[0]) * score, rel=1e-3)
    expected = guided(places, image)
    np.testing.assert_allclose(found.map, expected, atol=2e-3 * np.abs(expected).max())
    np.testing.assert_array_equal(two_groups[0].score_map(image), found.map)


def test_what_is_usual_is_learnt_from_images_of_other_groups(two_groups):
    scorer, of_a, of_b = two_groups
    model = Normal(scorer)
    without = [of_b] * 6 + [of_a] * 6  # the images of a group are scored by those of the other
    distances = [own.distances(image) for own, image in zip(without, [*A, *B], strict=True)]

    def learnt(images):
        profiles = [usual_and_spread(of_part) for of_part in zip(*images, strict=True)]
        logarithms = np.array(
            [
                [
                    log_of_highest(
                        (own - usual[places_of(own.shape)]) / spread[places_of(own.shape)]
                    )
                    for own, (usual, spread) in zip(image[:4], profiles[:4], strict=True)
                ]
                for image in images
            ]
        )
        low, levels, high = np.quantile(logarithms, [0.25, 0.5, 0.75], axis=0)
        spreads = high - low if len(images) >= 10 else np.ones(4)  # too few to know it
        weights = 1 / np.hypot(spreads, spreads.mean() / 3)
        return profiles, weights / weights.sum(), levels

    profiles, weights, levels = learnt(distances)
    np.testing.assert_allclose(model.of["weights"], weights, rtol=1e-3)
    np.testing.assert_allclose(model.of["levels"], levels, rtol=1e-3, atol=1e-4)
    for i, (usual, spread) in enumerate(profiles):
        np.testing.assert_allclose(model.of[f"{i}.usual"], usual, rtol=1e-3)
        np.testing.assert_allclose(model.of[f"{i}.spread"], spread, rtol=1e-3)
    halves = {0: learnt(distances[6:]), 6: learnt(distances[:6])}
    held_out = [combined(own, *halves[i // 6 * 6]) for i, own in enumerate(distances)]
    scale = np.median([mean_of_highest(places, 0.01) / score for places, score in held_out])
    assert scale_of(scorer) == pytest.approx(scale, rel=1e-3)
    scores = [scale * score for _, score in held_out]
    np.testing.assert_allclose(scorer.held_out_.scores, scores, rtol=2e-3)
    assert scorer.held_out_.images.tolist() == list(range(12))
    assert scorer.held_out_.groups.tolist() == [0] * 6 + [1] * 6
    usual = np.median(np.concatenate([places.ravel() for places, _ in held_out]))
    assert scorer.region_rule_.usual == pytest.approx(usual, abs=1e-3)
    # Of the five highest images, more than a fifth of twelve, one in four has a region.
    highest = np.argsort(scores)[-5:]
    tops = sorted((p for i in highest for p in peaks(held_out[i][0], usual)), reverse=True)
    assert scorer.region_rule_.least == pytest.approx((tops[0] + tops[1]) / 2, abs=5e-3)


def peaks(scores, usual):
    """Each score that is the highest of the connected cells that reach 0.55 of it."""
    found = set()
    for at, score in np.ndenumerate(scores):
        if score > usual:
            labels, _ = label(scores - usual >= 0.55 * (score - usual), np.ones((3, 3)))
            if scores[labels == labels[at]].max() == score:
                found.add(float(score))
    return found


# --- images with masks ----------------------------------------------------------------------------


def columns_of(scorer, image):
    """The joined descriptions of each cell, (180, 64)."""
    own = [described(cells_of(scorer, image, side), *how) for side, *how in LABELLED]
    return np.concatenate([resized(each, (12, 15)) for each in own], axis=2).reshape(180, 64)


def labels_of(mask):
    """1 for cells that are defective by three tenths, or most, 0 without defects, else NaN."""
    if mask is None:
        return np.zeros(180)
    share = mask.reshape(12, CELL, 15, CELL).mean((1, 3)).ravel()
    return np.where(share >= min(0.3, share.max()), 1, np.where(share == 0, 0, np.nan))


def masked(start):
    spots = [blotted(start + i, (15 + 4 * i, 20 + 7 * i), radius=4 + i) for i in range(3)]
    images, masks = zip(*spots, strict=True)
    masks[0][:] = False
    masks[0][15:17, 19:21] = True  # in four cells, a sixteenth of each
    return [surface(start + 10), *images], [None, *masks]


@pytest.fixture(scope="module")
def learnt(tiny_backbone):
    """A scorer of images with masks, of two groups, and what its learner was given."""
    Recording.fits.clear()
    images, masks = (one + other for one, other in zip(masked(0), masked(50), strict=True))
    scorer = new_scorer(threshold="f1", boosting=Recording(Cs=10.0, n_estimators=50))
    return scorer.fit(images, masks=masks, groups=[*"aaaabbbb"]), Recording.fits[0]


def test_cells_score_as_their_hypercolumns_do(learnt):
    scorer, fit = learnt
    image, _ = blotted(7, (30, 20))
    scale = scorer.model_.scale
    deviation = (fit["X"] / scale).std(axis=0)
    np.testing.assert_allclose(scale, 1 / (deviation + 0.3 * deviation.mean()), rtol=1e-3)
    columns = columns_of(scorer, image) * scale
    assert scorer.boosting_.trees_ is None  # only its linear part is used
    places = -scorer.boosting_.decision_function(columns).reshape(12, 15)  # of "normal"
    found = scorer.find(image)
    assert found.score == pytest.approx(mean_of_highest(places, 0.003), rel=1e-3)
    np.testing.assert_allclose(found.map, guided(places, image), atol=0.02)
    np.testing.assert_allclose(scorer.probability_map(image), 1 / (1 + np.exp(-found.map)), 1e-5)


def test_the_threshold_has_the_best_f1_of_held_out_cells(learnt):
    scorer, _ = learnt
    scores, truths, held_out = [], [], []
    for own, other in ((0, 50), (50, 0)):
        images, masks = masked(other)
        with pytest.warns(UserWarning, match="cannot be held out"):
            fitted = clone(scorer).fit(images, masks=masks, groups=[0] * 4)
        for image, mask in zip(*masked(own), strict=True):
            columns = columns_of(fitted, image) * fitted.model_.scale
            places, truth = -fitted.boosting_.decision_function(columns), labels_of(mask)
            places, truth = places[np.isfinite(truth)], truth[np.isfinite(truth)]
            held_out.append(mean_of_highest(places[truth == 0], 0.003))
            # A place is defective only if its image is.
            scores += np.minimum(places, mean_of_highest(places, 0.003)).tolist()
            truths += truth.tolist()
    np.testing.assert_allclose(scorer.held_out_.scores, held_out, atol=0.02)

    def f1(threshold):
        called = np.array(scores) >= threshold
        return float(2 * called @ np.array(truths) / (called.sum() + sum(truths)))

    best = max(f1(score) for score in scores)
    assert f1(scorer.threshold_) == pytest.approx(best, abs=0.01)
    assert (scorer.region_rule_.least, scorer.region_rule_.usual) == (scorer.threshold_, None)


# --- thresholds -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_images():
    return [surface(seed, (12, 16)) for seed in range(24)]


def quick_scorer(**parameters):
    return new_scorer(**{"patch": 12, "n_codewords": 2} | parameters)


@pytest.mark.parametrize(
    ("n", "n_each", "fpr"), [(24, 1, 0.05), (24, 1, 0.2), (20, 1, 0.5), (24, 3, 0.3), (23, 2, 0.1)]
)
def test_of_new_groups_at_most_a_share_of_images_reaches_thresholds(small_images, n, n_each, fpr):
    scorer = quick_scorer(fpr=fpr).fit(small_images[:n], groups=np.arange(n) // n_each)
    scores, groups = scorer.held_out_.scores, scorer.held_out_.groups

    def expected_rate(threshold):
        """Of n + 1 exchangeable groups, one is new, and all of its images may be called."""
        shares = [(scores[groups == group] >= threshold).mean() for group in np.unique(groups)]
        return (sum(shares) + 1) / (len(shares) + 1)

    assert expected_rate(scorer.threshold_) <= fpr + 1e-9
    next_lower = scores[scores < scorer.threshold_].max()
    assert scorer.threshold_ == np.nextafter(next_lower, np.float32(np.inf))
    assert expected_rate(next_lower) > fpr
    assert scorer.held_out_.n_images_above(next_lower) == (scores >= next_lower).sum()
    assert scorer.held_out_.n_groups == len(np.unique(groups))


@pytest.mark.parametrize(
    ("n_each", "message"),
    [(1, "19 defect-free images, got 18"), (3, "19 groups of defect-free images, got 6")],
)
def test_from_few_images_the_threshold_is_extrapolated(small_images, n_each, message):
    """By Gumbel's distribution, through the median and the median absolute deviation."""
    scorer = quick_scorer(fpr=0.05)
    with pytest.warns(UserWarning, match=f"needs at least {message}"):
        scorer.fit(small_images[:18], groups=np.arange(18) // n_each)
    values = gumbel_r.ppf(np.linspace(0, 1, 200_001)[1:-1])
    above = (gumbel_r.isf(0.05) - gumbel_r.median()) / median_abs_deviation(values)
    scores = scorer.held_out_.scores
    expected = np.median(scores) + above * median_abs_deviation(scores)
    assert scorer.threshold_ == pytest.approx(expected, rel=1e-4)
