"""The campaign's runner notices each way to fail, and goes on."""

import json
import os
import sys
from typing import Any

import psutil
import pytest

from tests.campaign import __main__ as command
from tests.campaign.case import TARGETS, Target
from tests.campaign.runner import Campaign


def campaign_of(function, out, **bounds):
    return Campaign({function: Target(f"support.failing_cases:{function}", **bounds)}, out)


def failure_of(function, number, out, **bounds):
    """Run one case, which fails, and return what is kept of it."""
    (event,) = campaign_of(function, out, **bounds).repeat(function, 3, number)
    file = out / f"{function}-3-{number}" / "failure.json"
    kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    assert kept["command"] == f"python -m tests.campaign --repeat {function}:3:{number}"
    return event | kept


def test_an_exception_keeps_its_file(tmp_path):
    failure = failure_of("raising", 1, tmp_path)
    assert failure["name"] == "1001 letters"
    assert failure["place"].startswith("ZeroDivisionError in failing_cases.py, read")
    assert "an x" in failure["detail"]
    assert (tmp_path / "raising-3-1" / "input.txt").read_bytes().count(b"x") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="other exit codes")
def test_a_crash_is_of_the_case_that_ran(tmp_path):
    failure = failure_of("crashing", 1, tmp_path)
    assert failure["place"] == "crash: crash"
    assert "Segmentation fault" in failure["detail"]
    assert (tmp_path / "crashing-3-1" / "input.txt").read_text(encoding="utf-8") == "deadly"


def test_a_hang_is_ended(tmp_path):
    before = set(psutil.Process().children())
    failure = failure_of("hanging", 0, tmp_path, seconds=0.5)
    assert failure["place"] == "hang: wait"
    assert "failing_cases.py" in failure["detail"]
    assert not set(psutil.Process().children()) - before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux bounds memory")
@pytest.mark.parametrize("function", ["growing", "leaking"])
def test_the_memory_of_a_case_and_of_all_together_is_bounded(function, tmp_path):
    events = campaign_of(function, tmp_path, megabytes=100).run([function], 0, 2.0, 1)[function]
    places = [event["place"] for event in events if "place" in event]
    assert places
    assert all("MemoryError" in place for place in places)


def test_a_broken_generator_is_a_failure(tmp_path):
    events = campaign_of("broken", tmp_path).run(["broken"], 0, 1.0, 1)["broken"]
    assert "making a case" in [event["name"] for event in events if "place" in event]


def test_the_command_fails_if_a_case_does(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(TARGETS, "sound", Target("support.failing_cases:sound"))
    monkeypatch.setitem(TARGETS, "crashing", Target("support.failing_cases:crashing"))
    options = ["--minutes", "0.02", "--jobs", "1", "--out", str(tmp_path / "out"), "--targets"]
    assert command.main([*options, "sound"]) == 0
    assert "0 failures" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert command.main([*options, "crashing"]) == 1


@pytest.mark.full  # imports the whole package once more, and serves a queue many times
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_review_is_killed_and_goes_on(tmp_path):
    """The others take longer; `make campaign` runs all."""
    (event,) = Campaign(TARGETS, tmp_path).repeat("kills", 1, 1)
    assert "place" not in event
