"""What users would otherwise pick, for honest comparison."""

from hypervlad.baselines.patch_cnn import PatchCNNClassifier

__all__ = ["PatchCNNClassifier"]
