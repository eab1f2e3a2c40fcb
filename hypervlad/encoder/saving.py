"""``save``, the same for all estimators that become one file."""

from __future__ import annotations

import os
from typing import Any, Protocol

import numpy as np

from hypervlad.modelfile import write_model


class _HasState(Protocol):
    _kind: str

    def to_state(
        self, *, include_backbone: bool = False
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]: ...


class SaveMixin:
    """Gives ``save`` to an estimator with a ``to_state`` and a registered kind of model file."""

    def save(
        self: _HasState, path: str | os.PathLike[str], *, include_backbone: bool = False
    ) -> None:
        """Write the fitted model to one file, without pickle.

        Parameters
        ----------
        path : path-like
            By custom ``*.hvlad``. Read it back with :func:`hypervlad.load`.
        include_backbone : bool, default=False
            Put the network's weights into the file as well, for machines that lack them.

        Raises
        ------
        ModelFileError
            If the file cannot be written, or the model's learner is one that needs pickle.
        """
        write_model(path, self._kind, *self.to_state(include_backbone=include_backbone))
