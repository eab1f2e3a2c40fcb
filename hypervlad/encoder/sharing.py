"""What all tasks of a piece of work need: sent to a worker once, not with each task.

A cluster keeps messages for a while, so a model that travels with each would fill its memory.
"""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass, replace
from typing import Any

_MOST_KEPT = 4  # a worker of a cluster may serve several callers


@dataclass(frozen=True, eq=False)
class Shared:
    """Something that tasks share.

    Attributes
    ----------
    key : str
    content : object or None
        None on the way to workers that should have it already.
    """

    key: str
    content: Any

    @classmethod
    def of(cls, content: Any) -> Shared:
        """Give something a key of its own."""
        return cls(secrets.token_hex(16), content)

    def named(self) -> Shared:
        """Return the key alone."""
        return replace(self, content=None)

    def here(self) -> Any:
        """Return the content, and keep it in this process; None if only the key is known.

        Where it came before, it is the very object of that time.
        """
        with _lock:
            content = _kept.pop(self.key, self.content)
            if content is not None:
                _kept[self.key] = content  # the last one used is the last one to go
            while len(_kept) > _MOST_KEPT:
                del _kept[next(iter(_kept))]
        return content


_kept: dict[str, Any] = {}
_lock = threading.Lock()  # a dask worker may have several threads
