"""Work on images spread over joblib's workers: processes here, or a dask or ray cluster."""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import joblib
import torch
from joblib.externals.loky.process_executor import TerminatedWorkerError
from joblib.parallel import get_active_backend

_MOST_DEATHS = 3  # of workers over the same work, before it is given up
_WAVE = 8  # tasks a worker

T = TypeVar("T")


def is_spread(n_jobs: int | None = None) -> bool:
    """Say whether work goes to other processes.

    It does for more than one job, as a parameter or by ``joblib.parallel_config``, and with every
    backend of a cluster. One job with joblib's own backends works here; so do threads, because a
    network uses all cores by itself.
    """
    backend, _ = get_active_backend()
    if getattr(backend, "uses_threads", False) or type(backend).__name__ == "SequentialBackend":
        return False
    if type(backend).__name__ != "LokyBackend":
        return True
    return joblib.effective_n_jobs(n_jobs) > 1


def spread(
    work: Callable[[Any], T], tasks: Iterable[Any], n_jobs: int | None = None
) -> Iterator[tuple[int, T]]:
    """Do tasks in joblib's workers.

    Parameters
    ----------
    work : callable
        A function of a module, called with a task.
    tasks : iterable
        Picklable; drawn from as workers become free, so a stream needs little memory.
    n_jobs : int, optional
        As in :class:`joblib.Parallel`.

    Yields
    ------
    number : int
        Of the task, in their order, counted from 0.
    result : object
        As they come, in any order.

    Raises
    ------
    RuntimeError
        If workers died three times in a row without anything done in between.
    """
    stream, under_way = enumerate(tasks), dict[int, Any]()

    def calls() -> Iterator[Any]:
        yield from [call(number, task) for number, task in under_way.items()]
        for number, task in stream:
            under_way[number] = task
            yield call(number, task)

    def call(number: int, task: Any) -> Any:
        return joblib.delayed(_numbered)(work, number, task, threads)

    threads, n_deaths = _threads_each(n_jobs), 0
    while True:
        try:
            for number, result in _results(calls(), n_jobs):
                n_deaths = 0
                del under_way[number]
                yield number, result
            return
        except TerminatedWorkerError as error:
            n_deaths += 1
            if n_deaths == _MOST_DEATHS:
                raise RuntimeError(
                    f"worker processes were killed {n_deaths} times in a row, most often because "
                    "memory ran out; use fewer jobs or a smaller batch_size. What was finished "
                    "is kept"
                ) from error
            warnings.warn(
                f"a worker process was killed; its {len(under_way)} tasks are done again",
                RuntimeWarning,
                stacklevel=2,
            )


def _results(calls: Iterator[Any], n_jobs: int | None) -> Iterator[Any]:
    backend, _ = get_active_backend()
    if backend.supports_return_generator:
        yield from joblib.Parallel(n_jobs, return_as="generator_unordered", batch_size=1)(calls)
        return
    # In waves, with the same processes: ray's backend hands results over only when all are there.
    n_calls = _WAVE * joblib.effective_n_jobs(n_jobs)
    with joblib.Parallel(n_jobs, batch_size=1) as workers:
        while wave := list(itertools.islice(calls, n_calls)):
            yield from workers(wave)


def in_order(results: Iterable[tuple[int, T]]) -> Iterator[T]:
    """Put numbered results into the order of their numbers, holding those that come early."""
    early: dict[int, T] = {}
    following = 0
    for number, result in results:
        early[number] = result
        while following in early:
            yield early.pop(following)
            following += 1


def _numbered(
    work: Callable[[Any], T], number: int, task: Any, threads: int | None
) -> tuple[int, T]:
    if threads is not None:
        torch.set_num_threads(threads)
    return number, work(task)


def _threads_each(n_jobs: int | None) -> int | None:
    """Share this machine's cores among its processes; a cluster sees to its own."""
    backend, _ = get_active_backend()
    if type(backend).__name__ != "LokyBackend":
        return None
    return max(1, _n_cores() // joblib.effective_n_jobs(n_jobs))


def _n_cores() -> int:
    return int(joblib.cpu_count()) or os.cpu_count() or 1
