"""Other processes: joblib's own, a dask cluster and ray, each with a worker killed in mid-run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

SCRIPT = Path(__file__).with_name("on_a_cluster.py")


@pytest.mark.full  # each starts several processes that import torch, and one of them again
@pytest.mark.parametrize("kind", ["loky", "dask", "ray"])
def test_other_processes_give_the_same_and_may_die(kind, tmp_path):
    if kind != "loky":
        pytest.importorskip(kind)
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, str(SCRIPT), kind, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"the same on {kind}" in done.stdout
