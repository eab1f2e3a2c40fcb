"""What the campaign attacks, by name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A source of cases and the bounds of each.

    Attributes
    ----------
    cases : str
        ``module:function`` of a `tests.campaign.case.Generate`. Only workers import it.
    seconds : float
        A case that takes longer hangs.
    megabytes : int
        Memory by which a case may grow its process and those that it starts.
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
    "part-bytes": Target("tests.campaign.damaged_files:parts"),
    "queue-bytes": Target("tests.campaign.damaged_files:queues"),
    "table-bytes": Target("tests.campaign.damaged_files:tables"),
    "feature-files": Target("tests.campaign.files:features"),
    "extraction-parts": Target("tests.campaign.files:parts"),
    "queue-values": Target("tests.campaign.files:queues"),
    "requests": Target("tests.campaign.requests:cases"),
    "commands": Target("tests.campaign.commands:cases", seconds=60),
    "kills": Target("tests.campaign.kills:cases", seconds=300, megabytes=4000),
}
