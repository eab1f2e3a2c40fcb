"""Splits by group, metrics with intervals, conformal limits, agreement with the truth."""
