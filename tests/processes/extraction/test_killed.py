"""Extractions that are killed: nothing is lost, and no process is left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from support.feature_folders import write_image
from support.paths import ROOT

from hypervlad import HypercolumnVLAD

BATCH = 4
KILLING = Path(__file__).with_name("killed_at_random.py")
SMALL_BATCHES = f"""
from hypervlad.apps.cli import main
from hypervlad.features.encoder.loading import ImageLoader

ImageLoader.n_per_batch = {BATCH}
main()
"""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Many images and a model."""
    root = tmp_path_factory.mktemp("place")
    rng = np.random.default_rng(0)
    files = [write_image(root / "many" / f"{i:04d}.png", rng) for i in range(1200)]
    encoder = HypercolumnVLAD(weights="random", image_size=64, n_codewords=4, random_state=0)
    encoder.fit(files[:8]).save(root / "model.hvlad")
    return root


def command(out: str, *options: str) -> list[str]:
    """The extraction of those images; to be run in their place."""
    return [
        *(sys.executable, "-c", SMALL_BATCHES, "extract", "many", "-m", "model.hvlad"),
        *("-o", out, "-q", *options),
    ]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_random_moments(tmp_path: Path) -> None:
    seed = 20261122
    done = subprocess.run(
        [sys.executable, str(KILLING), str(tmp_path), str(seed)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"seed {seed}: {done.stdout}{done.stderr}"
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kills"] >= 20
    assert found["same"]
    # Each kill may cost the batch in flight, none more.
    assert found["computed"] <= found["images"] + found["kills"] * BATCH
    assert not list(tmp_path.glob("*.parts*"))
    shutil.rmtree(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM"])
def test_no_worker_outlives_a_killed_command(how: str, place: Path) -> None:
    child = subprocess.Popen(
        command(f"{how}.parquet", "--jobs", "2"),
        cwd=place,
        env=ENVIRONMENT,
        stderr=subprocess.DEVNULL,
    )
    # Late enough that each worker is at work.
    while child.poll() is None and len(list(place.rglob(f"_{how}.parquet.parts/*/*"))) < 100:
        time.sleep(0.01)
    workers = psutil.Process(child.pid).children(recursive=True)
    assert len(workers) >= 2
    child.send_signal(getattr(signal, how))
    child.wait(30)
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive
    assert child.returncode == (-signal.SIGKILL if how == "SIGKILL" else 143)
