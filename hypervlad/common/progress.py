"""A call: what it says of its images, what it writes, and its threads.

Services and pythonw have no stderr, or a closed one.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, TypeAlias

from tqdm.auto import tqdm

from hypervlad.common.wording import name_some, warn_user

#: From facts by the names of images to a sentence.
Sentence: TypeAlias = Callable[[Mapping[str, Any]], str]

#: Of the announced block, the facts by the names of images.
_facts: ContextVar[dict[Sentence, dict[str, Any]] | None] = ContextVar("facts", default=None)
_noted: ContextVar[tuple[str | None, list[str]]] = ContextVar("noted")
#: Between the notes of an image, and those of several images.
BESIDES = ". Besides, "
_THIS_IMAGE = "this image"  # stands for its name, which may be followed by a fact
_NUMBER = re.compile(r"(\d+)")
_PLACE_OF_NAME = re.compile(rf"{_THIS_IMAGE}((?: \([^()]*\))?)")


def can_print(stream: Any) -> bool:
    return stream is not None and not getattr(stream, "closed", False)


def is_terminal(stream: Any) -> bool:
    return can_print(stream) and bool(stream.isatty())


def print_line(text: str) -> None:
    """Print a line on stderr, above any progress bar."""
    if can_print(sys.stderr):
        tqdm.write(text, file=sys.stderr)


#: Set in the environment of a command by the page of ``hypervlad app``, which reads its stderr:
#: bars are printed although there is no terminal, advice is for people at the page, and the command
#: ends with its stdin.
READ_BY_PROGRAM = "HYPERVLAD_READ_BY_PROGRAM"


def by_reader(shell: str, page: str) -> str:
    """Return the advice for who reads it: in a shell, or at the page, which has no options."""
    return page if READ_BY_PROGRAM in os.environ else shell


class ProgressBar(tqdm):
    """tqdm's progress bar, hidden where stderr is no terminal and no program reads it."""

    def __init__(self, *arguments: Any, shown: bool, **options: Any) -> None:
        of_stderr = False if READ_BY_PROGRAM in os.environ else None  # None: tqdm asks stderr
        disable = of_stderr if shown and can_print(sys.stderr) else True
        super().__init__(*arguments, disable=disable, **options)

    @staticmethod
    def status_printer(file: Any) -> Callable[[str], None]:
        """Return what prints a bar: for a program, in lines, of which each is read at once."""
        if READ_BY_PROGRAM not in os.environ:
            printed: Callable[[str], None] = tqdm.status_printer(file)
            return printed
        return lambda text: print(text, file=file, flush=True)


@contextlib.contextmanager
def announced() -> Iterator[None]:
    """Announce one call for several images: it warns of all of them at its end, as a whole.

    Not for generators, whose callers would be in the block, too.

    >>> with announced(), announced():
    ...     is_announced()
    True
    >>> is_announced()
    False
    """
    if is_announced():
        yield
        return
    facts = dict[Sentence, dict[str, Any]]()
    token = _facts.set(facts)
    try:
        yield
    except Exception:  # may be due to what is said, and takes precedence
        with contextlib.suppress(Warning):
            _warn_of_all(facts)
        raise
    finally:
        _facts.reset(token)
    _warn_of_all(facts)


def _warn_of_all(facts: Mapping[Sentence, Mapping[str, Any]]) -> None:
    for sentence, each in facts.items():
        # Threads come to images in any order; numbers in names count, as in "image 10 of the list".
        warn_user(sentence({name: each[name] for name in sorted(each, key=_in_parts)}))


def _in_parts(name: str) -> list[str | int]:
    return [int(each) if at % 2 else each for at, each in enumerate(_NUMBER.split(name))]


def warn_of_image(sentence: Sentence, name: str, fact: Any, *, is_noted: bool = True) -> None:
    """Warn of an image: at the end of the announced block, in one sentence for all its images.

    If `is_noted`, the block that `noted` begins collects it, too.
    """
    facts, (own_name, notes) = _facts.get(), _noted.get((None, []))
    name = own_name or name
    if is_noted:
        notes.append(note_of(sentence, fact))
    if facts is None:
        warn_user(sentence({name: fact}))
    else:
        each = facts.setdefault(sentence, {})
        each[name] = joined_notes([each.get(name), fact]) if sentence is _doubts else fact


