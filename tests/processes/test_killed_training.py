"""A fine-tuning whose process is killed resumes to a model file of identical bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from support.paths import ROOT

SCRIPT = """
    import sys
    import numpy as np, torch
    sys.path.insert(0, {tests!r})
    from support.tiny import register_tiny
    from hypervlad.models.baselines import TransferClassifier

    torch.set_num_threads(1)
    register_tiny()
    rng = np.random.default_rng(0)
    images = [rng.random((20, 24)).astype(np.float32) for _ in range(40)]
    labels = np.arange(40) % 2
    model = TransferClassifier(
        "tiny", "random", mode="finetune", trainable="all", image_size=16, batch_size=2,
        max_epochs=20, patience=20, random_state=0, checkpoint=sys.argv[1] or None,
    )
    model.fit(images, labels).save(sys.argv[2])
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL on this system")
def test_a_killed_training_resumes(tmp_path: Path) -> None:
    """A real SIGKILL in the middle of an epoch: the model's file is the same to the byte."""
    code = textwrap.dedent(SCRIPT).format(tests=str(ROOT / "tests"))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    place = tmp_path / "training.checkpoint"

    def command(checkpoint: str, model: str) -> list[str]:
        return [sys.executable, "-c", code, checkpoint, str(tmp_path / model)]

    subprocess.run(command("", "whole.hvlad"), env=environment, check=True)
    process = subprocess.Popen(command(str(place), "resumed.hvlad"), env=environment)
    while process.poll() is None and not place.exists():
        time.sleep(0.01)
    time.sleep(0.05)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    subprocess.run(command(str(place), "resumed.hvlad"), env=environment, check=True)
    expected = (tmp_path / "whole.hvlad").read_bytes()
    assert (tmp_path / "resumed.hvlad").read_bytes() == expected
