"""Baselines for comparison: a small CNN on patches, and transfer learning from ImageNet."""

from hypervlad.models.baselines.patch_cnn import PatchCNNClassifier
from hypervlad.models.baselines.transfer import TransferClassifier

__all__ = ["PatchCNNClassifier", "TransferClassifier"]
