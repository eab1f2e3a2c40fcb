"""Defects of surfaces: where an image is unlike good ones, or like what was called defective."""

from hypervlad.defects.estimator import PatchDefectScorer, default_patch_encoder

__all__ = ["PatchDefectScorer", "default_patch_encoder"]
