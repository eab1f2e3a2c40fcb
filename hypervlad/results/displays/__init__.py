"""Figures in the manner of scikit-learn's displays.

``XDisplay.from_predictions(...)`` and ``from_estimator`` plot at once; the constructor does not.
Without `ax`, `plot` makes a pyplot figure; with `ax` it does not use pyplot. The attributes
`figure_` and `ax_` are what was drawn into.
"""
