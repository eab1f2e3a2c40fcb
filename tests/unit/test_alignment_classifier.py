"""`AlignmentClassifier`: labels and maps, turned images, errors."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Picture
from sklearn.exceptions import NotFittedError
from support.damage import replaced
from support.recording import Recording

from hypervlad import AlignmentClassifier, BoostedSoftmaxClassifier, HypercolumnVLAD, ModelFileError
from hypervlad.models import default_alignment_encoder

Image = NDArray[np.float32]
WINDOW = 16
pytestmark = pytest.mark.filterwarnings("ignore:Classes with only one or two:UserWarning")


def stripes(seed, angle, size=(64, 80)):
    """Lines of one direction, a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    wave = np.sin(0.9 * (x * np.sin(angle) + y * np.cos(angle)) + rng.uniform(0, 6))
    return (0.5 + 0.3 * wave + 0.02 * rng.standard_normal(size)).astype(np.float32)


def crossing(seed, angle, size=(64, 80)):
    """The same lines, crossing at right angles."""
    both = stripes(seed, angle, size) + stripes(seed + 999, angle + np.pi / 2, size)
    return (both / 2).astype(np.float32)


def checks(seed, size=(64, 80)):
    """The same lines, crossing, in any direction."""
    return crossing(seed, float(np.random.default_rng(seed).uniform(0, np.pi)), size)


def halves(seed, angle):
    """Aligned on the left, crossing on the right; and the map of it."""
    image = stripes(seed, angle)
    image[:, 48:] = checks(seed)[:, 48:]
    return image, np.where(np.arange(80) < 48, 1, 0) * np.ones((64, 1), np.float32)


def small_model(read_options=None, **options):
    encoder = default_alignment_encoder(
        backbone="tiny", weights="random", taps=["1", "4"], n_codewords=4
    )
    if read_options is not None:
        encoder.set_params(read_options=encoder.read_options | read_options)
    learner = Recording(n_estimators=5, Cs=10.0)
    usual = {"encoder": encoder, "window": WINDOW, "boosting": learner, "random_state": 0}
    return AlignmentClassifier(**usual | options)


ANGLES = np.linspace(0, np.pi, 9)[:-1]


@pytest.fixture(scope="module")
def labelled():
    images = [stripes(i, float(angle)) for i, angle in enumerate(ANGLES)]
    return images + [checks(i) for i in range(8)], ["aligned"] * 8 + ["not aligned"] * 8


@pytest.fixture(scope="module")
def model(tiny_backbone, labelled):
    return small_model().fit(*labelled)


def test_aligned_windows_are_distinguished_from_crossing_ones(model):
    images, maps = zip(
        *(halves(50 + i, float(angle + 0.2)) for i, angle in enumerate(ANGLES)), strict=True
    )
    right = []
    for image, truth in zip(images, maps, strict=True):
        found = model.aligned_fraction(image)
        assert found.fraction == pytest.approx(0.6, abs=0.2)
        np.testing.assert_array_equal(found.aligned, (found.proba > 0.5) & ~found.background)
        asked = model.aligned_proba(image, found.rows, found.columns)
        np.testing.assert_allclose(found.proba, asked, atol=1e-5)
        right.append((found.aligned == (truth[8::16, 8::16] == 1))[~found.background])
        assert right[-1].mean() > 0.8
    assert model.score(list(images), list(maps)) == pytest.approx(np.concatenate(right).mean())
    noise = np.random.default_rng(0).standard_normal((64, 80))  # without fibres
    assert not model.aligned_fraction(noise).fraction > 0.2


@pytest.mark.parametrize(("turn", "size"), [(1, (64, 80)), (2, (100, 137)), (3, (70, 90))])
def test_a_right_angle_changes_nothing(model, turn, size):
    image = stripes(11, 0.4, size)
    image[:, 48:] = checks(11, size)[:, 48:]
    straight = model.aligned_fraction(image).proba
    turned = model.aligned_fraction(np.rot90(image, turn)).proba
    assert np.ptp(straight) > 0.1
    np.testing.assert_allclose(turned, np.rot90(straight, turn), atol=1e-6)


