"""What the files of new images tell, if it differs from those of all training images."""

import numpy as np
import pytest

from hypervlad import MicrographClassifier, load
from hypervlad.apps.cli.prediction import new_differences
from hypervlad.features import ImageInfo
from hypervlad.models import BoostedSoftmaxClassifier
from hypervlad.models.classifier import ImageFormats


def info(dtype="uint8", height=100, width=200):
    return ImageInfo("", (height, width), None, dtype=dtype)


def differences(training, new, **options):
    return ImageFormats.of(training).differences(
        new, **{"with_types": True, "with_sizes": True, **options}
    )


def test_images_like_those_of_the_training_are_not_mentioned():
    training = [info(), info("uint16", 300, 300)]
    assert differences(training, [info(), info("uint16"), info(height=50), info(width=600)]) == []


def test_another_type_of_pixels_is_named():
    (sentence,) = differences([info()], [info(), info("uint16"), info("float32")])
    assert sentence.startswith(
        "2 of 3 images have pixels of another type (float, uint16) than all training images (uint8)"
    )
    assert differences([info("float32")], [info("float64")]) == []
    assert differences([info()], [info("uint16")], with_types=False) == []


@pytest.mark.parametrize(("height", "width", "far"), [(401, 500, 1), (400, 900, 0), (49, 49, 1)])
def test_images_far_larger_or_smaller_than_all_others_are_named(height, width, far):
    found = differences([info()], [info(height=height, width=width)])
    assert len(found) == far
    if far:
        assert f"such as {height} x {width} pixels" in found[0]
        assert "(sides of 100 to 200 pixels)" in found[0]
    assert differences([info()], [info(height=height, width=width)], with_sizes=False) == []


def test_a_model_remembers_the_formats_and_compares_new_images(
    tiny_encoder, texture_images, tmp_path
):
    images, labels = texture_images
    grey = [np.round(255 * image).astype(np.uint8) for image in images]
    learner = BoostedSoftmaxClassifier(n_estimators=0, Cs=1.0)
    model = MicrographClassifier(tiny_encoder, boosting=learner, calibration_size=0)
    model.fit(grey, labels).save(tmp_path / "m.hvlad")
    model = load(tmp_path / "m.hvlad")
    assert model.classify(grey[:2]).differences == ()
    large = np.kron(grey[0], np.ones((3, 3), dtype=np.uint16))
    found = model.classify([grey[1], large], chunk_size=1).differences
    assert [sentence[:15] for sentence in found] == ["1 of 2 images h", "1 of 2 images i"]
    tiny_encoder.set_params(read_options={"scaling": "minmax"})
    model = MicrographClassifier(tiny_encoder, boosting=learner, calibration_size=0)
    (found,) = model.fit(grey, labels).classify([grey[1], large]).differences
    assert "another size" in found, "each image is scaled by its own values, whatever their type"


def test_while_watching_each_kind_of_difference_is_said_once():
    said = set()
    deep = [differences([info()], [info("uint16")] * n) for n in (1, 2)]
    large = [differences([info()], [info(height=n, width=n)]) for n in (900, 800)]
    assert new_differences(deep[0], said) == deep[0]
    assert new_differences(deep[1] + large[0], said) == large[0]
    assert new_differences(large[1], said) == []


@pytest.mark.parametrize("sides", [(0, 5), (9, 5)])
def test_sides_that_cannot_be_are_refused(sides):
    with pytest.raises(ValueError, match="damaged"):
        ImageFormats(("uint8",), sides)
