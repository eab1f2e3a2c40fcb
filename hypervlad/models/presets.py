"""The systems of the papers, `hypervlad.presets` by its older name."""

from hypervlad.papers.presets import *  # noqa: F403
from hypervlad.papers.presets import __all__ as __all__
