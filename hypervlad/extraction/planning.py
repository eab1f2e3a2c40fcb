"""``plan_extraction``: what an extraction would do, without doing it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypervlad.cache import Memory
from hypervlad.extraction.parts import Parts
from hypervlad.extraction.running import Run, check_target
from hypervlad.extraction.sources import open_source


@dataclass(frozen=True)
class Plan:
    """What an extraction would do.

    Attributes
    ----------
    n_images : int
        Listed.
    n_kept : int
        Finished by an earlier, interrupted run.
    n_found : int
        Others whose vectors are in the cache, by the files' paths, sizes and times.
    n_bytes : int
        Of the file, if all images can be read.
    """

    n_images: int
    n_kept: int
    n_found: int
    n_bytes: int

    @property
    def n_left(self) -> int:
        """Images to be read and, unless the cache knows their pixels, computed."""
        return self.n_images - self.n_kept - self.n_found

    def __str__(self) -> str:
        return (
            f"{self.n_images} images: {self.n_kept} finished before, {self.n_found} in the cache, "
            f"{self.n_left} to do; the file will have about {self.n_bytes / 1e6:.1f} MB"
        )


def plan_extraction(
    images: Any,
    encoder: Any,
    *,
    out: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    memory: Memory = None,
    resume: bool = False,
    verify: bool = False,
) -> Plan:
    """Say what :func:`hypervlad.extract_features` would do; nothing is computed or written.

    Parameters
    ----------
    images : path of a folder, or list of paths and arrays
    encoder, out, root, include, exclude, memory, resume, verify
        As in :func:`hypervlad.extract_features`.

    Returns
    -------
    Plan

    Raises
    ------
    ValueError
        If ``images`` is a stream, ``out`` or the weights will not do, or ``resume`` would go on
        with what another model has made.
    """
    check_target(Path(out))
    run, path = Run.of(encoder, memory, verify), Path(os.path.realpath(out))
    source = open_source(images, root, None, include, exclude)
    if source.n_images is None:
        raise ValueError("a stream cannot be looked at without using it up; give a list")
    if isinstance(run.encoder.memory, str) and not os.path.isdir(run.encoder.memory):
        run.encoder.memory = None  # opening a cache would make it
    n_bytes = source.n_images * (4 * run.encoder.n_features_out_ + 200)
    if resume and run.already(source, path) is not None:
        return Plan(source.n_images, source.n_images, 0, n_bytes)
    parts = Parts.left(path, run.settings) if resume else None
    job = run.job("" if parts is None else parts.run)
    knows, comparison = job.knows(), job.comparison()
    n_kept = n_found = 0
    for task in source.tasks(run.task_size):
        if parts is not None and parts.has(task, comparison):
            n_kept += len(task.items)
        else:
            n_found += sum(knows(image) for _, image in task.numbered())
    plan = Plan(source.n_images, n_kept, n_found, n_bytes)
    if plan.n_left and run.encoder.weights != "imagenet":  # those may have to be downloaded
        run.encoder.network()  # a file that is missing, or of other weights, is told now
    return plan
