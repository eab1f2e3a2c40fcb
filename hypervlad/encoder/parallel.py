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
import torch
from joblib.externals.loky.process_executor import TerminatedWorkerError
from joblib.parallel import get_active_backend

_MAX_DEATHS = 3  # of workers during the same task, before the call fails
_REDUCTION = 8  # how many times fewer tasks run together after each death
_POLL_SECONDS = 1.0
_MAX_SHARED = 4  # a worker of a cluster may serve several callers

T = TypeVar("T")


def uses_workers(n_jobs: int | None = None) -> bool:
    """Return whether tasks run in other processes.

    They do for more than one job, as a parameter or by ``joblib.parallel_config``, and with every
    backend of a cluster. They do not for one job with joblib's own backends, nor for threads,
    because a network already uses all cores.
    """
    backend, _ = get_active_backend()
    if getattr(backend, "uses_threads", False) or type(backend).__name__ == "SequentialBackend":
        return False
    return not _is_local(backend) or joblib.effective_n_jobs(n_jobs) > 1


def absolute_path(path: Any) -> Any:
    """Return the absolute path of an existing file; anything else unchanged.

    Other processes may have another working folder.
    """
    if isinstance(path, str | os.PathLike) and os.path.exists(path):
        return os.path.abspath(path)
    return path


def map_tasks(
    function: Callable[[Any, Any], T],
    common: Any,
    tasks: Iterable[Any],
    n_jobs: int | None = None,
    *,
    wave: int = 32,
    named: Callable[[int], str] = "task {}".format,
) -> Iterator[tuple[int, T]]:
    """Run tasks in joblib's workers.

    Parameters
    ----------
    function : callable
        A function of a module, called with ``common`` and a task.
    common : object
        Picklable, not None. Sent to each worker once; there, always the same object.
    tasks : iterable
        Picklable; consumed in waves, so that a stream needs little memory.
    n_jobs : int, optional
        As in :class:`joblib.Parallel`.
    wave : int, default=32
        At most this many tasks per worker are running, or done and not yet yielded. joblib bounds
        the first only; between waves a worker may wait for the last task of another one.
    named : callable, optional
        From the number of a task to its name in errors.

    Yields
    ------
    number : int
        Of the task, in their order, counted from 0.
    result : object
        Of the function, in any order.

    Raises
    ------
    RuntimeError
        If three workers died during the same task. Finished results have been yielded.
    """
    stream, pending, deaths = enumerate(tasks), dict[int, Any](), Counter[int]()
    n_workers, setup = joblib.effective_n_jobs(n_jobs), _worker_setup(n_jobs)
    shared, in_full = Shared.of(common), set(range(n_workers))
    n_next = n_workers  # at first one each, which brings `common` to them
    with joblib.Parallel(n_jobs, batch_size=1, **_unordered()) as parallel:
        while pending or (pending := dict(itertools.islice(stream, n_next))):
            n_next = wave * n_workers
            # After a death fewer at once: the task that causes it is then soon identified.
            at_once = max(n_workers, n_next // _REDUCTION ** max(deaths.values(), default=0))
            some = dict(itertools.islice(pending.items(), at_once))
            calls = [
                joblib.delayed(_run_task)(
                    function, shared if n in in_full else shared.key_only(), n, task, setup
                )
                for n, task in some.items()
            ]
            try:
                for number, result in parallel(calls):
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


def _report_deaths(fatal: list[str], error: Exception) -> None:
    """Warn that a worker died; raise if there are tasks during which too many died."""
    if fatal:
        raise RuntimeError(
            f"{_MAX_DEATHS} worker processes were killed during these, most often because memory "
            f"ran out: {'; '.join(fatal)}. Use fewer jobs or a smaller batch_size, or leave them "
            "out. Finished results are kept"
        ) from error
    warnings.warn(
        "a worker process was killed; unfinished tasks are run again",
        RuntimeWarning,
        stacklevel=3,
    )


def _is_death(error: Exception) -> bool:
    """Return whether an error means that a worker was killed; dask retries before it raises."""
    rays = any(each.__name__ == "RayActorError" for each in type(error).__mro__)
    return rays or isinstance(error, TerminatedWorkerError)


def _unordered() -> dict[str, Any]:
    backend, _ = get_active_backend()  # ray's returns the results of a wave together
    return {"return_as": "generator_unordered"} if backend.supports_return_generator else {}


def _is_local(backend: Any) -> bool:
    return type(backend).__name__ == "LokyBackend"


def in_order(results: Iterable[tuple[int, T]]) -> Iterator[T]:
    """Yield numbered results in the order of their numbers; those that come early wait."""
    early: dict[int, T] = {}
    following = 0
    for number, result in results:
        early[number] = result
        while following in early:
            yield early.pop(following)
            following += 1


@dataclass(frozen=True)
class _WorkerSetup:
    """A worker's threads on this machine, and the process that it works for."""

    threads: int
    caller: int


def _worker_setup(n_jobs: int | None) -> _WorkerSetup | None:
    """Share this machine's cores among its processes; a cluster manages its own."""
    backend, _ = get_active_backend()
    if not _is_local(backend):
        return None
    threads = max(1, joblib.cpu_count() // joblib.effective_n_jobs(n_jobs))
    return _WorkerSetup(threads, os.getpid())


class _NotShared:
    """Returned by a worker that has not received `common`, because it is new or was late."""


def _run_task(
    function: Callable[[Any, Any], T],
    shared: Shared,
    number: int,
    task: Any,
    setup: _WorkerSetup | None,
) -> tuple[int, T | _NotShared]:
    if setup is not None:
        torch.set_num_threads(setup.threads)
        _end_with(setup.caller)
    common = shared.get()
    return number, _NotShared() if common is None else function(common, task)


@functools.cache
def _end_with(caller: int) -> None:
    """End this worker soon after the process that it works for.

    If that one is killed, workers would wait forever to return their results, each with a network
    in memory. (On Windows a process does not see that its parent has ended.)
    """

    def watch() -> None:
        while os.getppid() == caller:
            time.sleep(_POLL_SECONDS)
        os._exit(1)

    if os.name == "posix" and (os.getppid() == caller or not _is_alive(caller)):
        threading.Thread(target=watch, daemon=True, name="end with caller").start()


def _is_alive(process: int) -> bool:
    """Return whether a process exists: the caller need not be the parent."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True


# --- what tasks share -----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Shared:
    """What all tasks of one call need: sent to a worker once, not with each task.

    A cluster keeps messages for a while, so a model that travels with each would fill its memory.

    Attributes
    ----------
    key : str
    content : object or None
        None when sent to workers that should have it already.
    """

    key: str
    content: Any

    @classmethod
    def of(cls, content: Any) -> Shared:
        """Give content a new key."""
        return cls(secrets.token_hex(16), content)

    def key_only(self) -> Shared:
        """Return the key alone."""
        return replace(self, content=None)

    def get(self) -> Any:
        """Return the content, and keep it in this process; None if only the key is known.

        A second call returns the same object as the first one.
        """
        with _lock:
            content = _kept.pop(self.key, self.content)
            if content is not None:
                _kept[self.key] = content  # most recently used last
            while len(_kept) > _MAX_SHARED:
                del _kept[next(iter(_kept))]
        return content


_kept: dict[str, Any] = {}
_lock = threading.Lock()  # a dask worker may have several threads
