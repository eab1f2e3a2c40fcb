"""The campaign's runner notices each way to fail, and goes on."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import psutil
import pytest

from tests.campaign import __main__ as command
from tests.campaign.case import TARGETS, Target
from tests.campaign.runner import Campaign, Failure


def campaign_of(function: str, out: Path, **bounds: float) -> Campaign:
    target = Target(f"support.failing_cases:{function}", **bounds)
    return Campaign({function: target}, seed=3, out=out, log=lambda line: None)


def failure_of(function: str, number: int, out: Path, **bounds: float) -> Failure:
    """Run one case, and return its only failure."""
    campaign = campaign_of(function, out, **bounds)
    campaign.repeat(function, 3_000_000, number)
    (failure,) = campaign.outcomes[function].failures
    return failure


def test_cases_that_do_well_are_counted(tmp_path: Path) -> None:
    campaign = campaign_of("sound", tmp_path / "out")
    campaign.run(0.0, jobs=2)
    found = campaign.outcomes["sound"]
    assert found.n_workers >= 2
    assert found.n_cases >= 2
    assert found.n_failures == 0
    assert not (tmp_path / "out").exists()


def test_an_exception_keeps_its_file(tmp_path: Path) -> None:
    failure = failure_of("raising", 1, tmp_path / "out")
    assert (failure.kind, failure.name) == ("exception", "1001 letters")
    assert failure.place.startswith("ZeroDivisionError in failing_cases.py, read")
    assert "an x" in failure.detail
    assert failure.command == "python -m tests.campaign --repeat raising:3000000:1"
    folder = tmp_path / "out" / "raising-3000000-1"
    assert (folder / "input.txt").read_bytes().count(b"x") == 1
    assert json.loads((folder / "failure.json").read_text(encoding="utf-8"))["seed"] == 3_000_000


@pytest.mark.skipif(sys.platform == "win32", reason="other exit codes")
def test_a_crash_is_of_the_case_that_ran(tmp_path: Path) -> None:
    failure = failure_of("crashing", 1, tmp_path)
    assert (failure.kind, failure.name) == ("crash", "crash")
    assert "exit code -11" in failure.detail
    assert "Segmentation fault" in failure.detail
    assert (tmp_path / "crashing-3000000-1" / "input.txt").read_text(encoding="utf-8") == "deadly"


def test_a_hang_is_ended(tmp_path: Path) -> None:
    before = psutil.Process().children()
    failure = failure_of("hanging", 0, tmp_path, seconds=0.5)
    assert (failure.kind, failure.name) == ("hang", "wait")
    assert "failing_cases.py" in failure.detail
    assert psutil.Process().children() == before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux bounds memory")
@pytest.mark.parametrize("function", ["growing", "leaking"])
def test_the_memory_of_a_case_and_of_all_together_is_bounded(function: str, tmp_path: Path) -> None:
    campaign = campaign_of(function, tmp_path, megabytes=100)
    campaign.run(2.0, jobs=1)
    failures = campaign.outcomes[function].failures
    assert failures
    assert all("MemoryError" in each.place for each in failures)


def test_a_broken_generator_is_a_failure(tmp_path: Path) -> None:
    campaign = campaign_of("broken", tmp_path)
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


@pytest.mark.full  # imports the whole package once more, and serves a queue many times
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_review_is_killed_and_goes_on(tmp_path: Path) -> None:
    """The others take longer; `make campaign` runs all."""
    campaign = Campaign({"kills": TARGETS["kills"]}, seed=0, out=tmp_path)
    campaign.repeat("kills", 1, 1)
    assert campaign.outcomes["kills"].n_cases == 1
    assert campaign.outcomes["kills"].n_failures == 0
