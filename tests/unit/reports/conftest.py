"""A classifier of textures that a command has trained, and the images."""

import pytest
from support.commands import folder, model

import hypervlad

__all__ = ["folder", "model"]


@pytest.fixture
def fitted(model):
    """The classifier; of it, a test may change what it likes."""
    return hypervlad.load(model)
