"""Benchmarks resume where they were interrupted, never with another run's results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.common.checkpoints import load_or_run, settings_digest

SETTINGS = {"method": "luo2021", "seed": 0, "versions": {"torch": "2.4"}}


class Job:
    """Counts how often it really runs."""

    def __init__(self) -> None:
        self.n_runs = 0

    def __call__(self) -> dict[str, Any]:
        self.n_runs += 1
        return {
            "accuracy": 0.909,
            "seconds": {"total": 1.5},
            "proba": np.eye(2, dtype=np.float32),
            "labels": np.array(["fibre", "cluster"]),
        }


def test_the_digest_knows_content_not_order() -> None:
    turned = dict(reversed(SETTINGS.items()))
    assert settings_digest(turned) == settings_digest(SETTINGS)
    assert settings_digest({**SETTINGS, "seed": 1}) != settings_digest(SETTINGS)
    with pytest.raises(ValueError, match="JSON"):
        settings_digest({"value": float("nan")})


def test_a_second_run_reads_what_the_first_wrote(tmp_path: Path) -> None:
    job = Job()
    first = load_or_run(tmp_path / "new" / "split.json", SETTINGS, job)
    second = load_or_run(tmp_path / "new" / "split.json", SETTINGS, job)
    assert job.n_runs == 1
    assert not first.pop("reused")
    assert second.pop("reused")
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value)
    assert second["proba"].dtype == np.float32


def test_other_settings_run_again_and_leave_the_first_alone(tmp_path: Path) -> None:
    job = Job()
    for settings in (SETTINGS, {**SETTINGS, "versions": {"torch": "2.5"}}, SETTINGS):
        load_or_run(tmp_path / "split.json", settings, job)
    assert job.n_runs == 2


@pytest.mark.parametrize("harm", ["cut", "foreign", "no arrays", "bad arrays", "edited"])
def test_a_piece_that_is_not_whole_is_computed_again(tmp_path: Path, harm: str) -> None:
    job = Job()
    load_or_run(tmp_path / "split.json", SETTINGS, job)
    (path,), (arrays,) = tmp_path.glob("*.json"), tmp_path.glob("*.npz")
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:40])
    elif harm == "foreign":
        path.write_text("[1, 2]", encoding="utf-8")
    elif harm == "no arrays":
        arrays.unlink()
    elif harm == "bad arrays":
        arrays.write_bytes(arrays.read_bytes()[:100])
    else:
        content = json.loads(path.read_text(encoding="utf-8"))
        content["settings"]["seed"] = 7
        path.write_text(json.dumps(content), encoding="utf-8")
    assert load_or_run(tmp_path / "split.json", SETTINGS, job)["accuracy"] == 0.909
    assert job.n_runs == 2


def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupted() -> dict[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_or_run(tmp_path / "split.json", SETTINGS, interrupted)
    with pytest.raises(TypeError, match="x is an array of objects"):
        load_or_run(tmp_path / "a.json", SETTINGS, lambda: {"x": np.array([None, {}])})
    with pytest.raises(TypeError):
        load_or_run(tmp_path / "b.json", SETTINGS, lambda: {"x": object()})
    assert not list(tmp_path.iterdir())
