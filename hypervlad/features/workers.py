"""Tasks in joblib's workers: processes on this machine, or a dask or ray cluster."""

from __future__ import annotations

import functools
import itertools
import os
import secrets
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError
from joblib.parallel import get_active_backend

from hypervlad.common.wording import warn_user
from hypervlad.features.lazy_torch import torch

_MAX_DEATHS = 3  # of workers during the same task, before the call fails
_REDUCTION = 8  # how many times fewer tasks run together after each death
_WAVE = 32  # tasks per worker that are running, or done and not yet yielded
_POLL_SECONDS = 0.2  # in which a worker looks whether its caller has ended
_MAX_SHARED = 4  # a worker of a cluster may serve several callers

T = TypeVar("T")


def uses_workers(n_jobs: int | None) -> bool:
    """Return whether tasks run in other processes: for several jobs, and on a cluster."""
    backend, _ = get_active_backend()
    if getattr(backend, "uses_threads", False) or type(backend).__name__ == "SequentialBackend":
        return False
    return not _is_local(backend) or joblib.effective_n_jobs(n_jobs) > 1


def absolute_path(path: Any) -> Any:
    """Return the absolute path of an existing file, for other processes; else the same object."""
    if isinstance(path, str | os.PathLike) and os.path.exists(path):
        return os.path.abspath(path)
    return path


def map_tasks(
    function: Callable[[Any, Any], T],
    common: Any,
    tasks: Iterable[Any],
    n_jobs: int | None,
    named: Callable[[int], str],
) -> Iterator[tuple[int, T]]:
    """Run tasks in joblib's workers, which joblib alone neither bounds in memory nor restarts.

    The function is called with ``common``, which each worker receives once, and a task. Numbers,
    from 0, and results are yielded in any order. If three workers died during the same task, a
    RuntimeError names it as ``named`` does.
    """
    stream, pending, deaths = enumerate(tasks), dict[int, Any](), Counter[int]()
    n_workers, threads = joblib.effective_n_jobs(n_jobs), _threads_per_worker(n_jobs)
    shared, in_full = Shared.of(common), set(range(n_workers))
    known = replace(shared, content=None)
    n_next = n_workers  # at first one each, which brings `common` to them
    with joblib.Parallel(n_jobs, batch_size=1, **_options()) as parallel:
        while pending or (pending := dict(itertools.islice(stream, n_next))):
            n_next = _WAVE * n_workers
            # After a death fewer at once: the task that causes it is then soon identified.
            at_once = max(n_workers, n_next // _REDUCTION ** max(deaths.values(), default=0))
            some = dict(itertools.islice(pending.items(), at_once))
            run = joblib.delayed(_run_task)
            calls = [
                run(function, shared if n in in_full else known, n, task, threads)
                for n, task in some.items()
            ]
            results: Any = None
            try:
                results = parallel(calls)  # which runs all before it returns, on ray
                for number, result, raised in results:
                    for warning in raised:
                        warn_user(warning)
                    if isinstance(result, _NotShared):
                        in_full.add(number)
                        continue
                    del pending[number], deaths[number]
                    yield number, result
            except Exception as error:
                if not _is_death(error):
                    raise
                deaths.update(number for number in some if number in pending)
                in_full.update(deaths)  # the new workers have not received `common`
                _report_deaths([named(n) for n in deaths if deaths[n] == _MAX_DEATHS], error)
            finally:
                _cancel(results)


def _cancel(results: Any) -> None:
    """Cancel what is not finished, without joblib's advice to ask for less."""
    if hasattr(results, "close"):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*(successfully executed|still being processed)")
            results.close()


def _report_deaths(fatal: list[str], error: Exception) -> None:
    if fatal:
        raise RuntimeError(
            f"{_MAX_DEATHS} worker processes were killed during these, most often because memory "
            f"ran out: {'; '.join(fatal)}. Use fewer jobs, or leave them out. Results are kept"
        ) from error
    warn_user("a worker process was killed; unfinished tasks are run again", RuntimeWarning)


def _is_death(error: Exception) -> bool:
    """Return whether an error means that a worker was killed; dask retries before it raises."""
    rays = any(each.__name__ == "RayActorError" for each in type(error).__mro__)
    return rays or isinstance(error, TerminatedWorkerError)


def _options() -> dict[str, Any]:
    backend, _ = get_active_backend()
    options: dict[str, Any] = {}
    if backend.supports_return_generator:  # ray's returns the results of a wave together
        options["return_as"] = "generator_unordered"
    # A worker that another program forks, as joblib can be told to, is not a child of this one.
    if _is_local(backend) and not os.environ.get("JOBLIB_START_METHOD"):
        options |= {"initializer": _end_with, "initargs": (os.getpid(),)}
    return options


@functools.cache
def _end_with(caller: int) -> None:
    """End this process within a second after the one that has started it, however that ends.

    Otherwise workers of a killed caller wait for minutes, each with a network in memory.
    """

    def watch() -> None:
        while os.getppid() == caller:
            time.sleep(_POLL_SECONDS)
        os._exit(1)

    if os.name == "posix":
        threading.Thread(target=watch, daemon=True, name="end with caller").start()


def _is_local(backend: Any) -> bool:
    return type(backend).__name__ == "LokyBackend"


def _threads_per_worker(n_jobs: int | None) -> int | None:
    """Share this machine's cores among its processes; None for a cluster."""
    backend, _ = get_active_backend()
    if not _is_local(backend):
        return None
    return max(1, int(joblib.cpu_count() // joblib.effective_n_jobs(n_jobs)))


class _NotShared:
    """Returned by a worker that has not received `common`, because it is new or was late."""


def _run_task(
    function: Callable[[Any, Any], T], shared: Shared, number: int, task: Any, threads: int | None
) -> tuple[int, T | _NotShared, list[Warning | str]]:
    """Run a task; return its number, its result and its warnings, which the caller repeats."""
    common = shared.get()
    if common is None:
        return number, _NotShared(), []
    if threads is None:  # a cluster's worker may have several threads, and they share the filters
        return number, function(common, task), []
    torch.set_num_threads(threads)
    with warnings.catch_warnings(record=True) as raised:
        result = function(common, task)
    return number, result, [warning.message for warning in raised]


# --- what tasks share -----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Shared:
    """What all tasks of one call need; the content is None for workers that have it already."""

    # A cluster keeps messages for a while: a model that travels with each would fill its memory.

    key: str
    content: Any

    @classmethod
    def of(cls, content: Any) -> Shared:
        return cls(secrets.token_hex(16), content)

    def get(self) -> Any:
        """Return the content, always the same object; None if it is not known here."""
        with _lock:
            content = _kept.pop(self.key, self.content)
            if content is not None:
                _kept[self.key] = content  # most recently used last
            while len(_kept) > _MAX_SHARED:
                del _kept[next(iter(_kept))]
        return content


_kept: dict[str, Any] = {}
_lock = threading.Lock()  # a dask worker may have several threads
