"""Defects of surfaces, found by models of defect-free images or of labelled cells and patches."""
