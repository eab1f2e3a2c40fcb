"""Features of whole folders: computed once, in any number of processes, resumable at any moment."""

from hypervlad.data.extraction.extract import Extraction, Plan, extract_features, plan_extraction
from hypervlad.data.extraction.table import FeatureFileError, load_features

__all__ = [
    "Extraction",
    "FeatureFileError",
    "Plan",
    "extract_features",
    "load_features",
    "plan_extraction",
]
