"""The public surface, and what importing it costs."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

import hypervlad


def test_everything_in_all_is_there_and_has_a_docstring() -> None:
    assert hypervlad.__all__ == sorted(hypervlad.__all__, key=str)
    for name in hypervlad.__all__:
        assert getattr(hypervlad, name).__doc__, name
    assert set(hypervlad.__all__) == set(dir(hypervlad))


def test_what_is_not_there_is_told() -> None:
    with pytest.raises(AttributeError, match="no attribute 'HyperVLAD'"):
        _ = hypervlad.HyperVLAD


def test_presets_are_used_as_a_room() -> None:
    code = "import hypervlad; print(hypervlad.presets.__name__)"
    told = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert told.strip() == "hypervlad.presets"


def imported(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sorted({{n.split('.')[0] for n in sys.modules}}))"
    return set(subprocess.check_output([sys.executable, "-c", code], text=True).split())


HEAVY = {"torch", "torchvision", "xgboost", "sklearn", "skimage", "scipy", "matplotlib", "numpy"}


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert not imported("import hypervlad") & HEAVY


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("from hypervlad import read_image, make_tem_images", {"torch", "xgboost"}),
        ("from hypervlad import HypercolumnVLAD", {"xgboost"}),
        ("from hypervlad import BoostedSoftmaxClassifier", {"torch"}),
        ("from hypervlad import load", {"torch", "xgboost"}),
        ("import hypervlad.cli", {"torch", "xgboost", "sklearn", "matplotlib"}),
    ],
)
def test_rooms_import_only_what_they_need(statement: str, unwanted: set[str]) -> None:
    assert not imported(statement) & unwanted


def test_importing_costs_at_most_half_a_second() -> None:
    """The best of five, less what an empty Python costs: a noisy machine is noisy for both."""

    def best(code: str) -> float:
        times = []
        for _ in range(5):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            times.append(time.perf_counter() - started)
        return min(times)

    assert best("import hypervlad") - best("pass") < 0.5


@pytest.mark.parametrize(("before", "after"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_waiting_threads_sleep_unless_the_user_says_otherwise(
    before: str | None, after: str
) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    if before is not None:
        environment["OMP_WAIT_POLICY"] = before
    code = "import hypervlad, os; print(os.environ['OMP_WAIT_POLICY'])"
    told = subprocess.check_output([sys.executable, "-c", code], text=True, env=environment)
    assert told.strip() == after
