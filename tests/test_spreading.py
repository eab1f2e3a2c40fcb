"""Work in other processes: what means them, in what order results come, and who may die."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator

import joblib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervlad.encoder.spreading import in_order, is_spread, spread


def squared(number: int) -> int:
    return number * number


def kills_at_7(number: int) -> int:
    if number == 7:
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
def test_results_do_not_pile_up_before_a_slow_caller() -> None:
    drawn: list[int] = []

    def tasks() -> Iterator[int]:
        for number in range(60):
            drawn.append(number)
            yield number

    found = {}
    for number, value in spread(squared, tasks(), 2, wave=4):
        if len(found) in (0, 30):
            time.sleep(0.5)
            assert len(drawn) <= len(found) + 2 * 4 * 2
        found[number] = value
    assert found == {number: number**2 for number in range(60)}


@pytest.mark.slow
def test_an_error_of_the_work_is_the_callers() -> None:
    with pytest.raises(ValueError, match="no 0"):
        list(spread(fails, [0], 2))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.filterwarnings("ignore:A worker stopped while some jobs were given")
def test_what_kills_its_workers_is_named_and_the_rest_is_done() -> None:
    done: list[int] = []

    def do_all() -> None:
        for number, _ in spread(kills_at_7, range(40), 2, wave=8, named="No. {}".format):
            done.append(number)

    with (
        pytest.warns(RuntimeWarning, match="a worker process was killed; what it and the others"),
        pytest.raises(RuntimeError, match=r"3 worker processes were killed over these.*No\. 7"),
    ):
        do_all()
    assert 7 not in done
    assert len(done) >= 6  # those before it, at least
