"""Figures in the manner of scikit-learn's displays.

A display is created by ``XDisplay.from_predictions(...)`` or ``from_estimator``, which plot at
once, or by its constructor and `plot`. Without `ax` it makes a pyplot figure; with `ax` it does not
use pyplot.

The public names are listed in ``__init__.pyi`` and imported on first use: directions of fibres are
shown without torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
