"""Extractions that are killed: nothing is lost, and no process is left behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from support.feature_folders import write_image
from support.paths import ROOT
from support.waiting import wait_until

from hypervlad import HypercolumnVLAD

KILLING = Path(__file__).with_name("killed_anywhere.py")
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    "OMP_NUM_THREADS": "1",
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_moment(tmp_path):
    done = subprocess.run(
        [sys.executable, str(KILLING), str(tmp_path)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kills"] >= 20
    assert found["same"]
    # Each kill may cost the batch in flight, none more.
    assert 8 <= found["batches"] <= 8 + found["kills"]
    names = {"images", "whole.parquet", "_whole.parquet.images", "cache a", "batches.txt"}
    names |= {"killed.parquet", "_killed.parquet.images", "cache b"}
    assert {path.name for path in tmp_path.iterdir()} == names


@pytest.mark.full  # starts a command with two workers, twice, and each imports torch
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM"])
def test_no_worker_outlives_a_killed_command(how, tmp_path):
    rng = np.random.default_rng(0)
    files = [write_image(tmp_path / "many" / f"{i:04d}.png", rng) for i in range(2400)]
    encoder = HypercolumnVLAD(weights="random", image_size=64, n_codewords=4, random_state=0)
    encoder.fit(files[:8]).save(tmp_path / "model.hvlad")
    command = [sys.executable, "-m", "hypervlad", "extract", "many", "-m", "model.hvlad"]
    child = subprocess.Popen(
        [*command, "-o", "f.parquet", "-q", "--jobs", "2"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stderr=subprocess.DEVNULL,
    )
    wait_until(lambda: child.poll() is not None or list(tmp_path.rglob("*.task")), "a task done")
    workers = psutil.Process(child.pid).children(recursive=True)
    assert len(workers) >= 2
    child.send_signal(getattr(signal, how))
    child.wait()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
    assert child.returncode == (-signal.SIGKILL if how == "SIGKILL" else 143)
