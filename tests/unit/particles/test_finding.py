"""Finding and separating particles, against plain loops and whole-image operations."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.segmentation import watershed

from hypervlad.evaluation import OutlineTally
from hypervlad.particles import find_particles, split_particles

pytestmark = pytest.mark.filterwarnings("ignore:.*(no particle is |there may be)")
EIGHT = np.ones((3, 3))
_NOISES = "white noise", "uneven", "without noise", "smooth noise", "shots", "colours"
_OTHER_LOOKS = "halves", "grain", "pairs", "both show, dark", "tiny", "faint, dark", "clouds"


def disks(seed, n=25, size=96, radii=(2, 12)):
    """A normalised distance map of disks, the union of their pixels."""
    rng, depth = np.random.default_rng(seed), np.zeros((size, size))
    rows, columns = np.mgrid[:size, :size]
    for _ in range(n):
        radius = rng.uniform(*radii)
        row, column = rng.uniform(0, size, 2)
        depth = np.maximum(depth, 1 - np.hypot(rows - row, columns - column) / radius)
    return depth, depth > 0


def basins_of_joined_maxima(depth, mask, separation):
    """Maxima of the whole field; the two with the highest pass too high are joined, and again."""
    smooth = ndimage.gaussian_filter((depth * mask).astype(np.float32), 1.0) * mask
    tops = ndimage.label((ndimage.maximum_filter(smooth, 3) == smooth) & mask, EIGHT)[0]
    basins, passes = watershed(-smooth, tops, mask=mask, connectivity=2), {}
    for row, column in zip(*np.nonzero(mask), strict=True):
        for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
            other = row + down, column + right
            if mask[other] and basins[other] != basins[row, column]:
                pair = frozenset({basins[other], basins[row, column]})
                passes[pair] = max(passes.get(pair, 0), min(smooth[other], smooth[row, column]))
    particles = [{basin} for basin in range(1, basins.max() + 1)]
    highest = {basin: smooth[basins == basin].max() for basin in range(1, basins.max() + 1)}
    for pair in sorted(passes, key=lambda each: -passes[each]):
        joined = [own for own in particles if own & pair]
        if passes[pair] >= separation * min(max(map(highest.get, own)) for own in joined):
            particles = [own for own in particles if not own & pair] + [set().union(*joined)]
    return sum(number * np.isin(basins, [*own]) for number, own in enumerate(particles, start=1))


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.sampled_from([0.5, 0.8, 0.95]))
def test_maxima_are_joined_as_in_slow_loops(seed, separation):
    depth, mask = disks(seed, size=46)
    depth += np.random.default_rng(seed).normal(0, 1e-3, depth.shape)  # no ties
    depth, mask = np.pad(depth, 1), np.pad(mask, 1)
    found = split_particles(depth, mask, separation=separation, min_area=1)
    basins = basins_of_joined_maxima(depth, mask, separation)
    in_order = list(dict.fromkeys(basins[basins > 0].tolist()))
    np.testing.assert_array_equal(found, np.array([0, *np.argsort(in_order) + 1])[basins])
    assert found.dtype == np.int32


def test_without_depth_necks_separate():
    mask = np.zeros((27, 60), bool)
    mask[3:24, 3:24] = mask[3:24, 34:55] = True  # squares of 21 pixels, joined by a bridge
    for neck, n in ((5, 2), (15, 2), (21, 1)):
        mask[13 - neck // 2 : 14 + neck // 2, 24:34] = True
        assert split_particles(None, mask).max() == n


def field(polarity, seed=0, size=160, noise=0.03):
    """Disks of contrast 0.3, on a background that varies twice as much, and their labels."""
    rows, columns = np.mgrid[:size, :size]
    places = [(30, 40, 9), (30, 110, 14), (100, 40, 12), (90, 100, 10), (90, 121, 10)]
    labels = np.zeros((size, size), int)
    for label, (row, column, radius) in enumerate(places, start=1):
        labels[np.hypot(rows - row, columns - column) <= radius] = label
    background = 0.35 + 0.3 * (rows / size) * (columns / size)
    image = background + np.where(labels > 0, 0.3, 0) * (1 if polarity == "bright" else -1)
    return image + np.random.default_rng(seed).normal(0, noise, image.shape), labels


@pytest.mark.filterwarnings("ignore:(there may be|how many)")
def test_rods_are_whole():
    rows, columns = np.mgrid[:200, :300]
    image = np.random.default_rng(0).normal(0.6, 0.03, rows.shape)
    for row, column, turn in ((50, 60, 0.3), (60, 200, 1.2), (140, 90, 2.0), (150, 230, 2.8)):
        place = (columns - column + 1j * (rows - row)) * np.exp(-1j * turn)
        image[np.hypot(np.maximum(np.abs(place.real) - 30, 0), place.imag) < 7] -= 0.3
    assert len(find_particles(image.clip(0, 1))) == 4
    place = np.add.outer(1j * np.arange(-180, 180), np.arange(-180, 180)) * np.exp(-0.3j)
    rows, columns = place.imag % 100, place.real % 100  # now side by side, one pixel apart
    beyond = np.maximum(np.abs(rows - 50 + 2 * np.cos(3 * (columns // 15))) - 25, 0)
    depth = (7 - np.hypot(beyond, columns % 15 - 7)) * (columns < 75)
    image = ndimage.gaussian_filter((depth > 0) * (0.35 + 0.25 * np.exp(-depth / 1.5)), 0.8)
    image += np.random.default_rng(0).normal(0.2, 0.02, image.shape)
    assert len(find_particles(image.clip(0, 1))) == pytest.approx(80, abs=10)
    rows, columns = np.indices((400, 400)) % 80 - 40  # twinned spheres
    image = 0.2 + (np.hypot(rows, columns) < 26) * np.where(columns, 0.6, 0.24)
    image = ndimage.gaussian_filter(image, 1) + np.random.default_rng(0).normal(0, 0.03, (400, 400))
    assert len(find_particles(image.clip(0, 1))) == 25


def test_fringes_within_particles_are_no_gaps_between_rods():
    rows, columns = np.mgrid[:320, :420]
    image = np.random.default_rng(0).normal(0.7, 0.02, rows.shape)
    for k in range(12):
        place = columns - 55 - 100 * (k % 4) + 1j * (rows - 60 - 100 * (k // 4))
        fringes = np.sin((place * np.exp(1j * k)).real * 2 * np.pi / 10)
        image -= (np.abs(place) < 32) * (0.3 + 0.25 * fringes)
    image = ndimage.gaussian_filter(image, 0.7).clip(0, 1)
    assert len(find_particles(image, annotations="keep")) == 12


def test_light_around_particles_that_charge_is_none_of_faint_spots():
    rows, columns = np.mgrid[:360, :360]
    inside = np.hypot(rows % 120 - 60, columns % 120 - 60) < 20
    light = ndimage.gaussian_filter(inside * 0.5, 12)
    light -= ndimage.gaussian_filter(inside * 0.25, (2, 40))
    image = ndimage.gaussian_filter(0.25 + np.where(inside, 0.5, light), 0.8)
    image += np.random.default_rng(0).normal(0, 0.02, image.shape)
    found = find_particles(image.clip(0, 1))
    assert len(found) == 9
    assert not found.note


def test_what_stands_out_like_particles_without_an_outline_is_noted():
    rows, columns = np.mgrid[-90:310, -90:310]
    inside = (np.maximum(rows, columns) < 215) & (np.minimum(rows, columns) >= 0)
    inside &= np.maximum(rows % 43, columns % 43) < 40  # five by five cubes, hardly apart
    image = ndimage.gaussian_filter(np.where(inside, 0.2, 0.8), 0.8)
    found = find_particles(image + np.random.default_rng(0).normal(0, 0.02, image.shape))
    assert "regions stand out as much as particles, but have no outline" in found.note
    assert len(found) < 25 <= found.number_range[1]


@pytest.mark.filterwarnings("ignore:there may be")
def test_flat_particles_are_divided_at_necks_alone_and_others_where_grey_values_step():
    rows, columns = np.mgrid[:128, :128]

    def ellipse(row, column, tall, wide, turn):
        place = (columns - column + 1j * (rows - row)) * np.exp(1j * np.deg2rad(turn))
        return np.hypot(place.imag / tall, place.real / wide) <= 1

    one, other = ellipse(54, 68, 21, 17, 100), ellipse(62, 64, 14, 26, 47)
    for level, n in ((0.2, 1), (0.5, 2)):
        image = ndimage.gaussian_filter(np.where(one, level, np.where(other, 0.2, 0.8)), 1.2)
        image += np.random.default_rng(0).normal(0, 0.005, image.shape)
        assert len(find_particles(image)) == n


@pytest.mark.parametrize("polarity", ["bright", "dark"])
@pytest.mark.parametrize("noise", [0.0, 0.03, 0.1])
def test_disks_on_an_uneven_background(polarity, noise):
    image, labels = field(polarity, noise=noise)
    found = find_particles(image)
    assert (found.polarity, len(found), found.confidence > 0.9) == (polarity, 5, True)
    tally = OutlineTally()
    tally.add(labels, np.asarray(found))
    scores = tally.scores()
    assert (scores["f1"], scores["image_iou"] > 0.9) == (1, True)
    assert scores["diameter_ratio"] == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("radius", [8, pytest.param(12, marks=pytest.mark.full)])  # five images
def test_what_lies_upon_larger_regions(recwarn, radius):
    rows, columns = np.indices((384, 384))
    distance = np.hypot(rows % 64 - 32, columns % 64 - 32)
    away = np.hypot(rows % 150 - 60, columns % 170 - 70)
    spots, noise = distance < radius, np.random.default_rng(0).normal(0.5, 0.02, away.shape)
    one = (np.hypot(rows - 192, columns - 192) < 150) * (0.3 * spots - 0.15)
    others = (0.2 * each - 0.4 * spots for each in (away < 50, distance < radius + 6))
    found, on_holes, in_fringes = (find_particles(each + noise) for each in (one, *others))
    assert (len(found), found.polarity) == (1, "dark")
    assert "bright regions look like particles, too, in this image (16)" in found.note
    assert (len(on_holes), on_holes.polarity, in_fringes.polarity) == (36, "dark", "dark")
    low, high = np.sort([rows % 64, columns % 64], axis=0)  # of which corners are between
    gaps = (low > 15) & (low <= 25) & (high < 49)
    assert find_particles(0.4 * (away < 30) - 0.2 * gaps + noise).polarity == "bright"


@pytest.fixture(scope="module")
def eight_bits():
    """An image of 8 bits and the labels found in it."""
    image = np.round(field("bright")[0].clip(0, 1) * 255).astype(np.uint8)
    return image, np.asarray(find_particles(image))


def assert_alike(found, expected):
    """The same particles, but for a few pixels at their outlines."""
    assert found.max() == expected.max() == 5
    assert ((found > 0) != (expected > 0)).mean() < 0.01
    shared = (found > 0) & (expected > 0)
    pairs = np.stack([found[shared], expected[shared]])
    values, counts = np.unique(pairs, axis=1, return_counts=True)
    assert len(values[0, counts > 20]) == 5


def test_types_gain_and_offset_do_not_matter(eight_bits):
    image, expected = eight_bits
    others = [image.astype(np.uint16) * 200 + 17, image / 255, np.stack([image] * 3, axis=2)]
    nothing, *every = find_particles([np.zeros((9, 7)), *others])
    assert len(nothing) == 0
    for found in every:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "move", [np.fliplr, np.transpose, np.rot90, lambda each: each[:-17, 5:], np.invert]
)
def test_turned_cropped_and_inverted_images_have_the_same_outlines(eight_bits, move):
    image, expected = eight_bits
    expected = expected if move is np.invert else move(expected)
    assert_alike(np.asarray(find_particles(move(image))), expected)


def test_hot_and_dead_pixels_and_lines_hide_no_particle():
    """In 16 bits, of which the image uses few hundred levels."""
    image = np.round(1000 + 100 * field("bright", noise=0.01)[0]).astype(np.uint16)
    expected = np.asarray(find_particles(image))
    places = ([3, 30, 40], [5, 40, 40]), np.s_[35], np.s_[:, 50]
    for place, level in itertools.product(places, (65535, 5000, 0)):
        changed = image.copy()
        changed[place] = level
        assert_alike(np.asarray(find_particles(changed)), expected)


@pytest.mark.parametrize(("radius", "sign"), [(5, 1), (8, -1)])
def test_few_particles_are_as_large_as_many(radius, sign):
    """Also where they cover too little of the image to be in the range of its grey values."""
    rows, columns = np.indices((384, 384))
    noise = np.random.default_rng(0).normal(0.5, 0.016, rows.shape)
    inside = np.hypot(rows % 96 - 48, columns % 96 - 48) < radius
    for is_there in (rows >= 0, (rows < 96) & (columns < 192)):
        own = inside & is_there
        found = find_particles(noise + sign * 0.3 * ndimage.gaussian_filter(own * 1.0, 1.2))
        width = np.sqrt(np.count_nonzero(found) / own.sum())
        assert (len(found), width) == (own.sum() / inside.sum() * 16, pytest.approx(1, abs=0.06))


def test_shells_are_whole_and_pinholes_are_filled():
    image, _ = field("bright", noise=0.01)
    rows, columns = np.mgrid[:160, :160]
    image[np.hypot(rows - 30, columns - 110) < 9] -= 0.3
    image[99:101, 39:41] -= 0.3
    found = np.asarray(find_particles(image))
    assert 0 < found[30, 110] == found[30, 98] != found[100, 40] == found[92, 40] > 0


def rows_of_disks(radius, apart, size=256):
    """Disks in hexagonal order, their centres so many diameters apart."""
    pitch = 2 * radius * apart
    rows, columns = np.mgrid[:size, :size]
    labels, number = np.zeros((size, size), int), 0
    for line, row in enumerate(np.arange(radius + 2, size - radius - 1, pitch * 0.866)):
        for column in np.arange(radius + 2 + line % 2 * pitch / 2, size - radius - 1, pitch):
            number += 1
            labels[np.hypot(rows - row, columns - column) < radius] = number
    return labels


def looks(kind, rng):
    """A field as people photograph it, in which particles are no rare, plain spots."""
    rows, columns = np.mgrid[:256, :256]
    noise, labels = 0.03 * rng.standard_normal((256, 256)), rows_of_disks(14, 1.6)
    depth = ndimage.distance_transform_edt(labels > 0)
    if kind.startswith("dense"):
        signal = (labels := rows_of_disks(14, 1.1)) > 0
    elif kind == "rims":
        signal = (labels > 0) * np.exp(-depth / 2)
    elif kind == "grain":
        signal, noise = labels > 0, ndimage.gaussian_filter(noise, 1.5)
        noise *= 0.1 / noise.std()
    elif kind.startswith("cores"):  # in shells of less contrast
        signal = 0.5 * (depth > 0) + 0.8 * (depth > 6)
    elif kind == "halves":
        signal = (labels > 0) * np.where(columns % 45 < 22, 0.6, 1.2)
    elif kind == "tiny":  # beside a speck
        labels = rows_of_disks(3, 2.2)
        signal = np.where(np.hypot(rows - 128, columns - 128) < 12, -1, labels > 0)
    elif kind == "faint, dark":  # an eighth of the contrast of one beside them
        apart = np.hypot(rows - 128, columns - 128)
        labels = np.where(apart < 40, 999, rows_of_disks(6, 2) * (apart > 56))
        signal, noise = np.where(labels == 999, 1.6, 0.2 * (labels > 0)), noise / 2
    elif kind == "clouds":  # of four times the contrast
        labels = rows_of_disks(5, 2.5)
        signal, noise = labels > 0, noise + 0.6 * np.sin(rows / 15) * np.sin(columns / 15)
    else:  # two that overlap, of which both show there or not
        labels[:], signal, noise = 0, 0, noise / 6
        for row, column, number in itertools.product((60, 190), (60, 190), (1, 2)):
            own = np.hypot(rows - row, columns - column + 24 - 16 * number) < 14
            labels[own & (labels == 0)] = 2 * (row > 100) + 4 * (column > 100) + number
            signal = signal + own if kind.startswith("both") else labels > 0
    signal = ndimage.gaussian_filter(signal.astype(float), 1) * 0.3
    return 0.5 + (-signal if "dark" in kind else signal) + noise, labels


@pytest.mark.filterwarnings("ignore:.*(particles, too|for overlaps)")  # between rims
@pytest.mark.parametrize("kind", ["dense, dark", "dense", "rims", "cores, dark", *_OTHER_LOOKS])
def test_every_look_is_found(kind):
    """Of what thresholds and plain contrast miss: particles cover more than half, for example."""
    image, labels = looks(kind, np.random.default_rng(0))
    tally = OutlineTally()
    tally.add(labels, np.asarray(find_particles(image)))
    assert tally.scores()["f1"] > (0.7 if kind == "grain" else 0.9)


def layered(is_shell, rng):
    """Dark cores, a third without paler shells, or several small particles upon larger ones."""
    outer = rows_of_disks(15, 1.2) if is_shell else rows_of_disks(52, 1.1)
    inner = outer.copy() if is_shell else rows_of_disks(5, 2)
    inner *= ndimage.distance_transform_edt(outer) > (6 if is_shell else 12)
    inner *= (np.bincount(inner.ravel()) > 60)[inner]
    outer[is_shell & (inner == 0) & (outer % 3 == 0)] = 0
    signal = 0.25 * (outer > 0) + (0.6 if is_shell else 0.25) * (inner > 0)
    image = 0.9 - ndimage.gaussian_filter(signal, 0.8) + 0.02 * rng.standard_normal(outer.shape)
    return image, {"outer": outer, "inner": inner}


@pytest.mark.filterwarnings("ignore:.*outline")
@pytest.mark.parametrize(("kind", "usual"), [("shells", "outer"), ("support", "inner")])
def test_of_two_layers_one_is_outlined_and_a_note_says_which(kind, usual):
    image, layers = layered(kind == "shells", np.random.default_rng(0))
    (found, (other,)) = find_particles(image), {*layers} - {usual}
    assert f"as {'of shells' if kind == 'shells' else 'metal'}" in found.note
    assert found.note.endswith(f"layer='{other}')")
    for name, outlines in ((usual, found), (other, find_particles(1 - image, layer=other))):
        tally = OutlineTally()
        pair = layers[name], outlines.label_image()
        tally.add(*pair)
        assert tally.scores()["f1"] > 0.95
        small, own = (np.quantile(np.unique(e[e > 0], return_counts=True)[1], 0.1) for e in pair)
        assert own == pytest.approx(small, rel=0.15)


@pytest.mark.parametrize(("column", "radius"), [(450, 240), (40, 95)])
def test_large_particles_are_seen_on_a_smaller_scale_also_at_edges(column, radius):
    rows, columns = np.mgrid[:700, :900]
    inside = np.hypot(rows - 350, columns - column) < radius
    image = 0.2 + 0.5 * inside + np.random.default_rng(0).normal(0, 0.05, inside.shape)
    (outline,) = find_particles(image).outlines
    assert outline.mask.sum() == pytest.approx(inside.sum(), rel=0.03)


def test_the_number_has_a_range_where_parts_may_be_one(recwarn):
    discs = find_particles(field("dark")[0])
    fewest, most = discs.number_range
    assert fewest <= len(discs) <= most < 2 * len(discs)
    rows, columns = np.indices((240, 240)) % 80 - 39.5
    arms = np.abs(np.cos(2.5 * np.arctan2(rows, columns))) ** 4
    inside = np.hypot(rows, columns) < 32 * (0.4 + 0.6 * arms)
    noise = np.random.default_rng(0).normal(0.6, 0.02, inside.shape)
    assert find_particles(noise - 0.3 * inside).number_range is None
    assert "cannot be told from image, as" in str(recwarn.pop().message)
    rows, columns = np.abs(np.indices((240, 240)) % 60 - 29.5)  # dumbbells
    inside = (np.hypot(rows, columns - 13) < 11) | (np.maximum(2 * rows, columns) < 10)
    halves = find_particles(noise - 0.3 * inside)
    assert halves.number_range[0] <= 16 < len(halves)
    assert halves.finding_range.size_high > 1.4
    rng, rows, columns = np.random.default_rng(0), *np.indices((256, 256))
    piled = np.zeros(rows.shape)
    for row, column, level in rng.uniform([0, 0, 0.2], [256, 256, 0.8], (400, 3)):
        piled[np.hypot(rows - row, columns - column) < 12] = level
    pile = find_particles(ndimage.gaussian_filter(piled, 2) + rng.normal(0, 0.1, rows.shape))
    assert (len(pile) > 20, pile.number_range) == (True, None)


@pytest.mark.filterwarnings("ignore:.*fade")
@pytest.mark.parametrize(
    ("power", "side", "radius", "blur"),
    [(0.5, 80, 16, 1.5), (1, 80, 16, 1), (0.001, 80, 16, 4), (0.5, 240, 80, 1)],
    ids=["spheres", "lenses", "blurred discs", "a large sphere"],
)
def test_soft_particles_end_where_their_thickness_does(power, side, radius, blur):
    rows, columns = np.indices((240, 240)) % side - side / 2 + 0.5
    depth = np.clip(1 - (rows**2 + columns**2) / radius**2, 0, None) ** power
    image = ndimage.gaussian_filter(0.8 - 0.32 * depth, blur)
    image += np.random.default_rng(0).normal(0, 0.02, image.shape)
    found = find_particles(image)
    radii = [(each.mask.sum() / np.pi) ** 0.5 for each in found]
    assert (len(radii), np.median(radii)) == (57600 // side**2, pytest.approx(radius, rel=0.015))
    assert (found.doubts.get("soft", 0) > 0.1) == (blur == 4)


@pytest.mark.filterwarnings("ignore:.*a paler zone")
def test_faint_shells_around_cores_make_sizes_uncertain():
    rows, columns = np.indices((240, 300)) % 60 - 30
    core, shell = (np.clip(radius - np.hypot(rows, columns), 0, 1) for radius in (12.5, 18.5))
    noise = np.random.default_rng(0).normal(0, 0.04, core.shape)
    plain, faint = (
        find_particles(ndimage.gaussian_filter(each, 0.8) + noise)
        for each in (core, core + 0.07 * shell)
    )
    assert len(plain) == len(faint) == 20
    assert ("a paler zone surrounds" in faint.note, plain.note) == (True, "")
    assert plain.finding_range.size_high < 1.2 < 18 / 12 < faint.finding_range.size_high


@pytest.mark.filterwarnings("ignore:.*fringe")
def test_a_pale_fringe_makes_sizes_uncertain():
    away = np.linalg.norm(np.indices((96, 96)) - 47.5, axis=0)
    noise = np.random.default_rng(0).normal(0, 0.05, (192, 192))
    found, plain = (
        find_particles(
            np.tile(np.where(away < 20, 0.3, np.where(away < 24, pale, 0.8)), (2, 2)) + noise
        )
        for pale in (0.9, 0.8)
    )
    assert (len(found), len(plain)) == (4, 4)
    assert ("a pale fringe surrounds" in found.note, plain.note) == (True, "")
    assert found.finding_range.size_low < 0.8 * plain.finding_range.size_low


def test_it_says_what_is_left_out_and_why_nothing_is_found():
    noise = np.random.default_rng(0).normal(0.5, 0.1, (64, 64))
    rows, columns = np.abs(np.indices((240, 240)) % 40 - 20)[:, 5:, 5:]
    specks = (np.hypot(rows, columns) < 10) | (np.hypot(rows - 20, columns - 20) < 2.2)
    dots = (np.hypot(rows, columns) < 3) | (np.hypot(rows - 20, columns - 20) < 2.2)
    for image, polarity, min_area, n, words in (
        (noise, "auto", 20, 0, "no particle is found: grey values range over less than"),
        (field("dark")[0], "bright", 20, 0, "5 regions of the other"),
        (0.6 - 0.3 * specks, "auto", 20, 36, "regions of fewer than 20 pixels are left out"),
        (0.6 - 0.3 * dots, "auto", 20, 36 + 25, "searched at twice its size"),
    ):
        with pytest.warns(UserWarning, match=words):
            found = find_particles(image, polarity=polarity, min_area=min_area)
        assert (len(found), words in found.note) == (n, True)
    clouds = np.random.default_rng(0).normal(size=(6, 200, 200))
    clouds = 12 * ndimage.gaussian_filter(clouds, (0, 4, 4)) + 0.5 * np.roll(clouds, 1, 0)
    every = find_particles(list(clouds))
    assert not any(map(len, every))
    assert any("too faint beside the background" in found.note for found in every)


def empty_field(kind, rng):
    """A field without particles: white noise, smooth noise, shot noise in uneven light."""
    shape = tuple(rng.choice([64, 100, 180], 2))
    rows, columns = np.ogrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    light = 1 - 0.35 * (rows - rng.uniform(-1, 1)) ** 2 + rng.uniform(-0.3, 0.3) * columns
    return {
        "white noise": lambda: rng.normal(0.5, 0.1, shape),
        "uneven": lambda: light + rng.normal(0, 0.02, shape),
        "without noise": lambda: np.round(180 * light).astype(np.uint8),
        "smooth noise": lambda: ndimage.gaussian_filter(rng.normal(0, 1, shape), 2),
        "shots": lambda: rng.poisson(rng.choice([0.5, 3, 30]) * light.clip(0.05)).astype(np.uint16),
        "colours": lambda: rng.normal(0.5, 0.1, (*shape, 3)).clip(0, 1),
        "one row": lambda: rng.random((1, 40)),
        "constant": lambda: np.full(shape, 0.3),
        "one pixel": lambda: np.full((1, 1), 0.3),
        "a hot pixel": lambda: np.eye(shape[0])[:1].T @ np.eye(shape[1])[:1],
    }[kind]()


@pytest.mark.filterwarnings("ignore:.*uneven light")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", [*_NOISES, "one row", "constant", "one pixel", "a hot pixel"])
def test_nothing_is_found_on_an_empty_field(kind, seed):
    image = empty_field(kind, np.random.default_rng(seed))
    found = find_particles(image)
    assert (len(found), found.polarity, found.confidence) == (0, None, 0)
    assert np.asarray(found).shape == image.shape[:2]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: split_particles(np.ones((5, 7)), np.ones((7, 5), bool)), r"\(5, 7\) and \(7, 5\)"),
        (lambda: split_particles(np.eye(5, 7) * np.nan, np.eye(5, 7)), "5 pixels where it is not"),
        (lambda: split_particles(np.eye(5, 7) * 1e39, np.eye(5, 7)), "5 pixels where it is not"),
        (lambda: split_particles(None, np.ones((5, 7)), separation=5), "separation must be .*5"),
        (lambda: find_particles(np.zeros((8, 8)), polarity="black"), "polarity must be .*'black'"),
        (lambda: find_particles(np.zeros((8, 8)), min_area=0), "min_area must be .*0"),
        (lambda: find_particles(np.zeros((8, 8)), layer="both"), "layer must be .*'both'"),
        (lambda: find_particles([np.eye(8), "missing.tif"]), r"missing\.tif"),
        (lambda: find_particles([np.eye(8), np.full((8, 8), np.nan)]), "image 1 of the list.*NaN"),
    ],
)
def test_what_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
