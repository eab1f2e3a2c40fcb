"""Work in other processes: what means them, in what order results come, and who may die."""

from __future__ import annotations

import os
import signal
import sys

import joblib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervlad.encoder.spreading import in_order, is_spread, spread


def squared(number: int) -> int:
    return number * number


def dies(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def fails(number: int) -> int:
    raise ValueError(f"no {number}")


def test_what_means_other_processes() -> None:
    assert not is_spread()
    assert not is_spread(1)
    assert is_spread(2)
    with joblib.parallel_config(n_jobs=2):
        assert is_spread()
        assert not is_spread(1)
    for backend in ("threading", "sequential"):
        with joblib.parallel_config(backend, n_jobs=2):
            assert not is_spread()


@given(st.permutations(range(12)), st.integers(0, 12))
def test_in_order(numbers: list[int], n: int) -> None:
    numbers = [number for number in numbers if number < n]
    assert list(in_order((number, -number) for number in numbers)) == [-i for i in range(n)]


@pytest.mark.slow
def test_tasks_are_drawn_as_workers_become_free() -> None:
    drawn: list[int] = []

    def tasks() -> object:
        for number in range(60):
            drawn.append(number)
            yield number

    results = spread(squared, tasks(), 2)
    assert next(results) in [(i, i * i) for i in range(10)]
    assert len(drawn) < 60
    rest = dict(results)
    assert len(rest) == 59
    assert all(value == number**2 for number, value in rest.items())


@pytest.mark.slow
def test_an_error_of_the_work_is_the_callers() -> None:
    with pytest.raises(ValueError, match="no 0"):
        list(spread(fails, [0], 2))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.filterwarnings("ignore:A worker stopped while some jobs were given")
def test_work_that_kills_every_worker_is_given_up() -> None:
    with (
        pytest.warns(RuntimeWarning, match="a worker process was killed; its . tasks are done ag"),
        pytest.raises(RuntimeError, match=r"killed 3 times in a row, most often because memory"),
    ):
        list(spread(dies, range(4), 2))
