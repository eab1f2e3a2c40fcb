"""Near copies share a group in all that holds images out."""

import warnings

import numpy as np
import pytest
from support.commands import run
from support.few_crops import few_crops
from support.tiny import make_tiny_encoder

from hypervlad import HypercolumnSegmenter, MicrographClassifier, PatchDefectScorer
from hypervlad.data import make_tem_images
from hypervlad.models import default_patch_encoder

FIELDS, _ = make_tem_images(8, size=120, random_state=3)
VIEWS = [field[k : 100 + k, k : 100 + k] for field in FIELDS for k in (0, 20)]  # two of each
OWN = np.arange(16) // 2
TINY = {"backbone": "tiny", "weights": "random"}
pytestmark = pytest.mark.usefixtures("tiny_backbone")


def fitted(model, *data):
    with warnings.catch_warnings(record=True, action="always") as caught:
        model.fit(*data)
    return next(said for each in caught if "near copies" in (said := str(each.message)))


def test_near_copies_share_a_group_unless_a_class_has_nothing_else(tmp_path):
    model = MicrographClassifier(make_tiny_encoder(), random_state=0)
    blank, labels = np.full((90, 90), 0.3), np.where(OWN % 2, "a", "b").tolist()
    said = fitted(model, [*VIEWS, VIEWS[0].copy(), blank, blank], [*labels, "b", "a", "a"])
    assert said.startswith("17 training images in 8 sets are near copies: image 0 = image 1 = ")
    np.testing.assert_array_equal(model.training_.groups, [*OWN, 0, 8, 9])
    model.save(tmp_path / "m.hvlad")
    assert "10 groups, to which 8 others were joined" in run("info", tmp_path / "m.hvlad").stdout
    assert "has nothing else, so these" in fitted(model, VIEWS, np.where(OWN == 2, "a", "b"))
    assert model.training_.groups[4] != model.training_.groups[5]


def test_scorers_and_segmenters_hold_near_copies_out_together():
    scorer = PatchDefectScorer(default_patch_encoder(**TINY), n_planted=0, fpr=0.2, random_state=0)
    fitted(scorer, VIEWS[:10])
    assert scorer.held_out_.n_groups == 5
    segmenter = HypercolumnSegmenter(**TINY, n_epochs=1, random_state=0)
    with few_crops(8):
        fitted(segmenter, VIEWS[:6], [np.pad(np.ones((40, 40), int), 30)] * 6)
    assert segmenter.held_out_ is None, "three groups are too few"
