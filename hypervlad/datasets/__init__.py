"""Synthetic electron micrographs with known truth, and defects that are added to any image."""
