"""The file in which an unfinished training is kept, without pickle."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hypervlad.common.modelfile import ModelFile, ModelFileError, read_model, write_model

_KIND = "training_checkpoint"


class CheckpointError(ValueError):
    """A checkpoint is damaged or belongs to another training; the message says what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """The file of an unfinished training, and the JSON-able settings that it depends on."""

    path: Path
    settings: Mapping[str, Any]

    @classmethod
    def at(cls, location: str | os.PathLike[str], settings: Mapping[str, Any]) -> Checkpoint:
        """Return the checkpoint in a file, or the one for these settings in a folder."""
        check_location(location)
        path = Path(location)
        if path.is_dir():
            text = json.dumps(settings, sort_keys=True)
            path = path / f"training-{hashlib.sha256(text.encode()).hexdigest()[:16]}.checkpoint"
        return cls(path, settings)

    def write(self, curves: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
        """Replace the file, atomically and without pickle."""
        header = {"settings": self.settings, "curves": dict(curves)}
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
        write_model(self.path, _KIND, header, arrays)

    def read(self) -> ModelFile | None:
        """Return what the file holds; None if there is no file.

        A `CheckpointError` says if it is damaged, is not a checkpoint, or has other settings.
        """
        if not self.path.exists():
            return None
        try:
            content = read_model(self.path, kind=_KIND)
        except ModelFileError as error:
            raise CheckpointError(
                f"the checkpoint cannot be used: {error} Or delete the file to start again"
            ) from error
        found, expected = content.header["settings"], json.loads(json.dumps(self.settings))
        different = sorted(k for k in {*found, *expected} if found.get(k) != expected.get(k))
        if different:
            listed = "; ".join(
                f"{name}: {_shortened(found.get(name))}, now {_shortened(expected.get(name))}"
                for name in different
            )
            raise CheckpointError(
                f"{self.path} is the checkpoint of another training ({listed}): give another file, "
                "give a folder (where each training has its own file), or delete this one"
            )
        return content


def check_location(location: str | os.PathLike[str]) -> None:
    """Raise a `CheckpointError` unless a file can be there; a trailing slash means a folder."""
    name, path = os.fspath(location), Path(location)
    folder = path if name.endswith(("/", os.sep)) else path.parent
    if not (path.is_dir() or folder.is_dir()):
        raise CheckpointError(f"checkpoint={name!r}: there is no folder {folder}; create it first")


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:20]}…"
