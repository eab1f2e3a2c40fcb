"""Near copies share a group in all that holds images out."""

import numpy as np
import pytest
from support.commands import run
from support.tiny import make_tiny_encoder

from hypervlad import HypercolumnSegmenter, MicrographClassifier, PatchDefectScorer
from hypervlad.data import make_tem_images
from hypervlad.models import default_patch_encoder

# Two views, that overlap in part, of each field.
FIELDS = make_tem_images(8, size=120, random_state=3)[0]
VIEWS = [field[k : 100 + k, k : 100 + k] for field in FIELDS for k in (0, 20)]
OWN = np.arange(16) // 2
TINY = {"backbone": "tiny", "weights": "random"}
pytestmark = pytest.mark.usefixtures("tiny_backbone")


@pytest.mark.filterwarnings("ignore:(a class is never predicted|Classes with only)")
def test_a_classifier_joins_near_copies_but_leaves_a_class_two_groups(tmp_path):
    model = MicrographClassifier(make_tiny_encoder(), random_state=0)
    with pytest.warns(UserWarning, match="16 training images in 8 sets are near copies: image 0"):
        model.fit(VIEWS, np.where(OWN % 2, "a", "b"))
    np.testing.assert_array_equal(model.training_.groups, OWN)
    model.save(tmp_path / "m.hvlad")
    assert (
        "(in 8 groups, to which 8 others were joined for near"
        in run("info", tmp_path / "m.hvlad").stdout
    )
    with pytest.warns(
        UserWarning, match="A class has nothing else, so these stay in several groups"
    ):
        model.fit(VIEWS, np.where(OWN == 2, "a", "b"))
    assert model.training_.groups[4] != model.training_.groups[5]


def test_a_scorer_and_a_segmenter_join_near_copies():
    scorer = PatchDefectScorer(default_patch_encoder(**TINY), n_planted=0, fpr=0.2, random_state=0)
    segmenter = HypercolumnSegmenter(**TINY, n_epochs=1, random_state=0)
    with pytest.warns(UserWarning, match="near copies"):
        scorer.fit(VIEWS)
    assert scorer.held_out_.n_groups == 8
    with pytest.warns(UserWarning, match="near copies"):
        segmenter.fit(VIEWS[:6], [np.pad(np.ones((40, 40), int), 30)] * 6)
    assert segmenter.held_out_ is None, "three groups are too few"
