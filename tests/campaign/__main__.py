"""Attack the package with generated input: ``python -m tests.campaign --minutes 1``.

Ends with exit code 1 if any case failed. What failed is kept in a folder: the file that was read,
the traceback, and the command that repeats the case. Add each as a test of its own.
"""

import argparse
import os
import sys
from collections import Counter
from pathlib import Path

from tests.campaign.case import TARGETS
from tests.campaign.runner import Campaign


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="for all targets together")
    parser.add_argument("--targets", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    parser.add_argument("--seed", type=int, default=0, help="another seed has other cases")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--out", type=Path, default=Path("campaign-out"), help="for failures")
    parser.add_argument("--repeat", metavar="TARGET:SEED:NUMBER", help="run only this case")
    options = parser.parse_args(arguments)
    campaign = Campaign(TARGETS, options.out)
    if options.repeat:
        name, seed, number = options.repeat.split(":")
        found = {name: campaign.repeat(name, int(seed), int(number))}
    else:
        found = campaign.run(options.targets, options.seed, 60 * options.minutes, options.jobs)
    for name, events in found.items():
        places = Counter(event["place"] for event in events if "place" in event)
        print(f"{name:10} {len(events):6} cases, {places.total():3} failures")
        last = {event["place"]: event["detail"] for event in events if "place" in event}
        for place, n in places.most_common():
            print(f"{n:5d} x {place}: {last[place].strip().splitlines()[-1]}")
    n_failed = sum("place" in event for events in found.values() for event in events)
    print(f"seed {options.seed}, {n_failed} failures")
    return int(n_failed > 0)


if __name__ == "__main__":
    sys.exit(main())
