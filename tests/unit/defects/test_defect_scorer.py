"""`PatchDefectScorer`: three ways to train it, maps, thresholds, files, errors."""

import numpy as np
import pytest
import tifffile
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from support.damage import damaged, replaced
from support.surfaces import PATCH, blotted, surface

from hypervlad import HypercolumnVLAD, ImageReadError, ModelFileError, PatchDefectScorer
from hypervlad.evaluation import evaluate_defects, patch_confusion
from hypervlad.features import cut_patches
from hypervlad.images import SkippedImagesWarning, TrainingImagesWarning

pytestmark = pytest.mark.filterwarnings("ignore:Classes with only one or two:UserWarning")


def with_masks(n_good, n_bad, good, bad):
    """Some defect-free and some defective images, and their masks."""
    images, masks = zip(*bad[:n_bad], strict=True)
    return [*good[:n_good], *images], [*[None] * n_good, *masks]


def stored(path, pixels, pixel_size):
    grey, scale = np.uint8(np.round(255 * pixels)), (1 / pixel_size, 1 / pixel_size)
    tifffile.imwrite(path, grey, imagej=True, resolution=scale, metadata={"unit": "nm"})
    return path


# --- three ways to train it ----------------------------------------------------------------------


def test_trained_on_defect_free_images(fitted, bad):
    images = [surface(seed) for seed in range(50, 58)] + [image for image, _ in bad]
    assert roc_auc_score([0] * 8 + [1] * 8, fitted.score_samples(images)) == 1
    assert set(fitted.predict(images[8:])) == {"anomalous"}
    for image, mask in bad:
        found = fitted.find(image)
        assert found.map.shape == mask.shape
        assert found.map.dtype == np.float32
        assert roc_auc_score(mask.ravel(), found.map.ravel()) > 0.9
        np.testing.assert_array_equal(fitted.predict_map(image), found.mask)
        region = found.regions[0]
        assert mask[region.window][region.mask].any()
        assert 0.9 <= region.area / mask.sum() <= 1.1  # ends at the edges of the image
        assert region.contrast < -0.2  # dark spots
        assert region.breadth <= region.length <= np.hypot(region.height, region.width)
    assert not hasattr(fitted, "probability_map")
    with pytest.raises(AttributeError):
        _ = fitted.boosting_


@pytest.mark.parametrize("radius", [2, 4])
def test_what_is_far_from_a_striking_defect_is_no_region(fitted, radius):
    """A striking defect raises the scores of all places of its image."""
    for seed in range(200, 204):
        image, mask = blotted(seed, (20, 30), radius)
        (region,) = fitted.find(image).regions
        assert mask[region.window][region.mask].any()


def test_trained_on_masks(scorer, good, bad):
    images, masks = with_masks(4, 4, good, bad)
    scorer.set_params(threshold="f1").fit(images, masks=masks)
    for image, mask in bad[6:]:
        assert roc_auc_score(mask.ravel(), scorer.score_map(image).ravel()) > 0.95
        probabilities = scorer.probability_map(image)
        assert 0 <= probabilities.min() < 0.5 < probabilities.max() <= 1
        assert patch_confusion(scorer.predict_map(image), mask, PATCH).recall == 1
    assert set(scorer.predict(good[6:])) == {"normal"}


def test_trained_on_patches_of_several_kinds(scorer, good):
    pixels = cut_patches(good[:2], patch=PATCH).pixels
    dark, bright = pixels[:8] * 0.1, np.minimum(pixels[:8] + 0.5, 1)
    labels = ["normal"] * len(pixels) + ["pit"] * 8 + ["spark"] * 8
    scorer.set_params(fpr=0.2).fit([*pixels, *dark, *bright], labels)
    image = surface(77)
    image[10:30, 10:30] *= 0.1
    image[10:30, 40:60] = np.minimum(image[10:30, 40:60] + 0.5, 1)
    found = scorer.score_map(image)
    assert found[20, 20] > 0 < found[20, 50]
    assert np.median(found[32:]) < 0
    # Windows are a quarter of a patch apart, and the map is that of their middles.
    assert scorer.stride_ == 3
    assert scorer.score_samples([image])[0] == pytest.approx(found.max(), abs=3)
    with pytest.raises(ImageReadError):
        scorer.fit(good[:2], ["normal", "pit"])


