"""The first commands take turns, their first round does not count, and a failure is reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.speed import first_minutes
from benchmarks.speed.tables import REFERENCE, first_minutes_table


def test_rounds_take_turns_and_the_first_is_not_counted() -> None:
    calls = []

    def clock(arguments: list[str]) -> tuple[float, float]:
        calls.append(arguments[0])
        unit = 100.0 if len(calls) <= 2 else float(len(calls))
        return (unit, unit / 2) if arguments[0] == "a" else (4 * unit, unit)

    facts = first_minutes.measure({REFERENCE: ["a"], "predict": ["b"]}, 2, clock)
    assert calls == ["a", "b"] * 3
    assert facts["seconds"] == {REFERENCE: [3.0, 5.0], "predict": [16.0, 24.0]}
    assert first_minutes_table(facts).splitlines()[2:] == [
        f"| `{REFERENCE}` | 4.0 s | 2.0 s | 1.00 x | 1.00 x |",
        "| predict | 20.0 s | 5.0 s | 5.07 x | 2.53 x |",
    ]


def test_the_seconds_of_another_process_are_measured_and_its_failure_is_shown() -> None:
    seconds, processor = first_minutes.run(["-c", "import time; time.sleep(0.3)"])
    assert seconds > 0.3
    assert processor < seconds
    with pytest.raises(SystemExit, match="no such luck"):
        first_minutes.run(["-c", "raise ValueError('no such luck')"])


def test_each_command_finds_what_it_needs(tmp_path: Path) -> None:
    first_minutes.write_folder(tmp_path / "images", 8, 64)
    named = first_minutes.commands(tmp_path, "random")
    assert next(iter(named)) == REFERENCE
    assert named[first_minutes.TRAIN][-2:] == ["--weights", "random"]
    image = Path(named["classify an image"][4])
    assert image.is_file()
    assert len({path.parent for path in (tmp_path / "images").glob("*/*.png")}) == 4
