"""Extraction in other processes of this machine: paths, networks, threads."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from support.extraction_fixtures import extracted

from hypervlad import HypercolumnVLAD
from hypervlad.data.extraction.tasks import Job, open_source, run_task
from hypervlad.features import get_backbone


@pytest.mark.slow
def test_a_network_registered_here_works_there(
    encoder: HypercolumnVLAD, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative paths, too, and a cache that both find."""
    monkeypatch.chdir(tmp_path)
    X, frame = extracted("images", encoder.set_params(memory="cache"), n_jobs=2)
    again, _ = extracted("images", encoder.set_params(memory="cache"))
    np.testing.assert_array_equal(X, again)
    np.testing.assert_allclose(
        X, encoder.set_params(memory=None).transform([folder / p for p in frame["path"]]), atol=1e-5
    )
    assert (tmp_path / "cache" / "joblib").is_dir()


def test_a_reused_worker_uses_the_new_job(
    encoder: HypercolumnVLAD, folder: Path, tmp_path: Path, read: list[str]
) -> None:
    (task,) = open_source(folder / "a", folder).tasks(8)
    backbone = get_backbone("tiny")
    for run, memory, n_read in (("1", "cache", 8), ("2", "cache", 8), ("2", "another", 16)):
        own = encoder.set_params(memory=tmp_path / memory).portable_copy()
        run_task(Job(own, backbone, run, n_images=1), task)
        assert len(read) == n_read


def test_threads_of_one_worker_build_one_network(
    encoder: HypercolumnVLAD, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[str] = []
    original = HypercolumnVLAD.batch_encoder

    def counted(self: HypercolumnVLAD) -> object:
        built.append("")
        return original(self)

    monkeypatch.setattr(HypercolumnVLAD, "batch_encoder", counted)
    job = Job(encoder, get_backbone("tiny"), "threads", n_images=1)
    tasks = list(open_source(folder).tasks(2))
    threads = [threading.Thread(target=run_task, args=(job, t)) for t in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
