"""Defects of surfaces: where an image is unlike good ones, or like what was called defective."""

from hypervlad.defects.estimator import PatchDefectScorer, default_patch_encoder
from hypervlad.defects.findings import Finding, Region

__all__ = ["Finding", "PatchDefectScorer", "Region", "default_patch_encoder"]
