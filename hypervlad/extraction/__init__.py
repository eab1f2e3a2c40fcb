"""Features of whole folders: computed once, in any number of processes, whatever happens."""

from hypervlad.extraction.extracting import extract_features
from hypervlad.extraction.loading import load_features
from hypervlad.extraction.planning import Plan, plan_extraction
from hypervlad.extraction.running import Extraction
from hypervlad.extraction.table import FeatureFileError

__all__ = [
    "Extraction",
    "FeatureFileError",
    "Plan",
    "extract_features",
    "load_features",
    "plan_extraction",
]
