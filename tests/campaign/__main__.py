"""Attack the package with generated input: ``python -m tests.campaign --minutes 1``.

Ends with exit code 1 if any case failed. What failed is kept in a folder: the file that was read,
the traceback, and the command that repeats the case. Add each as a test of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from tests.campaign.case import TARGETS
from tests.campaign.runner import Campaign


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument(
        "--minutes",
        type=float,
        default=1.0,
        help="for all targets together, without the time that their processes need to start",
    )
    parser.add_argument("--targets", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    parser.add_argument("--seed", type=int, default=0, help="another seed has other cases")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--out", type=Path, default=Path("campaign-out"), help="for failures")
    parser.add_argument("--repeat", metavar="TARGET:SEED:NUMBER", help="run only this case")
    options = parser.parse_args(arguments)
    if options.repeat:
        name, seed, number = options.repeat.split(":")
        campaign = Campaign({name: TARGETS[name]}, int(seed), options.out, log)
        campaign.repeat(name, int(seed), int(number))
    else:
        targets = {name: TARGETS[name] for name in options.targets}
        campaign = Campaign(targets, options.seed, options.out, log)
        campaign.run(60 * options.minutes, options.jobs)
    for name, found in campaign.outcomes.items():
        print(
            f"{name:17} {found.n_cases:6} cases, {found.n_failures:3} failures, "
            f"{found.n_workers} workers, the slowest case {found.slowest:.2f} s: "
            f"{found.slowest_name[:40]}"
        )
    n_failed = sum(outcome.n_failures for outcome in campaign.outcomes.values())
    print(f"seed {options.seed}, {n_failed} failures")
    if n_failed:
        facts = {name: asdict(outcome) for name, outcome in campaign.outcomes.items()}
        (options.out / "report.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
        for name, outcome in campaign.outcomes.items():
            for place, n in outcome.n_at.items():
                print(f"{n:5d} x {name}: {place}")
    return int(n_failed > 0)


def log(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
