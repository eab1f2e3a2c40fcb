"""What users would otherwise pick, for honest comparison."""

from hypervlad.baselines.patch_cnn import PatchCNNClassifier
from hypervlad.baselines.transfer import TransferClassifier

__all__ = ["PatchCNNClassifier", "TransferClassifier"]
