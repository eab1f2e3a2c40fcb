"""One attack of the campaign, and what may come of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias


@dataclass(frozen=True)
class Case:
    """One attack: something hostile is given to the package.

    Attributes
    ----------
    name : str
        What is attacked, and how.
    run : callable
        Returns if the package did well: it gave a result, or refused with a documented error.
        Any exception, crash, hang or excess of memory is a failure.
    files : tuple of Path
        The files to keep if it fails. A single one is made smaller first, as long as `run`, which
        reads it again, fails in the same way.
    """

    name: str
    run: Callable[[], None]
    files: tuple[Path, ...] = ()


#: From a seed and an empty folder to write in to cases, each made when it is asked for. The same
#: seed gives the same cases. Each case is run, in this process, before the next one is made.
Generate: TypeAlias = Callable[[int, Path], Iterator[Case]]
