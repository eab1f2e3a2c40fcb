"""Tables as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any


def table_as_bytes(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """Return a table as CSV, in UTF-8.

    File names that are no valid text, which Linux allows, keep their bytes.

    Examples
    --------
    >>> table_as_bytes(["path", "score"], [["a.png", 0.5]])
    b'path,score\\na.png,0.5\\n'
    """
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return as_utf8(stream.getvalue())


def as_utf8(text: str) -> bytes:
    """Return the bytes of text in which file names may have bytes that are no text."""
    return text.encode("utf-8", "surrogateescape")
