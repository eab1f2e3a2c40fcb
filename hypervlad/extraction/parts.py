"""Finished tasks on disk, each a small file, until the whole is written in one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hypervlad.extraction.sources import Item, Task
from hypervlad.extraction.table import FeatureFileError, described, description, table_of
from hypervlad.extraction.work import Encoded
from hypervlad.images import ImageReadError, ReadOptions, SkippedImage
from hypervlad.images.reading import read_named
from hypervlad.modelfile import replace_when_complete

_MANIFEST = "manifest.json"
_A_FOLDER = 1000  # parts
_DIGEST = 32  # bytes, of a SHA-256


@dataclass(frozen=True)
class Part:
    """A finished task: its rows, the images that could not be read, and what was found."""

    table: pa.Table
    skipped: list[SkippedImage]
    n_found: int


class Parts:
    """The folder beside the output where finished tasks wait.

    A file for each: not Parquet, whose writing and reading would take longer than the rest of what
    happens to a vector from the cache, but the bytes as they lie in memory, under a digest.

    Attributes
    ----------
    folder : Path
    run : str
        Drawn when the extraction began; an extraction that goes on has the same one.
    """

    def __init__(self, folder: Path, run: str) -> None:
        self.folder, self.run = folder, run

    @classmethod
    def open(cls, output: Path, settings: dict[str, Any], *, resume: bool) -> Parts:
        """Return the folder of an output: with ``resume`` as it was left, else a new one.

        Parameters
        ----------
        output : Path
        settings : dict
            All that vectors depend on but the images. What was left with others is of no use.
        resume : bool

        Raises
        ------
        FileExistsError
            If there is a folder of that name that is none of ours.
        FeatureFileError
            If what was left, and is to be gone on with, was made with other settings.
        """
        folder = _folder_of(output)
        if folder.exists() and _manifest(folder) is None:
            raise FileExistsError(f"{folder}: in the way, and not of hypervlad's making; move it")
        if resume and (left := cls.left(output, settings)) is not None:
            return left
        if resume and cls.begun(output):
            raise FeatureFileError(
                f"{folder}: left by an extraction with another model, or batches of another size; "
                "go on with those, or begin anew without resume"
            )
        _remove(folder)
        # Whole or not there: it may be killed between any two steps.
        new = _beside(folder, "new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        run = secrets.token_hex(16)
        content = json.dumps({"run": run, "settings": settings}, indent=1)
        (new / _MANIFEST).write_text(content, encoding="utf-8")
        new.rename(folder)
        return cls(folder, run)

    @classmethod
    def left(cls, output: Path, settings: dict[str, Any]) -> Parts | None:
        """Return what an unfinished extraction with these settings has left; None if none has."""
        folder = _folder_of(output)
        manifest = _manifest(folder)
        if manifest is None or manifest["settings"] != settings:
            return None
        return cls(folder, manifest["run"])

    @staticmethod
    def begun(output: Path) -> bool:
        """Say whether an extraction to this file was begun, with any settings, and not ended."""
        return _manifest(_folder_of(output)) is not None

    def keep(self, task: Task, encoded: Encoded) -> None:
        """Write a finished task."""
        facts = {
            "paths": [item.path for item in task.items],
            "labels": [item.label for item in task.items],
            "stamps": encoded.stamps,
            "digests": [None if each is None else each.digest for each in encoded.facts],
            "skipped": encoded.skipped,
            "n_found": encoded.n_found,
        }
        table = table_of(task.items, encoded)
        table = table.replace_schema_metadata(described(table.schema, facts).metadata)
        path = self._path(task.number)
        path.parent.mkdir(exist_ok=True)
        # Not flushed to the disk one by one: what a power cut damages is found, and done again.
        with replace_when_complete(path, flush=False) as stream:
            stream.write(_sealed(table))

    def has(self, task: Task, options: ReadOptions) -> bool:
        """Say whether a task is finished, with the very images that it has now."""
        found = self._read(task.number)
        if found is None:
            return False
        _, facts = found
        if facts["paths"] != [item.path for item in task.items]:
            return False
        if facts["labels"] != [item.label for item in task.items]:
            return False
        known = zip(task.items, facts["stamps"], facts["digests"], strict=True)
        return all(_unchanged(item, stamp, digest, options) for item, stamp, digest in known)

    def read(self, number: int) -> Part:
        """Return a finished task.

        Raises
        ------
        OSError
            If it has become unreadable since it was written.
        """
        found = self._read(number)
        if found is None:
            raise OSError(f"{self._path(number)}: has become unreadable; run again with resume")
        table, facts = found
        skipped = [SkippedImage(*each) for each in facts["skipped"]]
        return Part(table.replace_schema_metadata(None), skipped, facts["n_found"])

    def remove(self) -> None:
        """Remove the folder."""
        _remove(self.folder)

    def _read(self, number: int) -> tuple[pa.Table, dict[str, Any]] | None:
        path = self._path(number)
        try:
            table = _unsealed(path.read_bytes())
            return table, description(table.schema, path)
        except (pa.ArrowException, OSError, ValueError):  # not there, or damaged
            return None

    def _path(self, number: int) -> Path:
        return self.folder / f"{number // _A_FOLDER:06d}" / f"{number:09d}.arrow"


def _sealed(table: pa.Table) -> memoryview:
    """Return a table as bytes: a digest, then an Arrow stream."""
    sink = pa.BufferOutputStream()
    sink.write(bytes(_DIGEST))
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content = np.frombuffer(sink.getvalue(), np.uint8).copy()
    content[:_DIGEST] = np.frombuffer(hashlib.sha256(content[_DIGEST:].data).digest(), np.uint8)
    return content.data


def _unsealed(content: bytes) -> pa.Table:
    digest, stream = content[:_DIGEST], memoryview(content)[_DIGEST:]
    if hashlib.sha256(stream).digest() != digest:
        raise ValueError("the digest is another one")
    return pa.ipc.open_stream(stream).read_all()


def _folder_of(output: Path) -> Path:
    return output.with_name(f"{output.name}.parts")


def _beside(folder: Path, what: str) -> Path:
    return folder.with_name(f"{folder.name}.{what}")


def _remove(folder: Path) -> None:
    """Remove a folder, and what an earlier removal has left: half of one must not look whole."""
    old = _beside(folder, "old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
        shutil.rmtree(old, ignore_errors=True)


def _manifest(folder: Path) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError):
        content = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        if isinstance(content, dict) and {"run", "settings"} <= set(content):
            return content
    return None


def _unchanged(
    item: Item, stamp: list[int] | None, digest: str | None, options: ReadOptions
) -> bool:
    if item.path is not None:
        return item.stamp() == stamp
    try:
        return read_named(item.image, options, "image").digest == digest
    except ImageReadError:
        return digest is None
