"""``hypervlad particles find`` whose process is killed: what is done is kept, and it is resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import run, save
from support.paths import ROOT
from support.waiting import wait_until

from hypervlad import make_particle_fields


@pytest.mark.full  # starts a process that imports everything
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL on this system")
def test_a_killed_search_is_resumed(tmp_path: Path) -> None:
    fields, _ = make_particle_fields(40, size=96, n_particles=2, extent=20, random_state=0)
    for number, field in enumerate(fields):
        save(tmp_path / "images" / f"{number:02d}.png", field)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    find = ["particles", "find", str(tmp_path / "images"), "-q", "--resume", "-o"]
    run(*find, tmp_path / "whole")
    command = [sys.executable, "-m", "hypervlad", *find, str(tmp_path / "found")]
    process = subprocess.Popen(command, env=environment)
    outlines = tmp_path / "found" / "outlines"
    wait_until(lambda: len(list(outlines.glob("*.tif"))) >= 3, "three fields")
    process.kill()
    assert process.wait() == -signal.SIGKILL
    kept = {file: file.stat().st_mtime_ns for file in outlines.glob("*.tif")}
    assert 3 <= len(kept) < len(fields)
    run(*find, tmp_path / "found")
    assert all(file.stat().st_mtime_ns == before for file, before in kept.items())
    for name in ("particles.csv", "fields.csv"):
        expected = (tmp_path / "whole" / name).read_bytes()
        assert (tmp_path / "found" / name).read_bytes() == expected
