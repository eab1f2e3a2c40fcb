"""The state of an extraction: the images that it has read, and its finished tasks.

While an extraction is under way, a folder beside the output holds its finished tasks, each a file,
and a manifest without images. When it is complete, the manifest with all images is beside the
output, so that a later call with ``resume`` can tell whether anything has changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hypervlad.extraction.sources import Item, Stamp, Task
from hypervlad.extraction.table import (
    FeatureFileError,
    described,
    description,
    file_beside,
    schema_of,
)
from hypervlad.files import refuse_link, replace_when_complete
from hypervlad.images import SkippedImage

_SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("path", "label", "digest", "name", "reason")),
        *(pa.field(name, pa.int64()) for name in ("size", "time")),
    ]
)
_ROWS_PER_WRITE = 10_000
_TASKS_PER_FOLDER = 1000
_DIGEST_BYTES = 32  # of a SHA-256
_MANIFEST = "manifest.parquet"
_OUTPUT_DIGEST = b"hypervlad.output_sha256"


@dataclass(frozen=True)
class SourceRecord:
    """One image as it was when it was read.

    Attributes
    ----------
    path, label : str or None
        As in the table of features.
    digest : str or None
        None if the image could not be read.
    name, reason : str or None
        The name of such an image in errors, and why it could not be read.
    size, time : int or None
        Of a file, before it was read: bytes, and modification time (ns).
    """

    path: str | None
    label: str | None
    digest: str | None
    name: str | None
    reason: str | None
    size: int | None
    time: int | None

    @classmethod
    def of(cls, item: Item, read: str | SkippedImage, stamp: Stamp) -> SourceRecord:
        """Return the record of an image: its digest if it could be read."""
        if isinstance(read, SkippedImage):
            return cls(item.path, item.label, None, read.name, read.reason, *stamp)
        return cls(item.path, item.label, read, None, None, *stamp)


def skipped_images(records: Iterable[SourceRecord], start: int) -> list[SkippedImage]:
    """Return the images that could not be read, with positions counted from ``start``."""
    return [
        SkippedImage(position, record.name or "image", record.reason)
        for position, record in enumerate(records, start)
        if record.reason is not None
    ]


@dataclass(frozen=True)
class ChangeDetector:
    """Compares images with the records of an earlier run.

    Attributes
    ----------
    digest_now : callable
        Reads an image; returns its digest, or None if it cannot be read.
    verify : bool
        Read all files, even if size and time have not changed.
    """

    digest_now: Callable[[Any], str | None]
    verify: bool

    def unchanged(self, items: list[Item], records: list[SourceRecord]) -> bool:
        """Return whether these are the recorded images, and none has changed.

        Files are compared by size and time. Arrays are read again, and so are files that could not
        be read: the reason may have been the network drive, not the file.
        """
        return len(items) == len(records) and all(map(self._is_same, items, records))

    def _is_same(self, item: Item, record: SourceRecord) -> bool:
        if (item.path, item.label) != (record.path, record.label):
            return False
        if item.path is not None and item.stamp() != (record.size, record.time):
            return False
        known = item.path is not None and record.digest is not None and not self.verify
        return known or self.digest_now(item.image) == record.digest


@dataclass(frozen=True)
class Manifest:
    """A file that identifies an extraction and lists the images that it has read.

    Attributes
    ----------
    path : Path
    run : str
        Random name, drawn when the extraction began; a resumed one keeps it.
    settings : dict
        All that the vectors depend on, except the images, and the number of images per task.
    output_digest : str or None
        SHA-256 of the complete file of features; None before there is one.
    """

    path: Path
    run: str
    settings: dict[str, Any]
    output_digest: str | None

    @classmethod
    def open(cls, path: Path) -> Manifest | None:
        """Read a manifest without its records; None if there is none, or not a valid one.

        Raises
        ------
        LinkError
            If it is a symbolic link.
        """
        refuse_link(path)
        try:
            metadata = pq.read_metadata(path)
            facts = description(metadata.schema.to_arrow_schema(), path)
            output_digest = metadata.metadata.get(_OUTPUT_DIGEST, b"").decode() or None
            return cls(path, facts["run"], facts["settings"], output_digest)
        except (pa.ArrowException, OSError, ValueError, KeyError):
            return None

    def records(self) -> list[SourceRecord] | None:
        """Read the records; None if they are damaged."""
        try:
            return [
                SourceRecord(**row) for row in pq.read_table(self.path, schema=_SCHEMA).to_pylist()
            ]
        except (pa.ArrowException, OSError, ValueError, TypeError):
            return None


@contextlib.contextmanager
def manifest_writer(path: Path, run: str, settings: dict[str, Any]) -> Iterator[ManifestWriter]:
    """Write a manifest, which appears when the context ends without an error."""
    schema = described(_SCHEMA, {"run": run, "settings": settings})
    with (
        replace_when_complete(path) as stream,
        pq.ParquetWriter(stream, schema, compression="zstd") as parquet,
    ):
        writer = ManifestWriter(parquet, schema)
        yield writer
        writer.flush()


class ManifestWriter:
    """Appends to a manifest that is being written."""

    def __init__(self, parquet: pq.ParquetWriter, schema: pa.Schema) -> None:
        self._parquet, self._schema = parquet, schema
        self._waiting: list[SourceRecord] = []

    def append(self, records: list[SourceRecord]) -> None:
        """Add the records of images."""
        self._waiting.extend(records)
        if len(self._waiting) >= _ROWS_PER_WRITE:
            self.flush()

    def flush(self) -> None:
        """Write the records that wait."""
        rows = [vars(each) for each in self._waiting]
        self._parquet.write_table(pa.Table.from_pylist(rows, self._schema))
        self._waiting.clear()

    def set_output_digest(self, digest: str) -> None:
        """Note the SHA-256 of the complete file of features."""
        self._parquet.add_key_value_metadata({_OUTPUT_DIGEST.decode(): digest})


def finished_manifest(output: Path) -> Path:
    """Return the path of the manifest of a complete file of features.

    It is beside that file and not in it, because times would make equal files different.
    """
    return file_beside(output, "images")


# --- finished tasks -------------------------------------------------------------------------------


@dataclass(frozen=True)
class FinishedTask:
    """The rows of a finished task, its images, and the number of vectors found in the cache."""

    table: pa.Table
    records: list[SourceRecord]
    n_cached: int


class TaskFolder:
    """The folder beside the output that holds finished tasks until all are merged.

    Each is one file, an Arrow stream after its digest. Writing and reading Parquet would take
    longer than everything else that is done with a vector from the cache.

    Attributes
    ----------
    path : Path
    run : str
        See `Manifest`.
    schema : pyarrow.Schema
        Of the rows of every task.
    """

    def __init__(self, path: Path, run: str, settings: dict[str, Any]) -> None:
        self.path, self.run = path, run
        self.schema = schema_of(settings["n_features"])

    @classmethod
    def open(cls, output: Path, settings: dict[str, Any], *, resume: bool) -> TaskFolder:
        """Return the folder of an output: with ``resume`` the existing one, else a new one.

        Parameters
        ----------
        output : Path
        settings : dict
            See `Manifest`.
        resume : bool

        Raises
        ------
        FileExistsError
            If there is a folder of that name that hypervlad did not make, or a symbolic link.
        FeatureFileError
            If the extraction to be resumed had other settings.
        """
        if resume and (existing := cls.existing(output, settings)) is not None:
            for draft in existing.path.glob(".*.tmp"):  # of an output that was being merged
                draft.unlink()
            return existing
        path = file_beside(output, "parts")
        _remove(path)
        path.mkdir(parents=True)
        run = secrets.token_hex(16)
        with manifest_writer(path / _MANIFEST, run, settings):
            pass
        return cls(path, run, settings)

    @classmethod
    def existing(cls, output: Path, settings: dict[str, Any]) -> TaskFolder | None:
        """Return the folder of an unfinished extraction; None if there is none.

        Raises
        ------
        FeatureFileError
            If that extraction had other settings.
        LinkError
            If the folder or its manifest is a symbolic link.
        """
        path = file_beside(output, "parts")
        refuse_link(path)
        manifest = Manifest.open(path / _MANIFEST)
        if manifest is None:
            return None
        if manifest.settings != settings:
            raise FeatureFileError(
                f"{path}: left by an extraction with another model, or batches of another size; "
                "use those, or start again without resume"
            )
        return cls(path, manifest.run, settings)

    @staticmethod
    def is_unfinished(output: Path) -> bool:
        """Return whether an extraction to this file began, with any settings, and did not end."""
        return Manifest.open(file_beside(output, "parts") / _MANIFEST) is not None

    def keep(self, task: Task, finished: FinishedTask) -> None:
        """Write a finished task.

        Raises
        ------
        FeatureFileError
            If another extraction to the same file has begun meanwhile.
        """
        manifest = Manifest.open(self.path / _MANIFEST)
        if manifest is None or manifest.run != self.run:
            raise FeatureFileError(
                f"{self.path}: another extraction to the same file has begun; this one stops"
            )
        facts = {
            "run": self.run,
            "records": [vars(record) for record in finished.records],
            "n_cached": finished.n_cached,
        }
        table = finished.table
        table = table.replace_schema_metadata(described(table.schema, facts).metadata)
        path = self._path(task.number)
        refuse_link(path.parent)
        path.parent.mkdir(exist_ok=True)
        # Not flushed to the disk one by one: what a power cut damages is detected, and done again.
        with replace_when_complete(path, flush=False) as stream:
            for piece in _with_digest(table):
                stream.write(piece)

    def has(self, task: Task, changes: ChangeDetector) -> bool:
        """Return whether a task is finished, and none of its images has changed."""
        finished = self._find(task.number)
        return finished is not None and changes.unchanged(task.items, finished.records)

    def read(self, number: int) -> FinishedTask:
        """Return a finished task.

        Raises
        ------
        OSError
            If it has become unreadable since it was written.
        """
        finished = self._find(number)
        if finished is None:
            raise OSError(f"{self._path(number)}: has become unreadable; run again with resume")
        return finished

    def remove(self) -> None:
        """Remove the folder."""
        _remove(self.path)

    def _find(self, number: int) -> FinishedTask | None:
        """Return a finished task; None if it is missing, damaged or of an earlier extraction."""
        path = self._path(number)
        for each in (path.parent, path):
            refuse_link(each)
        try:
            table = _without_digest(path.read_bytes())
            facts = description(table.schema, path)
            if facts["run"] != self.run:  # of an earlier extraction that was still running
                return None
            records = [SourceRecord(**each) for each in facts["records"]]
            finished = FinishedTask(
                table.replace_schema_metadata(None), records, int(facts["n_cached"])
            )
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError):
            return None
        return finished if self._is_consistent(finished) else None

    def _is_consistent(self, finished: FinishedTask) -> bool:
        """Return whether a task has one row for each image that could be read, and no other."""
        read = [each.digest for each in finished.records if each.digest is not None]
        table = finished.table
        return table.schema.equals(self.schema) and table["digest"].to_pylist() == read

    def _path(self, number: int) -> Path:
        return self.path / f"{number // _TASKS_PER_FOLDER:06d}" / f"{number:09d}.arrow"


def _with_digest(table: pa.Table) -> tuple[bytes, pa.Buffer]:
    """Return a table as bytes: a digest, and an Arrow stream to follow it."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content = sink.getvalue()
    return hashlib.sha256(content).digest(), content


def _without_digest(content: bytes) -> pa.Table:
    digest, stream = content[:_DIGEST_BYTES], memoryview(content)[_DIGEST_BYTES:]
    if hashlib.sha256(stream).digest() != digest:
        raise ValueError("the digest does not match")
    return pa.ipc.open_stream(stream).read_all()


def _remove(folder: Path) -> None:
    """Remove a folder of tasks, its manifest last: if interrupted, it is still recognised.

    Raises
    ------
    FileExistsError
        If hypervlad did not make it, or it is a symbolic link.
    """
    refuse_link(folder)
    if not folder.exists():
        return
    # A folder that holds temporary files alone was left before its manifest was complete.
    files = list(folder.iterdir()) if folder.is_dir() else [folder]
    unfinished = all(each.name.endswith(".tmp") for each in files)
    if Manifest.open(folder / _MANIFEST) is None and not unfinished:
        raise FileExistsError(f"{folder}: exists, and was not made by hypervlad; move it")
    for each in files:
        if each.name == _MANIFEST:
            continue
        if each.is_dir():
            shutil.rmtree(each, ignore_errors=True)
        else:
            each.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
