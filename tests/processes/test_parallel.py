"""Tasks in other processes: when they run there, the order of results, workers that die."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
import warnings
from collections.abc import Iterator

import joblib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervlad.features.encoder.parallel import Shared, in_order, map_tasks, uses_workers
from hypervlad.images import PartlyReadWarning


def power(exponent: int, number: int) -> int:
    return number**exponent


def kills_at_7(_: str, number: int) -> int:
    if number == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def fails(_: str, number: int) -> int:
    raise ValueError(f"no {number}")


def test_when_tasks_run_in_other_processes() -> None:
    assert not uses_workers()
    assert not uses_workers(1)
    assert uses_workers(2)
    with joblib.parallel_config(n_jobs=2):
        assert uses_workers()
        assert not uses_workers(1)
    for backend in ("threading", "sequential"):
        with joblib.parallel_config(backend, n_jobs=2):
            assert not uses_workers()


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
    for number, value in map_tasks(power, 2, tasks(), 2, wave=4):
        if len(found) in (0, 30):
            time.sleep(0.5)
            assert len(drawn) <= len(found) + 2 * 4 * 2
        found[number] = value
    assert found == {number: number**2 for number in range(60)}


class Travels:
    """Something that counts, where it is sent from, how often it is sent."""

    def __init__(self) -> None:
        self.times = 0

    def __getstate__(self) -> dict[str, int]:
        self.times += 1
        return {"times": self.times}


def which(common: Travels, number: int) -> tuple[int, int]:
    return os.getpid(), id(common)


@pytest.mark.slow
def test_the_common_object_is_sent_to_a_worker_once() -> None:
    common = Travels()
    found = dict(map_tasks(which, common, range(120), 2, wave=8))
    assert sorted(found) == list(range(120))
    assert common.times <= 2 + 2 * 8  # one each; a worker that starts late lets a wave pass
    assert len(set(found.values())) == len({process for process, _ in found.values()})


def test_shared_content_is_found_by_its_key() -> None:
    content = ["any"]
    shared = Shared.of(content)
    assert shared.key_only().get() is None
    assert shared.get() is content
    assert shared.key_only().get() is content
    assert pickle.loads(pickle.dumps(shared)).get() is content  # the one that came first
    others = [Shared.of([number]) for number in range(4)]
    assert [other.get() for other in others] == [[0], [1], [2], [3]]
    assert shared.key_only().get() is None  # not kept forever


@pytest.mark.slow
def test_an_error_in_a_task_is_raised_here() -> None:
    with pytest.raises(ValueError, match="no 0"):
        list(map_tasks(fails, "", [0], 2))


def warns(_: str, number: int) -> int:
    warnings.warn(PartlyReadWarning("one folder"), stacklevel=2)
    return number


@pytest.mark.slow
def test_what_a_task_warns_of_is_a_warning_here(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(PartlyReadWarning, match="one folder"):
        assert sorted(map_tasks(warns, "", range(4), 2)) == [(n, n) for n in range(4)]
    assert "one folder" not in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.filterwarnings("ignore:A worker stopped while some jobs were given")
def test_a_task_that_kills_its_workers_is_named_and_the_rest_is_done() -> None:
    done: list[int] = []

    def do_all() -> None:
        for number, _ in map_tasks(kills_at_7, "", range(40), 2, wave=8, named="No. {}".format):
            done.append(number)

    with (
        pytest.warns(RuntimeWarning, match="a worker process was killed; unfinished tasks"),
        pytest.raises(RuntimeError, match=r"3 worker processes were killed during these.*No\. 7"),
    ):
        do_all()
    assert 7 not in done
    assert len(done) >= 6  # those before it, at least
