"""What a model remembers of its training images: distances and limits, by loops, and digests."""

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.distance import cdist
from sklearn.base import clone

from hypervlad import load
from hypervlad.images import TrainingImagesWarning, read_micrograph


@pytest.fixture(scope="module")
def wide(fitted_once, texture_images):
    """A model of vectors of more than 1,024 numbers, which are projected."""
    return clone(fitted_once).set_params(encoder__n_codewords=64).fit(*texture_images)


def test_projections_keep_distances(wide, texture_images):
    vectors = wide.encoder_.transform(texture_images[0])
    points = wide.judge_vectors(vectors, 0.4).projected
    assert (vectors.shape, points.shape) == ((24, 1536), (24, 1024))
    apart = cdist(points, points) / np.maximum(cdist(vectors, vectors), 1e-9)
    apart = apart[np.triu_indices(24, 1)]
    assert abs(apart.mean() - 1) < 0.02
    assert apart.std() < 0.04
    np.testing.assert_allclose(points, wide.training_.points, atol=1e-6)
    assert wide.judge_vectors(vectors[:0], 0.4).projected.shape == (0, 1024)


def test_projections_are_linear_and_the_same_everywhere(wide):
    """A model file holds projections, which another version of a library must not change."""
    line = np.linspace(-1, 1, 1536)
    vectors = np.stack([line, line**2, line + 2 * line**2])
    first, second, both = wide.judge_vectors(vectors, 0.4).projected
    np.testing.assert_allclose(both, first + 2 * second, atol=1e-4)
    np.testing.assert_allclose(first[:3], [0.103345, 0.287407, -0.543799], atol=1e-4)


def limit_of(values, groups, share):
    """Return the lowest value that at most a share of the values of new groups exceed."""
    names = set(groups.tolist())

    def weight_above(limit):
        own = [np.mean(values[groups == name] > limit) for name in names]
        return float(1 + np.sum(own)) / (len(names) + 1)

    fine = [value for value in values.tolist() if weight_above(value) <= share + 1e-12]
    return float(min(fine) if fine else values.max())


class Slow:
    """Distance and emptiness as the documentation has them, image by image."""

    def __init__(self, points, labels, groups, empty):
        self.points, self.labels, self.empty = points, labels.tolist(), empty
        n, self.names = len(points), sorted(set(labels.tolist()))
        self.to_empty = [self.least(point, empty) for point in points]
        usual_to_empty = {
            name: np.median([self.to_empty[i] for i in range(n) if self.labels[i] == name])
            for name in self.names
        }
        # Nearer than a tenth of what is usual in its class, an image has no content.
        self.full = [
            i for i in range(n) if self.to_empty[i] >= 0.1 * usual_to_empty[self.labels[i]]
        ]
        elsewhere = [[j for j in range(n) if groups[j] != groups[i]] for i in range(n)]
        own = [
            self.mean_of_three(points[i], [j for j in elsewhere[i] if labels[j] == labels[i]])
            for i in range(n)
        ]
        compared = [i for i in range(n) if np.isfinite(own[i])]
        overall = np.median([own[i] for i in compared]) if compared else 1.0
        of_class = {
            name: [own[i] for i in compared if self.labels[i] == name] for name in self.names
        }
        self.usual = {k: np.median(values) if values else overall for k, values in of_class.items()}
        # A class of one group cannot be compared with others of its own, unless none can.
        used = compared or list(range(n))
        scores = np.array([self.scores(points[i], elsewhere[i]) for i in range(n)])
        self.limits = [
            self.limit(scores[:, kind], groups, rows, 0.025 if len(empty) else 0.05)
            for kind, rows in enumerate((used, [i for i in used if i in self.full]))
        ]

    @staticmethod
    def least(point, others):
        return min((float(np.linalg.norm(point - each)) for each in others), default=np.inf)

    def mean_of_three(self, point, others):
        far = sorted(float(np.linalg.norm(point - self.points[j])) for j in others)
        return float(np.mean(far[:3])) if far else np.inf

    def scores(self, point, others):
        distance = min(
            self.mean_of_three(point, [j for j in others if self.labels[j] == name])
            / self.usual[name]
            for name in self.names
        )
        nearest = self.least(point, self.points[[j for j in others if j in self.full]])
        blank = max(self.least(point, self.empty), 0.01 * float(np.median(self.to_empty)))
        return distance, nearest / blank if len(self.empty) else 0.0

    @staticmethod
    def limit(values, groups, rows, share):
        """Leave out what is far above the quartiles, unless it is more than one in twenty."""
        logs = {i: np.log(np.clip(values[i], 2.3e-308, 1.7e308)) for i in rows}
        low, high = np.quantile([*logs.values()], [0.25, 0.75])
        inner = [i for i in rows if logs[i] <= high + 2 * (high - low)]
        kept = inner if len(rows) - len(inner) <= max(1, len(rows) / 20) else rows
        return limit_of(values[kept], groups[kept], share)

    def novelty(self, point):
        found = zip(self.scores(point, list(range(len(self.points)))), self.limits, strict=True)
        return max(score / max(limit, 2.3e-308) for score, limit in found)