def warn_of_images(facts: Mapping[Sentence, Mapping[str, Any]]) -> None:
    """Warn of several images, in one sentence of each kind."""
    with announced():
        for sentence, of_images in facts.items():
            for name, fact in of_images.items():
                warn_of_image(sentence, name, fact)


@contextlib.contextmanager
def noted(name: str | None = None) -> Iterator[list[str]]:
    """Collect what the block warns of an image, by its `name` in a table, for a row of that."""
    notes = list[str]()
    token = _noted.set((name, notes))
    try:
        yield notes
    finally:
        _noted.reset(token)


@contextlib.contextmanager
def unsaid() -> Iterator[None]:
    """Say nothing of images in the block, which are only read to be compared."""
    token = _facts.set({})
    try:
        with noted():
            yield
    finally:
        _facts.reset(token)


def note_of(sentence: Sentence, fact: Any) -> str:
    """Return a sentence as the note of an image in a table, without its name."""
    return str(fact) if sentence is _doubts else sentence({_THIS_IMAGE: fact})


def joined_notes(notes: Iterable[str | None], but: str | None = None) -> str:
    """Return several notes as one, each part once, without those of another."""
    each = dict.fromkeys(part for note in notes if note for part in note.split(BESIDES))
    return BESIDES.join(part for part in each if part not in (but or "").split(BESIDES))


def sentences_of(notes: Mapping[str, str]) -> list[str]:
    """Return what the notes of images say, by their names: each sentence once, with all names.

    >>> notes = {"a.png": "blurred: this image (4.2); bad", "b.png": "blurred: this image (5); bad"}
    >>> sentences_of(notes | {"c.png": "flat"})
    ['blurred: a.png (4.2), b.png (5); bad', 'c.png: flat']
    """
    names = defaultdict[tuple[str, str], list[str]](list)
    for name, own in notes.items():
        for note in filter(None, own.split(BESIDES)):
            before, *found = _PLACE_OF_NAME.split(note, maxsplit=1)
            fact, after = found or ("", f": {note}")
            names[before * bool(found), after].append(f"{name}{fact}")
    return [f"{before}{name_some(own)}{after}" for (before, after), own in names.items()]


def note_doubt(name: str, note: str) -> None:
    """Say in a UserWarning what is doubtful about what was found; once for all images of a run."""
    if note:
        warn_of_image(_doubts, name, note)


def forget_doubt(name: str) -> str:
    """Say nothing of what was doubtful about an image, which is looked at once more; return it."""
    return str((_facts.get() or {}).get(_doubts, {}).pop(name, ""))


def _doubts(notes: Mapping[str, str]) -> str:
    return BESIDES.join(sentences_of(notes))


def is_announced() -> bool:
    return _facts.get() is not None


def shared_by_threads(
    make: Callable[[], contextlib.AbstractContextManager[Any]],
) -> Callable[[], contextlib.AbstractContextManager[None]]:
    """Return a context for a setting of the process, in which several threads may be.

    The first one enters what is made, and the last one leaves it, which restores what was before.
    """
    lock, entered, n_inside = threading.Lock(), contextlib.ExitStack(), 0

    @contextlib.contextmanager
    def shared() -> Iterator[None]:
        nonlocal n_inside
        with lock:
            if not n_inside:
                entered.enter_context(make())
            n_inside += 1
        try:
            yield
        finally:
            with lock:
                n_inside -= 1
                if not n_inside:
                    entered.close()

    return shared


@shared_by_threads
def one_blas_thread() -> Any:
    """Compute matrix products of NumPy and SciPy in one thread, for small ones.

    On a busy machine, two threads spent ten times as long waiting for each other.
    """
    return _thread_pools().limit(limits=1, user_api="blas")


@functools.cache
def _thread_pools() -> Any:
    """Find them once: it takes longer than a small fit."""
    import scipy.linalg  # noqa: F401  # SciPy's are there once this is imported
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    return ThreadpoolController()