KNOWN = [stripes(90, 0.3), checks(91)], [True, False]  # twenty windows of each class


def labels_given(image, y, read_options=None):
    """How many windows of an image are trained on as aligned, and as not aligned."""
    Recording.fits.clear()
    model = small_model(read_options).fit([*KNOWN[0], image], [*KNOWN[1], y])
    labels = list(Recording.fits[0]["y"])
    counts = labels.count("aligned"), labels.count("not aligned")
    assert model.n_windows_ == sum(counts)
    assert model.aligned_share_ == pytest.approx(counts[0] / sum(counts))
    return counts[0] - 20, counts[1] - 20


@pytest.mark.filterwarnings("ignore:a margin was left out")
def test_windows_of_which_little_is_known_are_left_out(tmp_path):
    image, truth = halves(19, 0.2)
    assert labels_given(image, truth) == (12, 8)
    file = tmp_path / "map.png"
    Picture.fromarray((255 * truth).astype(np.uint8)).save(file)
    assert labels_given(image, file) == (12, 8)
    unknown = truth.copy()
    unknown[:32] = np.nan
    unknown[32:43, :16] = np.nan  # eleven of sixteen rows
    unknown[48:, 40:48] = 0  # half of a window
    unknown[48:, 24:33] = 0  # more than half
    assert labels_given(image, unknown) == (4, 5)
    # Maps of whole frames fit images without their banner.
    whole = np.vstack([truth, np.full((6, 80), np.nan)])
    assert labels_given(image, whole, {"banner": "remove"}) == (12, 8)
    flat = image.copy()
    flat[:, 48:] = 0.5  # the background is not trained on
    aligned, others = labels_given(flat, True)
    assert (others, 8 <= aligned <= 16) == (0, True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y": None}, "requires y"),
        ({"y": ["aligned"] * 3}, "16"),
        ({"y": ["aligned"] * 16}, r"of one class: none of \d+ is 'not aligned'"),
        ({"y": [1.5] * 16}, "y of image 0 .*: expected 'aligned'"),
        ({"y": ["Aligned"] * 16}, "there is no such file"),
        ({"y": [np.zeros((9, 9))] + [True] * 15}, "map .y. of image 0"),
        ({"groups": [1, 2]}, "groups"),
        ({"window": 100}, "smaller than a patch of 100"),
        ({"encoder": HypercolumnVLAD()}, "alignment is judged at an image's own size"),
        ({"encoder": default_alignment_encoder(pixel_size=2.0)}, "image's own pixels"),
    ],
)
def test_unusable_input_is_named(labelled, change, words):
    images, y = labelled
    change = dict(change)
    y, groups = change.pop("y", y), change.pop("groups", None)
    model = small_model(**change)
    with pytest.raises(ValueError, match=words):
        model.fit(images, y, groups=groups)
    with pytest.raises(NotFittedError):
        model.predict(images)


def test_a_damaged_state_is_an_error(labelled):
    plain = small_model(boosting=BoostedSoftmaxClassifier(n_estimators=0, Cs=10.0))
    header, arrays = plain.fit(*(each[4:12] for each in labelled)).to_state()
    learner = "fitted/boosting_/state/fitted"
    other = replaced(header, f"{learner}/classes_/values", ["a", "b"])
    narrow = replaced(header, f"{learner}/n_features_in_", 5)
    narrow = replaced(narrow, f"{learner}/linear_coef_/shape", [5, 1])
    narrow = replaced(narrow, f"{learner}/block_widths_", [5])
    of_five = {**arrays, "boosting_.linear_coef_": np.zeros((5, 1))}
    for state in ((other, arrays), (narrow, of_five)):
        with pytest.raises(ModelFileError):
            AlignmentClassifier.from_state(*state)
