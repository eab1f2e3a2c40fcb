"""Work on images spread over joblib's workers: processes here, or a dask or ray cluster."""

from __future__ import annotations

import functools
import itertools
import os
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import joblib
import torch
from joblib.externals.loky.process_executor import TerminatedWorkerError
from joblib.parallel import get_active_backend

from hypervlad.encoder.sharing import Shared

_MOST_DEATHS = 3  # of workers over the same task, before it is given up
_FEWER = 8  # times fewer tasks are tried together after each death
_SECONDS_BETWEEN_LOOKS = 1.0

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
    return not _is_local(backend) or joblib.effective_n_jobs(n_jobs) > 1


def from_anywhere(path: Any) -> Any:
    """Return a path as other processes find it, whose folder may be another; else what came."""
    if isinstance(path, str | os.PathLike) and os.path.exists(path):
        return os.path.abspath(path)
    return path


def spread(
    work: Callable[[Any, Any], T],
    common: Any,
    tasks: Iterable[Any],
    n_jobs: int | None = None,
    *,
    wave: int = 32,
    named: Callable[[int], str] = "task {}".format,
) -> Iterator[tuple[int, T]]:
    """Do tasks in joblib's workers.

    Parameters
    ----------
    work : callable
        A function of a module, called with what is common and a task.
    common : object
        Picklable, not None. Sent to each worker once; there, always the same object.
    tasks : iterable
        Picklable; drawn from in waves, so that a stream needs little memory.
    n_jobs : int, optional
        As in :class:`joblib.Parallel`.
    wave : int, default=32
        Tasks a worker that are under way or wait for the caller, at most. joblib bounds the first
        only; between waves a worker may wait for another one's last task.
    named : callable, optional
        What errors call the task of a number.

    Yields
    ------
    number : int
        Of the task, in their order, counted from 0.
    result : object
        As they come, in any order.

    Raises
    ------
    RuntimeError
        If three workers have died over the same task. What else was done has been yielded.
    """
    stream, pending, deaths = enumerate(tasks), dict[int, Any](), Counter[int]()
    n_workers, place = joblib.effective_n_jobs(n_jobs), _place_here(n_jobs)
    shared, in_full = Shared.of(common), set(range(n_workers))
    n_next = n_workers  # at first one each, to bring them what is common
    with joblib.Parallel(n_jobs, batch_size=1, **_as_they_come()) as parallel:
        while pending or (pending := dict(itertools.islice(stream, n_next))):
            n_next = wave * n_workers
            # After a death fewer at once: the task that brings it is soon told from the others.
            at_once = max(n_workers, n_next // _FEWER ** max(deaths.values(), default=0))
            some = dict(itertools.islice(pending.items(), at_once))
            calls = [
                joblib.delayed(_numbered)(
                    work, shared if n in in_full else shared.named(), n, task, place
                )
                for n, task in some.items()
            ]
            try:
                for number, result in parallel(calls):
                    if isinstance(result, _Unknown):
                        in_full.add(number)
                        continue
                    del pending[number], deaths[number]
                    yield number, result
            except Exception as error:
                if not _is_death(error):
                    raise
                deaths.update(number for number in some if number in pending)
                in_full.update(deaths)  # the new workers know nothing
                _tell_of_death([named(n) for n in deaths if deaths[n] == _MOST_DEATHS], error)


def _tell_of_death(fatal: list[str], error: Exception) -> None:
    """Warn that a worker died; raise if there are tasks that it has happened over too often."""
    if fatal:
        raise RuntimeError(
            f"{_MOST_DEATHS} worker processes were killed over these, most often because memory "
            f"ran out: {'; '.join(fatal)}. Use fewer jobs or a smaller batch_size, or leave them "
            "out. What was finished is kept"
        ) from error
    warnings.warn(
        "a worker process was killed; what it and the others had begun is done again",
        RuntimeWarning,
        stacklevel=3,
    )


def _is_death(error: Exception) -> bool:
    """Say whether an error means that a worker was killed; dask has no such error at first."""
    rays = any(each.__name__ == "RayActorError" for each in type(error).__mro__)
    return rays or isinstance(error, TerminatedWorkerError)


def _as_they_come() -> dict[str, Any]:
    backend, _ = get_active_backend()  # ray's hands results over when all of a wave are there
    return {"return_as": "generator_unordered"} if backend.supports_return_generator else {}


def _is_local(backend: Any) -> bool:
    return type(backend).__name__ == "LokyBackend"


def in_order(results: Iterable[tuple[int, T]]) -> Iterator[T]:
    """Put numbered results into the order of their numbers, holding those that come early."""
    early: dict[int, T] = {}
    following = 0
    for number, result in results:
        early[number] = result
        while following in early:
            yield early.pop(following)
            following += 1


@dataclass(frozen=True)
class _Place:
    """A worker's place on this machine: its share of the cores, and the process it works for."""

    threads: int
    caller: int


def _place_here(n_jobs: int | None) -> _Place | None:
    """Share this machine's cores among its processes; a cluster sees to its own."""
    backend, _ = get_active_backend()
    if not _is_local(backend):
        return None
    threads = max(1, joblib.cpu_count() // joblib.effective_n_jobs(n_jobs))
    return _Place(threads, os.getpid())


class _Unknown:
    """A worker's answer where it lacks what is common: it is new, or came late to the first."""


def _numbered(
    work: Callable[[Any, Any], T], shared: Shared, number: int, task: Any, place: _Place | None
) -> tuple[int, T | _Unknown]:
    if place is not None:
        torch.set_num_threads(place.threads)
        _end_with(place.caller)
    common = shared.here()
    return number, _Unknown() if common is None else work(common, task)


@functools.cache
def _end_with(caller: int) -> None:
    """Let this worker end soon after the process that it works for.

    Where that one is killed, workers would wait for ever to hand their results over, each with a
    network in memory. (On Windows a process does not see that its parent has ended.)
    """

    def watch() -> None:
        while os.getppid() == caller:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        os._exit(1)

    if os.name == "posix" and (os.getppid() == caller or not _is_alive(caller)):
        threading.Thread(target=watch, daemon=True, name="end with caller").start()


def _is_alive(process: int) -> bool:
    """Say whether there is such a process: a caller that lives need not be the parent."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True
