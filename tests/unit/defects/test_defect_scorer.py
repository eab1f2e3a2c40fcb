"""`PatchDefectScorer`: three ways to train it, maps, thresholds, files, errors."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from support.surfaces import CELL, PATCH, blotted, surface

from hypervlad import (
    HypercolumnVLAD,
    ImageReadError,
    ModelFileError,
    PatchDefectScorer,
    load,
)
from hypervlad.evaluation import (
    evaluate_defects,
    expected_calibration_error,
    patch_confusion,
)
from hypervlad.features import cut_patches
from hypervlad.features.backbones import TappedNetwork
from hypervlad.features.windows import WindowGrid, patch_means
from hypervlad.images import SkippedImagesWarning, TrainingImagesWarning
from hypervlad.results import DefectMapDisplay

Image = NDArray[np.float32]
Flawed = list[tuple[Image, NDArray[np.bool_]]]


def with_masks(
    n_good: int, n_bad: int, good: list[Image], bad: Flawed
) -> tuple[list[Image], list[NDArray[np.bool_] | None]]:
    """Some defect-free and some defective images, and their masks."""
    images, masks = zip(*bad[:n_bad], strict=True)
    return [*good[:n_good], *images], [*[None] * n_good, *masks]


def write_scaled(path: Path, image: NDArray[Any], pixels_per_unit: float, unit: str) -> Path:
    tifffile.imwrite(
        path, image, imagej=True, resolution=(pixels_per_unit,) * 2, metadata={"unit": unit}
    )
    return path


def test_trained_on_defect_free_images(fitted: PatchDefectScorer, bad: Flawed) -> None:
    images = [surface(seed) for seed in range(50, 58)] + [image for image, _ in bad]
    scores = fitted.score_samples(images)
    assert roc_auc_score([0] * 8 + [1] * 8, scores) == 1
    assert set(fitted.predict(images[8:])) == {"anomalous"}
    for image, mask in bad:
        found = fitted.score_map(image)
        assert found.shape == mask.shape
        assert found.dtype == np.float32
        y, x = np.unravel_index(found.argmax(), found.shape)
        rows, columns = np.nonzero(mask)
        assert abs(y - rows.mean()) < PATCH
        assert abs(x - columns.mean()) < PATCH
        assert roc_auc_score(mask.ravel(), found.ravel()) > 0.9
        assert fitted.predict_map(image).any()
    assert not hasattr(fitted, "probability_map")


def test_trained_on_masks(scorer: PatchDefectScorer, good: list[Image], bad: Flawed) -> None:
    images, masks = with_masks(4, 4, good, bad)
    scorer.set_params(threshold="f1").fit(images, masks=masks)
    for image, mask in bad[6:]:
        assert roc_auc_score(mask.ravel(), scorer.score_map(image).ravel()) > 0.95
        probabilities = scorer.probability_map(image)
        assert 0 <= probabilities.min() < 0.5 < probabilities.max() <= 1
        confusion = patch_confusion(scorer.predict_map(image), mask, PATCH)
        assert confusion.recall == 1
    assert set(scorer.predict(good[6:])) == {"normal"}


@pytest.mark.slow  # hundreds of images
def test_several_kinds_of_defects(scorer: PatchDefectScorer, good: list[Image]) -> None:
    patches = cut_patches(good[:4], patch=PATCH)
    dark, bright = patches.pixels[:20] * 0.1, np.minimum(patches.pixels[:20] + 0.5, 1)
    labels = ["normal"] * len(patches) + ["pit"] * 20 + ["spark"] * 20
    scorer.fit([*patches.pixels, *dark, *bright], labels)
    image = surface(77)
    image[10:30, 10:30] *= 0.1
    image[10:30, 40:60] = np.minimum(image[10:30, 40:60] + 0.5, 1)
    found = scorer.score_map(image)
    assert found[20, 20] > 0
    assert found[20, 50] > 0
    assert np.median(found[32:]) < 0
    scores, positions = scorer.score_patches(image)
    worst = positions[scores.argmax()] + PATCH / 2
    assert np.abs(worst - (20, 20)).max() < PATCH or np.abs(worst - (20, 50)).max() < PATCH


def test_patches_side_by_side_and_of_another_size(
    fitted: PatchDefectScorer, good: list[Image]
) -> None:
    scores, positions = fitted.score_patches(good[0])
    assert len(scores) == len(positions) == 4 * 5
    larger, positions = fitted.score_patches(good[0], patch=24)
    assert len(larger) == 2 * 3
    assert positions[-1].tolist() == [24, 36]
    with pytest.raises(ValueError, match="patch must be a whole number"):
        fitted.score_patches(good[0], patch=0)


def test_an_image_is_anomalous_if_its_score_reaches_the_threshold(
    fitted: PatchDefectScorer, good: list[Image], bad: Flawed
) -> None:
    for image in [good[0], bad[0][0]]:
        (score,) = fitted.score_samples([image])
        assert score == fitted.find(image).score != fitted.score_map(image).max()
        fitted.set_threshold(np.nextafter(np.float32(score), np.float32(-np.inf)), regions=0.5)
        assert fitted.predict_map(image).any()
        assert fitted.predict([image]).tolist() == ["anomalous"]
        fitted.set_threshold(fitted.threshold_, regions=1000)
        assert (fitted.find(image).is_defective, fitted.find(image).regions) == (True, [])
        fitted.set_threshold(fitted.threshold_, regions=0.5)
        fitted.set_threshold(np.nextafter(np.float32(score), np.float32(np.inf)))
        assert fitted.predict([image]).tolist() == ["normal"]
        assert not fitted.predict_map(image).any()
        fitted.set_threshold(score)  # rounded to single precision
        assert fitted.predict_map(image).any() == (fitted.predict([image])[0] == "anomalous")


@pytest.mark.parametrize("value", [float("nan"), 1e39, "2"])
def test_thresholds_are_numbers_in_single_precision(fitted: PatchDefectScorer, value: Any) -> None:
    before = fitted.threshold_, fitted.region_rule_
    for name, values in (("threshold", (value,)), ("regions", (1.0, value))):
        with pytest.raises(ValueError, match=f"{name} must be a number"):
            fitted.set_threshold(*values)
    assert before == (fitted.threshold_, fitted.region_rule_)


def test_held_out_scores_of_the_training_images(
    scorer: PatchDefectScorer, good: list[Image], bad: Flawed
) -> None:
    """They come from models without the image, so they are like those of new images."""
    scorer.set_params(fpr=0.1).fit([*good, bad[0][0]])
    held_out = scorer.held_out_
    assert held_out.images.tolist() == list(range(len(good) + 1))
    assert held_out.scores.argmax() == len(good)  # the defective one among them
    assert held_out.n_images_above(held_out.scores.max()) == 1
    assert scorer.threshold_ > held_out.scores.max()
    new = scorer.score_samples([surface(seed) for seed in range(50, 62)])
    assert np.median(held_out.scores[:-1]) == pytest.approx(np.median(new), abs=2 * new.std())


@pytest.mark.slow  # two fits
@pytest.mark.parametrize("aligned", [False, True])
def test_held_out_scores_are_not_lower_than_those_of_new_images(
    scorer: PatchDefectScorer, aligned: bool
) -> None:
    """What is usual must not be learnt from the image itself: then too much would be called."""
    false = []
    for start in (0, 100):
        scorer.set_params(aligned=aligned, fpr=0.1)
        scorer.fit([surface(start + i) for i in range(12)])
        new = scorer.score_samples([surface(start + 50 + i) for i in range(30)])
        false.append(np.mean(new >= scorer.threshold_))
    assert np.mean(false) <= 0.16  # of 60 images


def test_copies_are_no_further_evidence(scorer: PatchDefectScorer, good: list[Image]) -> None:
    scorer.fit([*good[:4], *good[:4]])
    assert len(scorer.held_out_.scores) == 4


def test_aligned_parts_are_compared_at_the_same_place(scorer: PatchDefectScorer) -> None:
    def part(seed: int, has_extra_hole: bool = False) -> Image:
        image = surface(seed, (96, 120))
        image[20:32, 30:42] = 0.05  # a hole that belongs to the part
        if has_extra_hole:
            image[60:72, 80:92] = 0.05
        return image

    scorer.set_params(aligned=True).fit([part(seed) for seed in range(10)])
    found = scorer.score_map(part(30, has_extra_hole=True))
    assert found[60:72, 80:92].mean() > 3 * found[20:32, 30:42].mean()
    with pytest.warns(UserWarning, match="one is 96 x 80 and another 96 x 120 pixels"):
        scorer.fit([part(1), part(2)[:, :80], part(3)])
    with pytest.raises(ValueError, match="aligned=True compares places of defect-free images"):
        scorer.fit([part(1), part(2)], masks=[None, np.ones((96, 120), dtype=bool)])


@pytest.mark.slow  # two fits, each with five folds
@pytest.mark.parametrize("labelled", [False, True])
def test_the_order_of_images_does_not_matter(
    scorer: PatchDefectScorer, good: list[Image], bad: Flawed, labelled: bool
) -> None:
    images, masks = with_masks(4, 4, good, bad) if labelled else (good, None)
    scorer.set_params(threshold="f1" if labelled else "fpr")
    one = clone(scorer).fit(images, masks=masks)
    other = clone(scorer).fit(images[::-1], masks=None if masks is None else masks[::-1])
    np.testing.assert_array_equal(one.score_map(good[0]), other.score_map(good[0]))
    assert one.threshold_ == other.threshold_


def test_regions_of_defects(fitted: PatchDefectScorer, bad: Flawed) -> None:
    for image, mask in bad:
        region = fitted.find(image).regions[0]
        assert mask[region.window][region.mask].any()
        assert 0.9 <= region.area / mask.sum() <= 1.1  # ends at the edges of the image
        assert region.contrast < -0.2  # dark spots
        assert region.breadth <= region.length <= np.hypot(region.height, region.width)


@pytest.mark.slow  # a fit with five folds
@pytest.mark.parametrize("labelled", [False, True])
def test_a_file_brings_the_same_back(
    scorer: PatchDefectScorer, good: list[Image], bad: Flawed, labelled: bool, tmp_path: Path
) -> None:
    images, masks = with_masks(5, 4, good, bad) if labelled else (good, None)
    scorer.fit(images, masks=masks).set_threshold(1.25)
    scorer.set_params(tile_size=4096).save(tmp_path / "m.hvlad")
    again = load(tmp_path / "m.hvlad")
    assert again.tile_size == again.tile_size_ == PatchDefectScorer().tile_size
    assert isinstance(again, PatchDefectScorer)
    assert (again.threshold_, again.patch_) == (1.25, PATCH)
    expected = scorer.score_map(bad[7][0])
    np.testing.assert_array_equal(again.score_map(bad[7][0]), expected)
    np.testing.assert_array_equal(copy.deepcopy(scorer).score_map(bad[7][0]), expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(scorer)).score_map(bad[7][0]), expected)
    refitted = clone(again).fit(images, masks=masks)
    np.testing.assert_allclose(refitted.score_map(bad[7][0]), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("labelled", "pixel_size"), [(False, None), (True, 2.0)])
def test_training_images_are_recognised_by_their_pixels(
    scorer: PatchDefectScorer,
    good: list[Image],
    bad: Flawed,
    labelled: bool,
    pixel_size: float | None,
    tmp_path: Path,
) -> None:
    images, masks = with_masks(5, 4, good, bad)
    files = [
        write_scaled(tmp_path / f"{number}.tif", image, 500.0, "um")
        for number, image in enumerate([*images, good[6]])
    ]
    scorer.encoder.set_params(pixel_size=pixel_size)
    scorer.fit([*files[:-1], files[0]], masks=[*masks, None] if labelled else None)
    scorer.save(tmp_path / "m.hvlad")
    again = load(tmp_path / "m.hvlad")
    assert [again.find(file).in_training for file in files] == [True] * 9 + [False]
    assert (len(again.training_), again.training_.n_copies, again.n_images_) == (10, 1, 10)
    none = [np.zeros(image.shape, dtype=bool) for image in images]
    with pytest.warns(TrainingImagesWarning, match=r"^2 of 3 images are training images \(the sa"):
        evaluate_defects(again, files[-3:], [none[0]] * 3, list("abc"))
    evaluate_defects(again, files[-1:], [none[0]], ["c"])  # a warning would be an error


def test_blank_training_images_are_named(scorer: PatchDefectScorer, good: list[Image]) -> None:
    blank = np.full_like(good[0], 0.25)
    with pytest.warns(UserWarning, match="1 of 6 training images is blank, .*: image 2 of the li"):
        scorer.fit([*good[:2], blank, *good[2:5]])


def test_a_damaged_state_is_an_error(
    scorer: PatchDefectScorer, good: list[Image], bad: Flawed
) -> None:
    images, masks = with_masks(5, 4, good, bad)
    labelled = clone(scorer).fit(images, masks=masks)
    header, arrays = scorer.fit(good[:3]).to_state()
    damaged = header | {"fitted": header["fitted"] | {"patch_": 0}}
    with pytest.raises(ModelFileError, match="patch_: a value must be a whole"):
        PatchDefectScorer.from_state(damaged, arrays)
    narrow = {"mean": np.zeros(2), "whitening": np.eye(2), "codewords": np.zeros((1, 2))}
    damaged = arrays | {
        f"model_.{i}.{name}": array.astype(np.float32)
        for i in range(4)
        for name, array in narrow.items()
    }
    with pytest.raises(ModelFileError, match="the model takes 2 features where the windows have"):
        PatchDefectScorer.from_state(header, damaged)
    header, arrays = labelled.to_state()
    header["fitted"]["model_"]["state"]["fitted"]["classes_"]["values"] = ["a", "b"]
    with pytest.raises(ModelFileError, match=r"the classes of cells are \['a', 'b'\]"):
        PatchDefectScorer.from_state(header, arrays)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"threshold": "f1"}, "needs masks or labels"),
        ({"fpr": 1.0}, "fpr must be a share of images above 0"),
        ({"encoder": HypercolumnVLAD()}, "resizes images to 224 pixels"),
        ({"encoder": HypercolumnVLAD(image_size=None, turns=2)}, "turns must be 1"),
    ],
)
def test_unusable_parameters_are_named(
    scorer: PatchDefectScorer, good: list[Image], parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        scorer.set_params(**parameters).fit(good)
    assert not hasattr(scorer, "model_")


def test_inverted_masks_are_warned_of(
    scorer: PatchDefectScorer, good: list[Image], bad: Flawed
) -> None:
    images, masks = with_masks(4, 8, good, bad)
    inverted = [None if mask is None else ~mask for mask in masks]
    with pytest.warns(UserWarning, match="are these masks inverted"):
        scorer.fit(images, masks=inverted)
    with pytest.raises(ValueError, match="give masks as masks="):
        scorer.fit(images, [mask for _, mask in bad])


def test_bad_masks_are_named(scorer: PatchDefectScorer, good: list[Image], bad: Flawed) -> None:
    image, mask = bad[0]
    with pytest.raises(ImageReadError, match=r"mask of image 2 .* 48 x 59 .*an image of 48 x 60"):
        scorer.fit([*good[:2], image], masks=[None, None, mask[:, :-1]])
    with pytest.raises(ValueError, match="the masks mark no cell as defective"):
        scorer.fit(good[:3], masks=[np.zeros_like(mask)] * 3)
    with pytest.raises(ValueError, match="the masks leave no cell without defects"):
        scorer.fit(good[:3], masks=[np.ones_like(mask)] * 3)
    with pytest.raises(ValueError, match=r"no image has a mask \(all are None\)"):
        scorer.fit(good[:3], masks=[None] * 3)
    with pytest.raises(ImageReadError, match=r"nowhere.png: there is no such mask"):
        scorer.fit([*good[:2], image], masks=[None, None, "nowhere.png"])
    with pytest.raises(ValueError, match=r"label \(y\) of image 1 is empty"):
        scorer.fit(good[:3], ["normal", "", "anomalous"])


def test_bad_images_are_named(
    scorer: PatchDefectScorer, fitted: PatchDefectScorer, good: list[Image]
) -> None:
    small = surface(0, (10, 40))
    with pytest.raises(ImageReadError, match=r"10 x 40 pixels, smaller than a patch of 12 x 12"):
        scorer.fit([*good, small])
    with pytest.raises(NotFittedError):
        scorer.score_map(good[0])
    with pytest.raises(ImageReadError, match="smaller than a patch"):
        fitted.score_map(small)


def test_images_that_cannot_be_used_may_be_skipped(
    scorer: PatchDefectScorer, good: list[Image]
) -> None:
    scorer.encoder.set_params(on_error="skip")
    odd: list[Any] = ["nothing.png", surface(0, (10, 40))]
    with pytest.warns(SkippedImagesWarning, match=r"2 of 5 images"):
        scorer.fit([*odd, *good[:3]])
    assert scorer.n_images_ == 3
    with pytest.warns(SkippedImagesWarning, match="10 x 40 pixels, smaller than a patch"):
        scores, called = (
            method([odd[1], good[0], odd[0]]) for method in (scorer.score_samples, scorer.predict)
        )
    assert np.isnan(scores).tolist() == [True, False, True]
    assert [each is None for each in called] == [True, False, True]


def test_a_few_bad_images_among_the_good_do_little_harm(
    scorer: PatchDefectScorer, good: list[Image], bad: Flawed
) -> None:
    scorer.fit([*good, *(image for image, _ in bad[:3])])
    defect_free = scorer.score_samples([surface(seed) for seed in range(500, 520)])
    defective = scorer.score_samples([image for image, _ in bad[3:]])
    assert defective.min() > defect_free.max()
    assert (defective >= scorer.threshold_).all()
    assert (defect_free >= scorer.threshold_).mean() <= 0.2


@pytest.mark.slow  # twenty images to learn from, and as many to judge
def test_probabilities_are_calibrated(scorer: PatchDefectScorer, bad: Flawed) -> None:
    rng = np.random.default_rng(1)
    places = [tuple(rng.integers(8, 40, 2).tolist()) for _ in range(40)]
    blots = [blotted(700 + i, place) for i, place in enumerate(places)]
    scorer.fit([image for image, _ in blots[:20]], masks=[mask for _, mask in blots[:20]])
    proba, truth = [], []
    for image, mask in blots[20:]:
        cells = WindowGrid.of_cells((mask.shape[0] // CELL, mask.shape[1] // CELL), CELL)
        share = patch_means(mask, cells.positions, CELL)
        known = (share == 0) | (share >= 0.3)
        rows, columns = (cells.positions + CELL // 2).T
        proba += scorer.probability_map(image)[rows, columns][known].tolist()
        truth += (share[known] > 0).astype(int).tolist()
    second = np.array(proba)
    assert expected_calibration_error(truth, np.c_[1 - second, second]) < 0.05


def test_patches_of_images_at_a_common_pixel_size_lie_in_the_image_s_own_pixels(
    scorer: PatchDefectScorer, tmp_path: Path
) -> None:
    images = [np.round(255 * surface(i, (96, 120))).astype(np.uint8) for i in range(4)]
    files = [write_scaled(tmp_path / f"{i}.tif", image, 1, "nm") for i, image in enumerate(images)]
    scorer.encoder.set_params(pixel_size=2.0)
    scorer.fit(files)
    assert scorer.score_map(files[0]).shape == (96, 120)
    scores, positions = scorer.score_patches(files[0])
    assert len(scores) == 4 * 5
    assert positions[-1].tolist() == [2 * (48 - 12), 2 * (60 - 12)]
    scorer.set_params(patch=50)
    with pytest.raises(ImageReadError, match=r"48 x 60 pixels at 2 nm per pixel, smaller than"):
        scorer.fit(files)


def test_sizes_of_defects_do_not_depend_on_how_finely_an_image_is_stored(
    scorer: PatchDefectScorer, tmp_path: Path
) -> None:
    def stored(name: str, pixels: Image, pixel_size: float) -> Path:
        grey = np.round(255 * pixels).astype(np.uint8)
        return write_scaled(tmp_path / name, grey, 1 / pixel_size, "nm")

    scorer.encoder.set_params(pixel_size=2.0)
    scorer.set_params(n_planted=120, fpr=0.1)
    scorer.fit([stored(f"{i}.tif", surface(i), 2.0) for i in range(10)])
    assert scorer.limits_.pixel_size == 2.0
    image, _ = blotted(100, (25, 25))
    coarse = scorer.find(stored("coarse.tif", image, 2.0)).regions[0].area_interval
    fine = scorer.find(stored("fine.tif", np.kron(image, np.ones((4, 4))), 0.5)).regions[0]
    assert coarse is not None
    assert fine.area_interval == pytest.approx([16 * end for end in coarse], rel=0.1)


def test_large_images_go_through_the_network_in_tiles(
    scorer: PatchDefectScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = []
    original = TappedNetwork.__call__

    def spy(self: TappedNetwork, batch: Any) -> Any:
        if not batch.isnan().any():  # but for the receptive field
            largest.append(max(batch.shape[2:]))
        return original(self, batch)

    monkeypatch.setattr(TappedNetwork, "__call__", spy)
    monkeypatch.setattr(
        "hypervlad.features.backbones.tapped_network.is_shift_equivariant", lambda *_: True
    )
    large = [surface(seed, (150, 400)) for seed in range(3)]
    whole = clone(scorer).fit(large)
    expected = whole.score_map(large[0])
    assert max(largest) >= 400
    largest.clear()
    # Of one model: in a second fit, the last digits may lead K-means to other codewords.
    found = whole.set_params(tile_size=96).score_map(large[0])
    # Scores near zero are differences of larger numbers.
    atol = 1e-4 * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=atol)
    tiled = clone(scorer).set_params(tile_size=96).fit(large)
    assert max(largest) <= 224  # the side of the reduced images, which are not cut
    assert 96 in largest
    tiled.set_params(tile_size=8)
    with pytest.raises(ValueError, match="tile_size must be a whole number of at least 64"):
        tiled.score_map(large[0])


def test_images_of_any_size(scorer: PatchDefectScorer, good: list[Image]) -> None:
    scorer.fit([*good[:6], surface(90, (37, 81)), surface(91, (12, 12))])
    image, mask = blotted(92, (60, 70), size=(83, 141))
    found = scorer.score_map(image)
    assert found.shape == (83, 141)
    assert roc_auc_score(mask.ravel(), found.ravel()) > 0.9


def test_a_display_of_the_scorer_s_own_maps(fitted: PatchDefectScorer, bad: Flawed) -> None:
    image, mask = bad[0]
    display = DefectMapDisplay.from_estimator(fitted, [image], masks=[mask])
    np.testing.assert_array_equal(display.maps[0], fitted.score_map(image))
    assert display.threshold == fitted.threshold_
    plt.close(display.figure_)


@pytest.mark.slow  # a fit on larger images, and 60 maps
def test_no_more_regions_of_defect_free_images_lie_at_the_frame_than_inside(
    scorer: PatchDefectScorer,
) -> None:
    size = (96, 128)
    scorer.set_params(n_planted=0).fit([surface(seed, size) for seed in range(24)])
    rule = scorer.region_rule_
    lower = rule.usual + 0.6 * (rule.least - rule.usual)  # for more regions
    scorer.set_threshold(-1e6, regions=lower)
    touching, expected, n_regions = 0, 0.0, 0
    for seed in range(100, 160):
        for region in scorer.find(surface(seed, size)).regions:
            ends = region.row + region.height, region.column + region.width
            touching += min(region.row, region.column, size[0] - ends[0], size[1] - ends[1]) == 0
            expected += 1 - (1 - region.height / size[0]) * (1 - region.width / size[1])
            n_regions += 1
    assert n_regions >= 20
    assert touching <= expected + 3 * np.sqrt(expected)
