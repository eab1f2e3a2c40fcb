"""The campaign's runner notices each way to fail, and goes on."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.campaign import __main__ as command
from tests.campaign.runner import Campaign, Outcome
from tests.campaign.targets import TARGETS, Target
from tests.campaign.worker import shrunk


def run(tmp_path: Path, function: str, **bounds: float) -> Outcome:
    target = Target(f"support.failing_cases:{function}", **bounds)
    campaign = Campaign({function: target}, seed=3, out=tmp_path / "out", log=lambda line: None)
    campaign.run(0.0, jobs=1)
    return campaign.outcomes[function]


def test_cases_that_do_well_are_counted(tmp_path: Path) -> None:
    found = run(tmp_path, "sound")
    assert found.n_cases == 1, "one at least, though there is no time at all"
    assert found.n_failures == 0
    assert not (tmp_path / "out").exists()


def test_all_seeds_in_their_order(tmp_path: Path) -> None:
    target = Target("support.failing_cases:sound")
    campaign = Campaign({"sound": target}, seed=3, out=tmp_path / "out")
    campaign.run(3.0, jobs=2)
    found = campaign.outcomes["sound"]
    assert found.n_workers >= 2
    assert found.n_cases >= 10
    assert found.n_failures == 0


def test_an_exception_keeps_its_file_made_smaller(tmp_path: Path) -> None:
    target = Target("support.failing_cases:raising")
    campaign = Campaign({"raising": target}, seed=3, out=tmp_path / "out", log=lambda line: None)
    campaign.repeat("raising", 3_000_000, 1)
    found = campaign.outcomes["raising"]
    (failure,) = found.failures
    assert (failure.kind, failure.name) == ("exception", "1001 letters")
    assert failure.place.startswith("ZeroDivisionError in failing_cases.py, read")
    assert "an x" in failure.detail
    assert failure.command == "python -m tests.campaign --repeat raising:3000000:1"
    folder = tmp_path / "out" / "raising-3000000-1"
    assert (folder / "input.txt").read_bytes() == b"x"
    assert json.loads((folder / "failure.json").read_text(encoding="utf-8"))["seed"] == 3_000_000


@pytest.mark.skipif(sys.platform == "win32", reason="other exit codes")
def test_a_crash_is_of_the_case_that_ran(tmp_path: Path) -> None:
    target = Target("support.failing_cases:crashing")
    campaign = Campaign({"crashing": target}, seed=0, out=tmp_path, log=lambda line: None)
    campaign.repeat("crashing", 0, 1)
    (failure,) = campaign.outcomes["crashing"].failures
    assert (failure.kind, failure.name) == ("crash", "crash")
    assert "exit code -11" in failure.detail
    assert "Segmentation fault" in failure.detail
    assert (tmp_path / "crashing-0-1" / "input.txt").read_text(encoding="utf-8") == "deadly"


def test_a_hang_is_ended(tmp_path: Path) -> None:
    before = psutil.Process().children()
    (failure,) = run(tmp_path, "hanging", seconds=0.5).failures
    assert (failure.kind, failure.name) == ("hang", "sleep")
    if sys.platform != "win32":
        assert "failing_cases.py" in failure.detail
    assert psutil.Process().children() == before


@pytest.mark.parametrize(("number", "name"), [(0, "brief"), (1, "long")])
def test_memory_is_bounded_while_a_case_runs_and_after(
    number: int, name: str, tmp_path: Path
) -> None:
    if number == 0 and not sys.platform.startswith("linux"):
        pytest.skip("only Linux tells the peak")
    target = Target("support.failing_cases:growing", megabytes=100)
    campaign = Campaign({"growing": target}, seed=0, out=tmp_path, log=lambda line: None)
    campaign.repeat("growing", 0, number)
    (failure,) = campaign.outcomes["growing"].failures
    assert (failure.kind, failure.name) == ("memory", name)


def test_memory_that_is_not_returned(tmp_path: Path) -> None:
    target = Target("support.failing_cases:leaking", megabytes=100)
    campaign = Campaign({"leaking": target}, seed=0, out=tmp_path, log=lambda line: None)
    campaign.run(5.0, jobs=1)
    assert {failure.kind for failure in campaign.outcomes["leaking"].failures} == {"leak"}


def test_a_broken_generator_is_a_failure(tmp_path: Path) -> None:
    target = Target("support.failing_cases:broken")
    campaign = Campaign({"broken": target}, seed=0, out=tmp_path, log=lambda line: None)
    campaign.run(1.0, jobs=1)
    assert campaign.outcomes["broken"].failures[0].name == "making a case"


def test_the_command_fails_if_a_case_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(TARGETS, "sound", Target("support.failing_cases:sound"))
    monkeypatch.setitem(TARGETS, "crashing", Target("support.failing_cases:crashing"))
    options = ["--minutes", "0.02", "--jobs", "1", "--out", str(tmp_path / "out"), "--targets"]
    assert command.main([*options, "sound"]) == 0
    assert "0 failures" in capsys.readouterr().out
    assert command.main([*options, "crashing"]) == 1
    assert "crashing" in json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))


def test_shrinking_keeps_what_fails_and_ends_in_time() -> None:
    data = bytes(range(256)) * 4
    later = time.monotonic() + 60
    assert shrunk(data, lambda found: found.count(7) >= 2, later) == bytes([7, 7])
    assert shrunk(data, lambda found: True, time.monotonic() - 1) == data


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_review_is_killed_and_goes_on(tmp_path: Path) -> None:
    """The others take longer; `make campaign` runs all."""
    campaign = Campaign({"kills": TARGETS["kills"]}, seed=0, out=tmp_path)
    campaign.repeat("kills", 1, 1)
    assert campaign.outcomes["kills"].n_cases == 1
    assert campaign.outcomes["kills"].n_failures == 0
