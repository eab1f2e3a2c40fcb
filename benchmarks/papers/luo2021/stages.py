"""Time of the stages of an experiment."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

READING, NETWORK = "reading", "network"
SAMPLING, KMEANS = "codebook: sampling", "codebook: K-means"
ENCODING, KEEPING, BOOSTER = "VLAD", "cache: writing", "booster"
SOFTMAX = "softmax regression"
STAGES = (NETWORK, READING, SAMPLING, KMEANS, ENCODING, KEEPING, BOOSTER, SOFTMAX)
_SAY_EVERY = 60.0


class Clock:
    """Seconds by stage. Time in a nested stage counts for the inner one only.

    Examples
    --------
    >>> clock = Clock()
    >>> with clock.stage("outer"), clock.stage("inner"):
    ...     pass
    >>> sorted(clock.seconds)
    ['inner', 'outer']
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.n_encoded = 0
        self._stack: list[str] = []
        self._since = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the code in this context."""
        self._charge()
        self._stack.append(name)
        try:
            yield
        finally:
            self._charge()
            self._stack.pop()

    def _charge(self) -> None:
        now = time.perf_counter()
        if self._stack:
            self.seconds[self._stack[-1]] += now - self._since
        self._since = now

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with its calls timed."""

        @functools.wraps(function)
        def call(*arguments: Any, **keywords: Any) -> Any:
            with self.stage(name):
                return function(*arguments, **keywords)

        return call

    def timed_reading(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a reader that is timed only while waiting for the next image."""

        @functools.wraps(function)
        def read(images: Any, **keywords: Any) -> Iterator[Any]:
            stream = with_progress(function(images, **keywords), len(images), self._stack[-1:])
            while True:
                with self.stage(READING):
                    item = next(stream, None)
                if item is None:
                    return
                yield item

        return read

    def counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the encoder of batches, counting the vectors that were not in the cache."""

        @functools.wraps(function)
        def encode(encoder: Any, batch: Any) -> Any:
            self.n_encoded += len(batch.keys)
            return function(encoder, batch)

        return encode


@contextmanager
def watched(clock: Clock) -> Iterator[None]:
    """Time the stages of every `HypercolumnVLAD` that works in here.

    On a GPU, calls of the network return before it has finished: the wait counts for the next
    stage.
    """
    from hypervlad.backbones import TappedNetwork
    from hypervlad.encoder import codebook_fit, encoding, estimator, loading

    wrapped: list[tuple[Any, str, Callable[..., Any]]] = [
        (loading, "read_named", functools.partial(clock.timed, READING)),
        (TappedNetwork, "_forward", functools.partial(clock.timed, NETWORK)),
        (codebook_fit, "learn_codebook", functools.partial(clock.timed, KMEANS)),
        (codebook_fit.StreamedCodewords, "add", functools.partial(clock.timed, KMEANS)),
        (estimator.HypercolumnVLAD, "fit_checked", functools.partial(clock.timed, SAMPLING)),
        (estimator.HypercolumnVLAD, "encode_checked", functools.partial(clock.timed, ENCODING)),
        (encoding.ResultCache, "keep", functools.partial(clock.timed, KEEPING)),
        (encoding.BatchEncoder, "__call__", clock.counted),
    ]
    with ExitStack() as stack:
        for owner, name, wrap in wrapped:
            stack.enter_context(mock.patch.object(owner, name, wrap(getattr(owner, name))))
        yield


def with_progress(items: Iterable[Any], total: int, stage: list[str]) -> Iterator[Any]:
    """Yield the items and print the progress once a minute."""
    started = said = time.perf_counter()
    for number, item in enumerate(items):
        now = time.perf_counter()
        if now - said > _SAY_EVERY:
            said = now
            name = stage[0] if stage else READING
            print(f"    {name}: {number} of {total} images in {now - started:.0f} s", flush=True)
        yield item