def test_aligned_parts_are_compared_at_the_same_place(scorer):
    def part(seed, has_extra_hole=False):
        image = surface(seed, (96, 120))
        image[20:32, 30:42] = 0.05  # a hole that belongs to the part
        if has_extra_hole:
            image[60:72, 80:92] = 0.05
        return image

    scorer.set_params(aligned=True, n_planted=0).fit([part(seed) for seed in range(10)])
    found = scorer.score_map(part(30, has_extra_hole=True))
    assert found[60:72, 80:92].mean() > 3 * found[20:32, 30:42].mean()
    with pytest.warns(UserWarning, match="one is 96 x 80 and another 96 x 120 pixels"):
        scorer.fit([part(1), part(2)[:, :80], part(3)])


@pytest.mark.filterwarnings("ignore:a scale bar was left out:UserWarning")
@pytest.mark.parametrize("how", ["defect-free images", "masks", "patches"])
def test_what_was_drawn_into_an_image_is_no_defect(scorer, good, bad, how):
    def with_bar(image):
        image = image.copy()
        image[100:104, 90:140] = 1
        return image

    plain = surface(77, (120, 160))
    if how == "patches":
        pixels = cut_patches(good[:2], patch=PATCH).pixels
        labels = ["normal"] * len(pixels) + ["spark"] * 8
        scorer.fit([*pixels, *np.minimum(pixels[:8] + 0.5, 1)], labels)
    elif how == "masks":
        images, masks = with_masks(4, 4, good, bad)
        drawn = list(np.zeros((2, 120, 160), bool))
        drawn[0][20:50, 20:50] = True
        defective = np.where(drawn[0], 0.1, surface(8, (120, 160))).astype(np.float32)
        scorer.fit(
            [*images, with_bar(defective), with_bar(surface(9, (120, 160)))], masks=masks + drawn
        )
    else:
        scorer.fit([*good, with_bar(surface(9, (120, 160)))])
    usual, found = scorer.find(plain), scorer.find(with_bar(plain))
    assert [each.kind for each in found.annotations] == ["scale bar"]
    assert 0.1 < found.annotation_share < 0.2
    assert found.score == pytest.approx(usual.score, abs=0.3 * abs(usual.score))
    assert 0 == np.ptp(found.map[88:116, 78:152]) == found.mask[88:116, 78:152].sum()
    kept = scorer.set_params(annotations="keep").find(with_bar(plain))
    assert kept.annotation_share == 0 < np.ptp(kept.map[88:116, 78:152])
    if how != "masks":  # whose defects are dark
        assert kept.score > found.score + 3


# --- thresholds ----------------------------------------------------------------------------------


def test_an_image_is_anomalous_if_its_score_reaches_the_threshold(fitted, good, bad):
    for image in [good[0], bad[0][0]]:
        (score,) = fitted.score_samples([image])
        assert score == fitted.find(image).score != fitted.score_map(image).max()
        fitted.set_threshold(np.nextafter(np.float32(score), np.float32(-np.inf)), regions=0.5)
        highest = fitted.find(image).regions[0]
        assert fitted.predict([image]).tolist() == ["anomalous"]
        fitted.set_threshold(fitted.threshold_, regions=1000)
        (region,) = fitted.find(image).regions  # always one, around the highest peak
        assert (region.score, region.area) == (highest.score, highest.area)
        fitted.set_threshold(np.nextafter(np.float32(score), np.float32(np.inf)), regions=0.5)
        assert fitted.predict([image]).tolist() == ["normal"]
        assert not fitted.predict_map(image).any()
        fitted.set_threshold(score)  # rounded to single precision
        assert fitted.predict_map(image).any() == (fitted.predict([image])[0] == "anomalous")
    before = fitted.threshold_, fitted.region_rule_
    for given in ((float("nan"),), (1e39,), ("2",), (1.0, float("nan")), (1.0, "2")):
        with pytest.raises(ValueError):
            fitted.set_threshold(*given)
    assert before == (fitted.threshold_, fitted.region_rule_)


