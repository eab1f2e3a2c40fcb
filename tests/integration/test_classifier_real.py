"""The default classifier on real micrographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import hypervlad
from hypervlad import MicrographClassifier


@pytest.mark.real
@pytest.mark.full  # the default classifier, at its own size
def test_steel_defects_are_told_apart(mobilenet_weights: Path, shared: Path) -> None:
    data = hypervlad.load_image_folder(shared / "data" / "neu_steel")
    images, labels = np.array(data.images), np.array(data.target)
    train = np.arange(len(images)) % 50 < 4
    test = np.arange(len(images)) % 50 >= 48
    model = MicrographClassifier(random_state=0).fit(list(images[train]), labels[train])
    assert model.score(list(images[test]), labels[test]) > 0.9
