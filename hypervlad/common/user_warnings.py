"""Warnings at the line of the user's code, as with `skip_file_prefixes` of Python 3.12."""

from __future__ import annotations

import sys
import warnings

_CALLERS = ("sklearn", "joblib", "contextlib")  # what calls estimators for the user


def warn_user(message: Warning | str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line that called hypervlad, directly or through scikit-learn."""
    frame, packages = sys._getframe(1), list[str]()
    while True:
        packages.append(str(frame.f_globals.get("__name__")).partition(".")[0])
        if frame.f_back is None:
            break
        frame = frame.f_back
    # Frames of other packages lie within, such as those of a progress bar.
    outermost = max(i for i, package in enumerate(packages) if package == "hypervlad")
    outside = range(outermost + 1, len(packages))
    level = next((i for i in outside if packages[i] not in _CALLERS), outermost)
    warnings.warn(message, category, stacklevel=level + 2)
