"""Names of packages that only list them."""

import pickle

import pytest

import hypervlad.data
import hypervlad.models
from hypervlad.models import presets


def test_names_are_those_of_their_rooms() -> None:
    """One object, whichever way it is imported, which pickles by its own place."""
    assert hypervlad.models.MicrographClassifier is hypervlad.MicrographClassifier
    assert hypervlad.presets is presets
    assert "make_tem_images" in dir(hypervlad.data)
    assert pickle.loads(pickle.dumps(hypervlad.data.make_tem_images)) is hypervlad.make_tem_images
    with pytest.raises(AttributeError, match="no attribute 'make_tea_images'"):
        _ = hypervlad.data.make_tea_images
