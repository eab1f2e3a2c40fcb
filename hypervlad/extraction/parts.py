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

import pyarrow as pa

from hypervlad.extraction.met import Comparison, Met
from hypervlad.extraction.sources import Task
from hypervlad.extraction.table import (
    FeatureFileError,
    beside,
    described,
    description,
    table_of,
)
from hypervlad.extraction.work import Encoded
from hypervlad.modelfile import replace_when_complete

_MANIFEST = "manifest.json"
_A_FOLDER = 1000  # parts
_DIGEST = 32  # bytes, of a SHA-256


@dataclass(frozen=True)
class Part:
    """A finished task: its rows, what was met, and how many vectors were found in the cache."""

    table: pa.Table
    met: list[Met]
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
        if resume and (left := cls.left(output, settings)) is not None:
            return left
        _remove(folder)
        folder.mkdir(parents=True)
        run = secrets.token_hex(16)
        with replace_when_complete(folder / _MANIFEST) as stream:
            stream.write(json.dumps({"run": run, "settings": settings}, indent=1).encode())
        return cls(folder, run)

    @classmethod
    def left(cls, output: Path, settings: dict[str, Any]) -> Parts | None:
        """Return what an unfinished extraction has left; None if none has.

        Raises
        ------
        FeatureFileError
            If it was made with other settings.
        """
        folder = _folder_of(output)
        manifest = _manifest(folder)
        if manifest is None:
            return None
        if manifest["settings"] != settings:
            raise FeatureFileError(
                f"{folder}: left by an extraction with another model, or batches of another size; "
                "go on with those, or begin anew without resume"
            )
        return cls(folder, manifest["run"])

    @staticmethod
    def begun(output: Path) -> bool:
        """Say whether an extraction to this file was begun, with any settings, and not ended."""
        return _manifest(_folder_of(output)) is not None

    def keep(self, task: Task, encoded: Encoded) -> None:
        """Write a finished task.

        Raises
        ------
        FeatureFileError
            If another extraction to the same file has begun meanwhile.
        """
        manifest = _manifest(self.folder)
        if manifest is None or manifest["run"] != self.run:
            raise FeatureFileError(
                f"{self.folder}: another extraction to the same file has begun; this one ends here"
            )
        facts = {
            "run": self.run,
            "met": [vars(met) for met in encoded.met(task.items)],
            "n_found": encoded.n_found,
        }
        table = table_of(task.items, encoded)
        table = table.replace_schema_metadata(described(table.schema, facts).metadata)
        path = self._path(task.number)
        path.parent.mkdir(exist_ok=True)
        # Not flushed to the disk one by one: what a power cut damages is found, and done again.
        with replace_when_complete(path, flush=False) as stream:
            for piece in _sealed(table):
                stream.write(piece)

    def has(self, task: Task, comparison: Comparison) -> bool:
        """Say whether a task is finished, with the very images that it has now."""
        part = self._read(task.number)
        return part is not None and comparison.unchanged(task.items, part.met)

    def read(self, number: int) -> Part:
        """Return a finished task.

        Raises
        ------
        OSError
            If it has become unreadable since it was written.
        """
        part = self._read(number)
        if part is None:
            raise OSError(f"{self._path(number)}: has become unreadable; run again with resume")
        return part

    def place_for_the_whole(self) -> Path:
        """Return where the merged file may grow: what is left of it goes with this folder."""
        return self.folder / "whole.parquet"

    def remove(self) -> None:
        """Remove the folder."""
        _remove(self.folder)

    def _read(self, number: int) -> Part | None:
        path = self._path(number)
        try:
            table = _unsealed(path.read_bytes())
            facts = description(table.schema, path)
        except (pa.ArrowException, OSError, ValueError):  # not there, or damaged
            return None
        if facts["run"] != self.run:  # of an extraction that did not know it was over
            return None
        met = [Met(**each) for each in facts["met"]]
        return Part(table.replace_schema_metadata(None), met, facts["n_found"])

    def _path(self, number: int) -> Path:
        return self.folder / f"{number // _A_FOLDER:06d}" / f"{number:09d}.arrow"


def _sealed(table: pa.Table) -> tuple[bytes, pa.Buffer]:
    """Return a table as bytes: a digest, and an Arrow stream to follow it."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content = sink.getvalue()
    return hashlib.sha256(content).digest(), content


def _unsealed(content: bytes) -> pa.Table:
    digest, stream = content[:_DIGEST], memoryview(content)[_DIGEST:]
    if hashlib.sha256(stream).digest() != digest:
        raise ValueError("the digest is another one")
    return pa.ipc.open_stream(stream).read_all()


def _folder_of(output: Path) -> Path:
    return beside(output, "parts")


def _remove(folder: Path) -> None:
    """Remove a folder of ours, the manifest last: killed on the way, it is still ours.

    Raises
    ------
    FileExistsError
        If it is none of ours.
    """
    if not folder.exists():
        return
    if _manifest(folder) is None and not _is_beginning(folder):
        raise FileExistsError(f"{folder}: in the way, and not of hypervlad's making; move it")
    for each in folder.iterdir():
        if each.name == _MANIFEST:
            continue
        if each.is_dir():
            shutil.rmtree(each, ignore_errors=True)
        else:
            each.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _is_beginning(folder: Path) -> bool:
    """Say whether this may be a folder whose manifest was not complete when all ended."""
    return folder.is_dir() and all(each.name.endswith(".tmp") for each in folder.iterdir())


def _manifest(folder: Path) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError):
        content = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        if isinstance(content, dict) and {"run", "settings"} <= set(content):
            return content
    return None