def test_a_few_bad_images_among_the_good_do_little_harm(scorer, good, bad):
    scorer.set_params(n_planted=0).fit([*good, *good[:2], *(image for image, _ in bad[:3])])
    held_out = scorer.held_out_
    assert len(held_out.scores) == len(good) + 3  # copies are no further evidence
    assert set(held_out.images[np.argsort(held_out.scores)[-3:]]) == {14, 15, 16}
    assert held_out.n_images_above(held_out.scores.max()) == 1
    defect_free = scorer.score_samples([surface(seed) for seed in range(500, 520)])
    defective = scorer.score_samples([image for image, _ in bad[3:]])
    assert defective.min() > defect_free.max()
    assert (defective >= scorer.threshold_).all()
    assert (defect_free >= scorer.threshold_).mean() <= 0.2


@pytest.mark.parametrize("labelled", [False, True])
def test_the_order_of_images_does_not_matter(scorer, good, bad, labelled):
    images, masks = with_masks(3, 3, good, bad) if labelled else (good[:6], None)
    scorer.set_params(n_planted=0)
    one = clone(scorer).fit(images, masks=masks)
    other = clone(scorer).fit(images[::-1], masks=None if masks is None else masks[::-1])
    np.testing.assert_array_equal(one.score_map(good[0]), other.score_map(good[0]))
    assert one.threshold_ == other.threshold_


# --- images --------------------------------------------------------------------------------------


def test_training_images_are_recognised_by_their_pixels(scorer, good, bad, tmp_path):
    images, masks = with_masks(5, 4, good, bad)
    files = [stored(tmp_path / f"{i}.tif", each, 2.0) for i, each in enumerate([*images, good[6]])]
    scorer.encoder.set_params(pixel_size=2.0)
    scorer.fit([*files[:-1], files[0]], masks=[*masks, None])
    assert [scorer.find(file).in_training for file in files] == [True] * 9 + [False]
    assert (len(scorer.training_), scorer.training_.n_copies, scorer.n_images_) == (10, 1, 10)
    none = [np.zeros(images[0].shape, dtype=bool)] * 3
    with pytest.warns(TrainingImagesWarning, match=r"^2 of 3 images are training images \(the sa"):
        evaluate_defects(scorer, files[-3:], none, list("abc"))
    evaluate_defects(scorer, files[-1:], none[:1], ["c"])  # a warning would be an error


def test_images_are_brought_to_a_common_pixel_size(scorer, tmp_path, recwarn):
    """Patches and sizes of defects are in the pixels of each image."""
    scorer.encoder.set_params(pixel_size=2.0)
    scorer.set_params(n_planted=72, fpr=0.1)
    scorer.fit([stored(tmp_path / f"{i}.tif", surface(i), 2.0) for i in range(10)])
    assert scorer.limits_.pixel_size == 2.0
    image, _ = blotted(100, (25, 25))
    coarse = stored(tmp_path / "coarse.tif", image, 2.0)
    fine = stored(tmp_path / "fine.tif", np.kron(image, np.ones((4, 4))), 0.5)
    assert scorer.score_map(fine).shape == (192, 240)
    # On older processors the outline differs by some pixels; a wrong scale, by a factor of 16.
    intervals = [scorer.find(file).regions[0].area_interval for file in (coarse, fine)]
    assert intervals[1] == pytest.approx([16 * end for end in intervals[0]], rel=0.3)
    scorer.find(image)
    assert "so not resampled to 2 nm per pixel" in str([each.message for each in recwarn])


def test_images_that_cannot_be_used_may_be_skipped(scorer, good):
    odd = ["nothing.png", surface(0, (10, 40))]
    with pytest.raises(ImageReadError, match="10 x 40 pixels, smaller than a patch of 12 x 12"):
        scorer.fit([*good[:3], odd[1]])
    scorer.encoder.set_params(on_error="skip")
    with pytest.warns(SkippedImagesWarning):
        scorer.fit([*odd, *good[:3]])
    assert scorer.n_images_ == 3
    with pytest.warns(SkippedImagesWarning):
        scores, called = (
            method([odd[1], good[0], odd[0]]) for method in (scorer.score_samples, scorer.predict)
        )
    assert np.isnan(scores).tolist() == [True, False, True]
    assert [each is None for each in called] == [True, False, True]


