"""Defects of surfaces, found by models of defect-free images or of labelled cells and patches."""

from hypervlad.models.defects.estimator import PatchDefectScorer, default_patch_encoder
from hypervlad.models.defects.findings import Finding, Region
from hypervlad.models.defects.limits import DetectionLimits

__all__ = ["DetectionLimits", "Finding", "PatchDefectScorer", "Region", "default_patch_encoder"]
