"""Figures in the manner of scikit-learn's displays.

``from_...`` plots at once; the constructor does not.
"""