def test_suspicious_training_images_are_reported(scorer, good, bad):
    blank = np.full_like(good[0], 0.25)
    with pytest.warns(UserWarning, match="1 of 6 training images is blank, .*: image 2 of the li"):
        scorer.fit([*good[:2], blank, *good[2:5]])
    images, masks = with_masks(4, 8, good, bad)
    inverted = [None if mask is None else ~mask for mask in masks]
    with pytest.warns(UserWarning, match="are these masks inverted"):
        scorer.fit(images, masks=inverted)


# --- what is refused -----------------------------------------------------------------------------

MASK = np.zeros((48, 60), bool)


@pytest.mark.parametrize(
    ("parameters", "given", "words"),
    [
        ({"threshold": "f1"}, {}, "needs masks or labels"),
        ({"fpr": 1.0}, {}, "fpr must be a share of images above 0"),
        ({"encoder": HypercolumnVLAD()}, {}, "resizes images to 224 pixels"),
        ({"encoder": HypercolumnVLAD(image_size=None, turns=2)}, {}, "turns must be 1"),
        ({"aligned": True}, {"masks": [None, None, ~MASK]}, "aligned=True compares places of def"),
        ({}, {"masks": [None, None, MASK[:, 1:]]}, "image 2 .* 48 x 59 .*an image of 48 x 60"),
        ({}, {"masks": [MASK] * 3}, "the masks mark no cell as defective"),
        ({}, {"masks": [~MASK] * 3}, "the masks leave no cell without defects"),
        ({}, {"masks": [None, None, "nowhere.png"]}, "nowhere.png: there is no such mask"),
        ({}, {"masks": [None] * 2}, "2 masks for 3 images"),
        ({}, {"y": ["normal", "", "anomalous"]}, r"label \(y\) of image 1 is empty"),
        ({}, {"y": ["anomalous"] * 3}, "expected 'normal' and at least one other"),
        ({}, {"y": ["normal"] * 3, "masks": [MASK] * 3}, "not both"),
    ],
)
def test_what_does_not_fit_is_refused(scorer, good, parameters, given, words):
    with pytest.raises(ValueError, match=words):  # an ImageReadError is one
        scorer.set_params(**parameters).fit(good[:3], **given)
    assert not hasattr(scorer, "model_")


MODEL = "fitted/model_/state"
RULE = "fitted/region_rule_/state"
FACTS = {
    "normal": [
        ("fitted/patch_", 0),
        *((f"{MODEL}/scale", value) for value in (float("nan"), None, 0.0)),
        (f"{MODEL}/parts", [[None, 1, False]]),
        *((f"{RULE}/least", value) for value in (float("nan"), "1")),
        (f"{RULE}/usual", float("inf")),
    ],
    "masks": [(f"{MODEL}/learner/state/fitted/classes_/values", ["a", "b"])],
}
ARRAYS = {
    "normal": [
        ("model_.parts.2.codewords", np.zeros((0, 16), np.float32)),
        ("model_.parts.2.codewords", np.full((4, 16), 1e9, np.float32)),
        ("model_.parts.0.usual", np.zeros((28, 28), np.float32)),
        ("model_.parts.3.spread", np.zeros(25, np.float32)),
        ("model_.weights", np.ones(4, np.float32)),
        ("model_.weights", np.array([0, 0, 0, 1], np.float32)),
    ],
    "masks": [],
}


@pytest.mark.parametrize("kind", list(FACTS))
def test_a_damaged_state_is_an_error(scorer, good, bad, kind):
    images, masks = with_masks(2, 2, good, bad) if kind == "masks" else (good[:3], None)
    scorer.set_params(n_planted=0)
    header, arrays = scorer.fit(images, masks=masks).to_state()
    PatchDefectScorer.from_state(header, dict(arrays))
    states = [(replaced(header, *each), arrays) for each in FACTS[kind]]
    states += [(header, {**arrays, name: values}) for name, values in ARRAYS[kind]]
    states += [(header, each) for part in ("model_", "held_out_") for each in damaged(arrays, part)]
    for state in states:
        with pytest.raises(ModelFileError):
            PatchDefectScorer.from_state(*state)
