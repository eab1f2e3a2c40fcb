"""A training that was left after some epoch, in a file without pickle, and how it is taken up."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hypervlad.baselines.training import Course, Curves, learnable
from hypervlad.encoder.state import arrays_under
from hypervlad.modelfile import ModelFileError, read_model, write_model

_KIND = "training_checkpoint"
_NETWORK, _BEST, _OPTIMISER, _RANDOM = "network.", "best.", "optimiser.", "random."


class CheckpointError(ValueError):
    """A checkpoint is damaged, or of another training; the message names it and what to do."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Where a training is kept, and all that its course depends on.

    Attributes
    ----------
    path : Path
    settings : mapping
        JSON-able. A checkpoint of other settings is another training's.
    """

    path: Path
    settings: Mapping[str, Any]

    @classmethod
    def at(cls, place: str | os.PathLike[str], settings: Mapping[str, Any]) -> Checkpoint:
        """Return the checkpoint of a file, or, in a folder, that of these settings.

        Raises
        ------
        CheckpointError
            If the folder does not exist.
        """
        check_place(place)
        path = Path(place)
        if path.is_dir():
            text = json.dumps(settings, sort_keys=True)
            path = path / f"training-{hashlib.sha256(text.encode()).hexdigest()[:16]}.checkpoint"
        return cls(path, settings)

    def keep(self, course: Course) -> None:
        """Write down where a course is, whole or not at all."""
        state = course.optimiser.state_dict()["state"]
        arrays = {_NETWORK + name: value for name, value in learnable(course.network).items()}
        arrays |= {_BEST + name: value for name, value in course.best.items()}
        for number, values in state.items():
            arrays |= {f"{_OPTIMISER}{number}.{k}": torch.as_tensor(v) for k, v in values.items()}
        arrays |= {_RANDOM + name: value for name, value in _random_states(course).items()}
        header = {"settings": self.settings, "curves": dataclasses.asdict(course.curves)}
        plain = {name: value.detach().cpu().numpy() for name, value in arrays.items()}
        write_model(self.path, _KIND, header, plain)

    def take_up(self, course: Course) -> None:
        """Bring a course that has not begun to where it was left; do nothing if it never began.

        Raises
        ------
        CheckpointError
            If the file is damaged, no checkpoint, or of other data or parameters.
        """
        if not self.path.exists():
            return
        try:
            content = read_model(self.path, kind=_KIND)
        except ModelFileError as error:
            raise CheckpointError(
                f"the checkpoint cannot be used: {error} Or take the file away, to start again"
            ) from error
        self._check(content.header)
        curves = type(course.curves)(**content.header["curves"])
        if len(curves) > course.schedule.max_epochs:
            raise CheckpointError(
                f"{self.path}: {len(curves)} epochs are done already, more than "
                f"max_epochs={course.schedule.max_epochs}; take the file away, to start again"
            )
        if not _fits(course, content.arrays):
            raise CheckpointError(
                f"{self.path}: it does not hold what this network learns; take the file away, to "
                "start again"
            )
        _restore(course, curves, content.arrays)

    def _check(self, header: Mapping[str, Any]) -> None:
        found, wanted = header["settings"], json.loads(json.dumps(self.settings))
        differ = sorted(k for k in {*found, *wanted} if found.get(k) != wanted.get(k))
        if differ:
            told = "; ".join(f"{k}: {_shown(found, k)}, now {_shown(wanted, k)}" for k in differ)
            raise CheckpointError(
                f"{self.path} is the checkpoint of another training ({told}): give another file, "
                "a folder (where each training has a file of its own), or take this one away"
            )


def check_place(place: str | os.PathLike[str]) -> None:
    """Raise a `CheckpointError` unless a file could lie there; what ends in a slash is a folder."""
    name, path = os.fspath(place), Path(place)
    folder = path if name.endswith(("/", os.sep)) else path.parent
    if not (path.is_dir() or folder.is_dir()):
        raise CheckpointError(f"checkpoint={name!r}: there is no folder {folder}; create it first")


def _shown(settings: Mapping[str, Any], name: str) -> str:
    text = repr(settings.get(name))
    return text if len(text) <= 40 else f"{text[:20]}…"


def _fits(course: Course, arrays: Mapping[str, NDArray[Any]]) -> bool:
    """Whether a checkpoint has all tensors of a course, and no others."""
    shapes = {name: tuple(value.shape) for name, value in learnable(course.network).items()}
    for prefix in (_NETWORK, _BEST):
        if {name: value.shape for name, value in arrays_under(prefix, arrays).items()} != shapes:
            return False
    n_learnt = sum(len(group["params"]) for group in course.optimiser.param_groups)
    numbers = {name.partition(".")[0] for name in arrays_under(_OPTIMISER, arrays)}
    return numbers == {str(number) for number in range(n_learnt)}


def _random_states(course: Course) -> dict[str, torch.Tensor]:
    states = {"changes": course.generator.get_state(), "torch": torch.get_rng_state()}
    device = next(course.network.parameters()).device
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _restore(course: Course, curves: Curves, arrays: Mapping[str, NDArray[Any]]) -> None:
    device = next(course.network.parameters()).device
    course.curves = curves
    course.best = {k: v.to(device) for k, v in _tensors(_BEST, arrays).items()}
    course.network.load_state_dict(_tensors(_NETWORK, arrays), strict=False)
    optimiser = course.optimiser.state_dict()
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in _tensors(_OPTIMISER, arrays).items():
        number, _, key = name.partition(".")
        state.setdefault(int(number), {})[key] = value
    course.optimiser.load_state_dict(optimiser | {"state": state})
    random = _tensors(_RANDOM, arrays)
    course.generator.set_state(random["changes"])
    torch.set_rng_state(random["torch"])
    if device.type == "cuda" and "cuda" in random:
        torch.cuda.set_rng_state(random["cuda"], device)


def _tensors(prefix: str, arrays: Mapping[str, NDArray[np.generic]]) -> dict[str, torch.Tensor]:
    return {k: torch.from_numpy(v) for k, v in arrays_under(prefix, arrays).items()}
