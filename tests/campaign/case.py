"""One attack of the campaign, and the sources of attacks, by name."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """One attack: something hostile is given to the package.

    `run` returns if the package did well: it gave a result, or refused with a documented error. Any
    exception, crash, hang or excess of memory is a failure. `files` are kept if it fails.
    """

    name: str
    run: Callable[[], object]
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Target:
    """A source of cases: ``module:function``, which only workers import, and the bounds of each.

    The function makes cases from a seed and an empty folder to write in. The same seed gives the
    same cases. Each is run, in this process, before the next one is made.
    """

    cases: str
    seconds: float = 20.0  # a case that takes longer hangs
    megabytes: int = 1000  # by which its process, and each that this starts, may grow


TARGETS = {
    "images": Target("tests.campaign.images:cases"),
    # Networks of patches of any size are forged, too.
    "models": Target("tests.campaign.models:cases", megabytes=2000),
    "files": Target("tests.campaign.files:cases"),
    "requests": Target("tests.campaign.requests:cases"),
    "commands": Target("tests.campaign.commands:cases", seconds=60),
    "kills": Target("tests.campaign.kills:cases", seconds=300, megabytes=4000),
}