GROUPS = {
    "own": lambda labels: np.arange(len(labels)),
    "pairs": lambda labels: np.arange(len(labels)) // 2,
    "four": lambda labels: np.arange(len(labels)) // 6,
    "one class in one group": lambda own: np.where(own == "rings", 99, np.arange(len(own))),
    "each class in one group": lambda labels: np.unique(labels, return_inverse=True)[1],
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("groups", "noise", "n_blank"),
    [(name, noise, n % 4) for n, name in enumerate(GROUPS) for noise in (0.0, 0.3)]
    + [("own", 0.3, 1), ("pairs", 0.3, 3)],
)
def test_novelty_is_that_of_a_slow_search(model, texture_images, groups, noise, n_blank):
    rng = np.random.default_rng(n_blank)
    images, labels = texture_images
    images = [np.clip(im + noise * rng.normal(size=im.shape), 0, 1) for im in images]
    images[:n_blank] = [np.full((20, 24), grey) for grey in (0.1, 0.4, 0.8)[:n_blank]]
    model.set_params(calibrate=False).fit(images, labels, groups=GROUPS[groups](labels))
    training = model.training_
    slow = Slow(training.points, training.labels, training.groups, training.empty)
    np.testing.assert_allclose(training.usual, [*slow.usual.values()], rtol=1e-3)
    np.testing.assert_allclose(training.limits, slow.limits, rtol=1e-3)
    spread = training.points.std(axis=0) * rng.normal(size=(6, training.points.shape[1]))
    new = (training.points[:6] + spread).astype(np.float32)
    rows, novelty = training.nearest(new)
    np.testing.assert_allclose(novelty, [slow.novelty(point) for point in new], rtol=1e-3)
    np.testing.assert_array_equal(rows, np.argsort(cdist(new, training.points), axis=1)[:, :3])


@pytest.mark.filterwarnings("ignore:2 of 25 training images are blank:UserWarning")
def test_training_images_are_recognised_by_their_pixels(model, texture_images, tmp_path):
    images, labels = texture_images
    own = [*images[2:], images[5], *[np.full((32, 32), 0.5)] * 2]
    model.fit(own, [*labels[2:], labels[5], labels[0], labels[0]])
    model.save(tmp_path / "m.hvlad")
    for each in (model, load(tmp_path / "m.hvlad")):
        assert each.classify([*images[:1], *own]).in_training.tolist() == [False] + [True] * 25
        digests = each.training_.digests
        assert digests.texts() == [read_micrograph(image).digest for image in own]
        assert digests.n_copies == 1, "blank images are copies of none"
    changed = images[5].copy()
    changed[0, 0] += 0.01
    assert not model.classify([changed]).in_training[0]


def test_a_score_on_training_images_warns(model, texture_images):
    images, labels = texture_images
    model.fit(images[3:], labels[3:])
    with pytest.warns(TrainingImagesWarning, match=r"^21 of 24 images are training images"):
        accuracy = model.score(images, labels)
    assert accuracy == (model.predict(images) == labels).mean()
    model.score(images[:3], labels[:3])  # a warning would be an error


def test_equal_images_of_different_labels_are_listed(model, texture_images):
    images, labels = texture_images
    assert labels[1] != labels[0]
    copies = [*images, images[0], images[4]]
    with pytest.warns(UserWarning, match="different labels") as warned:
        model.fit(copies, [*labels, labels[1], labels[4]])
    (message,) = [str(w.message) for w in warned if "different labels" in str(w.message)]
    assert f"image 0 ({labels[0]}) = image 24 ({labels[1]})." in message
    assert "image 4" not in message
    assert model.training_.groups[4] == model.training_.groups[25]


def grey(height=100, width=200, dtype="uint8"):
    pattern = np.add.outer(np.arange(height), np.arange(width)) % 251
    return pattern.astype(dtype) if dtype.startswith("u") else (pattern / 255).astype(dtype)


MIXED = [grey(dtype=name) for name in ("uint16", "float32")]


@pytest.mark.filterwarnings("ignore:(.* are near copies|Classes with only one)")
@pytest.mark.parametrize(
    ("training", "new", "words"),
    [
        ([grey(), grey(300, 300, "uint16")], [grey(), grey(dtype="uint16"), grey(50, 600)], []),
        ([grey()], [grey(), *MIXED], ["training images (uint8): image 1 of"]),
        ([grey(dtype="float32")], [grey(dtype="float64")], []),
        ([grey()], [grey() / 255], []),
        ([grey() / 255], [grey()], []),
        *(([grey()], [grey(*sides)], []) for sides in ((400, 900), (50, 50))),
        ([grey()], [grey(401, 500)], ["(401 x 500); details"]),
        ([grey()], [grey(49, 49)], ["(49 x 49); details"]),
        ([grey()], [grey(500, 500, "uint16")], ["(uint16); their", "(500 x 500)"]),
    ],
)
def test_files_unlike_those_of_the_training_are_named(model, training, new, words, tmp_path):
    rng = np.random.default_rng(0)
    images = [rng.permuted(image, axis=1) for k in range(8) for image in training]
    labels = ["a", "b"] * (len(images) // 2)
    model.set_params(calibrate=False).fit(images, labels)
    model.save(tmp_path / "m.hvlad")
    for chunk_size in (None, 1):
        found = load(tmp_path / "m.hvlad").classify(new, chunk_size=chunk_size).differences
        found = [each for each in found if "unlike nearly all" not in each]
        assert all(each in sentence for each, sentence in zip(words, found, strict=True))
    Image.fromarray(grey(dtype="uint16")).save(path := tmp_path / "twice.png")
    said = model.classify([path] * 2)
    assert " ".join(said.differences).count("(uint16)") == 2 * (len(training) == 1)
    assert ["this image (uint16)" in note for note in said.notes] == [len(training) == 1] * 2
    model.set_params(encoder__read_options={"scaling": "minmax"})
    found = model.fit(images, labels).classify(new).differences
    assert not any("another type" in sentence for sentence in found), "each has its own scale"
