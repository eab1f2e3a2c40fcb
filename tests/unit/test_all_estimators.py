"""What holds for every public estimator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from hypervlad import MicrographClassifier, PatchDefectScorer
from hypervlad.models import AlignmentClassifier

Images = tuple[list[np.ndarray], np.ndarray]


# --- parameters of parts --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MicrographClassifier, PatchDefectScorer, AlignmentClassifier])
def test_parameters_of_parts_are_set_on_a_new_estimator(kind: type[Any]) -> None:
    default = kind().part("encoder"), kind().part("boosting")
    model = clone(kind()).set_params(encoder__n_codewords=5, boosting__n_estimators=3)
    assert model.encoder.get_params() == default[0].get_params() | {"n_codewords": 5}
    assert model.boosting.get_params() == default[1].get_params() | {"n_estimators": 3}
    again = model.set_params(encoder__n_codewords=6, encoder__turns=4).encoder
    assert (again.n_codewords, again.turns) == (6, 4)
    assert model.set_params(encoder=None, encoder__turns=8).encoder.n_codewords != 6
    with pytest.raises(ValueError, match="Invalid parameter 'codewords'"):
        kind().set_params(encoder__codewords=5)


def test_a_default_encoder_has_the_taps_of_the_network_that_is_set() -> None:
    scorer = PatchDefectScorer().set_params(encoder__backbone="resnet18")
    assert scorer.encoder.taps == ("layer2", "layer3")


def test_grid_search_needs_no_encoder(texture_images: Images) -> None:
    images, labels = texture_images
    grid = {
        "encoder__backbone": ["tiny"],
        "encoder__weights": ["random"],
        "encoder__image_size": [16],
        "encoder__n_codewords": [2, 4],
        "boosting__n_estimators": [0],
    }
    search = GridSearchCV(MicrographClassifier(calibration_size=0), grid, cv=2, refit=False)
    search.fit(images, labels)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
