"""One attack of the campaign, and the sources of attacks, by name."""

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
        The files or folders to keep if it fails.
    """

    name: str
    run: Callable[[], object]
    files: tuple[Path, ...] = ()


#: From a seed and an empty folder to write in to cases, each made when it is asked for. The same
#: seed gives the same cases. Each case is run, in this process, before the next one is made.
Generate: TypeAlias = Callable[[int, Path], Iterator[Case]]


@dataclass(frozen=True)
class Target:
    """A source of cases and the bounds of each.

    Attributes
    ----------
    cases : str
        ``module:function`` of a `Generate`. Only workers import it.
    seconds : float
        A case that takes longer hangs.
    megabytes : int
        Memory by which its process, and each that this starts, may grow.
    """

    cases: str
    seconds: float = 20.0
    megabytes: int = 1000


TARGETS = {
    "images": Target("tests.campaign.images:cases"),
    "image-folders": Target("tests.campaign.images:folders"),
    # A patch network of any size takes up to 600 MB for the patches of one batch, as designed.
    "models": Target("tests.campaign.models:cases", megabytes=2000),
    "feature-bytes": Target("tests.campaign.damaged_files:features"),
    "queue-bytes": Target("tests.campaign.damaged_files:queues"),
    "table-bytes": Target("tests.campaign.damaged_files:tables"),
    "feature-files": Target("tests.campaign.files:features"),
    "queue-values": Target("tests.campaign.files:queues"),
    "requests": Target("tests.campaign.requests:cases"),
    "commands": Target("tests.campaign.commands:cases", seconds=60),
    "kills": Target("tests.campaign.kills:cases", seconds=300, megabytes=4000),
}
