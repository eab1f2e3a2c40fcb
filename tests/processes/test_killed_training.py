"""A fine-tuning whose process is killed resumes to a model file of identical bytes."""

from __future__ import annotations

import multiprocessing
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from support.tiny import register_tiny
from support.waiting import wait_until

from hypervlad.models import TransferClassifier


def train(checkpoint: Path | None, model: Path) -> None:
    rng = np.random.default_rng(0)
    images = [rng.random((20, 24)).astype(np.float32) for _ in range(40)]
    learner = TransferClassifier(
        "tiny",
        "random",
        mode="finetune",
        trainable="all",
        image_size=16,
        batch_size=2,
        max_epochs=8,
        patience=8,
        random_state=0,
        checkpoint=checkpoint,
    )
    learner.fit(images, np.arange(40) % 2).save(model)


def _train_there(checkpoint: Path, model: Path) -> None:
    torch.set_num_threads(1)
    register_tiny()
    train(checkpoint, model)


@pytest.mark.full  # a process that imports torch, and a dozen of epochs
@pytest.mark.filterwarnings("ignore:fine-tuning is validated on:UserWarning")
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL on this system")
def test_a_killed_training_resumes(tmp_path: Path) -> None:
    """A real SIGKILL after the first epoch: the model's file is the same to the byte."""
    place, model = tmp_path / "training.checkpoint", tmp_path / "resumed.hvlad"
    train(None, tmp_path / "whole.hvlad")
    process = multiprocessing.get_context("spawn").Process(target=_train_there, args=(place, model))
    process.start()
    wait_until(lambda: place.exists() or not process.is_alive(), "the first checkpoint")
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    train(place, model)
    assert model.read_bytes() == (tmp_path / "whole.hvlad").read_bytes()
