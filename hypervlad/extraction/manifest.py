"""The state of an extraction: the images that it has read, and its finished tasks."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hypervlad.common.files import LinkError, refuse_link, replace_when_complete
from hypervlad.common.modelfile import model_bytes, read_model
from hypervlad.extraction.table import (
    IMAGE_FIELDS,
    PLACE_FIELDS,
    FeatureFileError,
    described,
    description,
    file_beside,
)
from hypervlad.extraction.tasks import DigestNow, FinishedTask, Item, SourceRecord, Task
from hypervlad.images import SkippedImage

_SCHEMA = pa.schema(
    [
        *(each.with_nullable(True) for each in IMAGE_FIELDS),
        ("name", pa.string()),
        ("reason", pa.string()),
        ("size", pa.int64()),
        ("time", pa.int64()),
        *PLACE_FIELDS,
    ]
)
_TASKS_PER_FOLDER = 1000
_RUN = re.compile("[0-9a-f]{32}")
_KIND = "finished_task"
_MANIFEST = "manifest.parquet"


def skipped_images(records: Iterable[SourceRecord], start: int) -> list[SkippedImage]:
    return [
        SkippedImage(position, record.name or "image", record.reason)
        for position, record in enumerate(records, start)
        if record.reason is not None
    ]


def unchanged(items: list[Item], records: list[SourceRecord], digest_now: DigestNow) -> bool:
    def is_same(item: Item, record: SourceRecord) -> bool:
        planned = (item.path, item.label, *item.stamp(), item.micrograph)
        if planned != (record.path, record.label, record.size, record.time, record.micrograph):
            return False
        # Arrays are read again, and files that could not be: the network drive may have failed.
        is_known = item.path is not None and record.digest is not None
        return is_known or digest_now(item.image) == record.digest

    return len(items) == len(records) and all(map(is_same, items, records))


@dataclass(frozen=True)
class Manifest:
    """A file in the folder of unfinished tasks; at last beside the output, with all records."""

    path: Path
    run: str  # random name, drawn when the extraction began; a resumed one keeps it
    settings: dict[str, Any]  # see `Run.settings`
    output_digest: str | None  # SHA-256 of the complete file of features

    @classmethod
    def open(cls, path: Path) -> Manifest | None:
        """Read a manifest without its records; None if there is none, or not a valid one."""
        refuse_link(path)
        try:
            facts = description(pq.read_schema(path), path)
            if _RUN.fullmatch(facts["run"]) is None:
                return None
            return cls(path, facts["run"], facts["settings"], facts["output"])
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
            return None

    def records(self, n_images: int) -> list[SourceRecord] | None:
        """Read the records; None if they are damaged, or of more or fewer images."""
        try:
            with pq.ParquetFile(self.path) as file:
                groups = map(file.metadata.row_group, range(file.num_row_groups))
                if n_images != sum(group.num_rows for group in groups) or (
                    not file.schema_arrow.remove_metadata().equals(_SCHEMA)
                ):
                    return None
                rows = file.read().to_pylist()
            return [SourceRecord(*map(row.get, _SCHEMA.names)) for row in rows]
        except (pa.ArrowException, OSError, ValueError, TypeError):
            return None


def write_manifest(
    path: Path,
    run: str,
    settings: dict[str, Any],
    records: Iterable[pa.Table] = (),
    output_digest: str | None = None,
    draft_folder: Path | None = None,
) -> None:
    facts = {"run": run, "settings": settings, "output": output_digest}
    table = pa.concat_tables([_SCHEMA.empty_table(), *records])
    with replace_when_complete(path, draft_folder=draft_folder) as stream:
        pq.write_table(
            table.cast(described(_SCHEMA, facts)), stream, compression="zstd", use_dictionary=False
        )


def as_table(records: list[SourceRecord]) -> pa.Table:
    """Return the table of records."""
    return pa.Table.from_pylist([vars(record) for record in records], _SCHEMA)


def finished_manifest(output: Path) -> Path:
    return file_beside(output, "images")  # in it, times would make equal files different


# --- finished tasks -------------------------------------------------------------------------------


class TaskFolder:
    """The folder beside the output that holds finished tasks until all are merged.

    Each is a file like a model's, so that damage is found.
    """

    # Parquet takes 8 to 13 ms to write 16 vectors of 8,192 numbers and 5.5 ms to read them, instead
    # of 6 and 1, and would need the same checks.

    def __init__(self, path: Path, run: str) -> None:
        self.path, self.run = path, run

    @classmethod
    def open(cls, output: Path, settings: dict[str, Any], *, resume: bool) -> TaskFolder:
        """Return the folder of an output: with ``resume`` the existing one, else a new one."""
        path = file_beside(output, "parts")
        refuse_link(path)
        if resume and (manifest := Manifest.open(path / _MANIFEST)) is not None:
            if manifest.settings != settings:
                raise FeatureFileError(
                    f"{path}: left by an extraction with another model, or batches of another "
                    "size; use those, or start again without resume"
                )
            remove_drafts(path)
            return cls(path, manifest.run)
        _remove(path)
        run = secrets.token_hex(16)
        write_manifest(path / _MANIFEST, run, settings)
        return cls(path, run)

    @staticmethod
    def is_unfinished(output: Path) -> bool:
        """Return whether an extraction to this file began, with any settings, and did not end."""
        return Manifest.open(file_beside(output, "parts") / _MANIFEST) is not None

    def keep(self, task: Task, finished: FinishedTask) -> None:
        manifest = Manifest.open(self.path / _MANIFEST)
        if manifest is None or manifest.run != self.run:
            raise FeatureFileError(
                f"{self.path}: another extraction to the same file has begun; this one stops"
            )
        facts = {
            "run": self.run,
            "n_cached": finished.n_cached,
            "records": [list(vars(record).values()) for record in finished.records],
        }
        path = self._path(task.number)
        path.parent.mkdir(exist_ok=True)
        refuse_link(path.parent)
        content = model_bytes(_KIND, facts, {"vectors": finished.vectors})
        # Not flushed to the disk one by one: what a power cut damages is detected, and done again.
        with replace_when_complete(path, flush=False) as stream:
            stream.write(content)

    def has(self, task: Task, digest_now: DigestNow) -> bool:
        try:
            finished = self.read(task.number)
        except LinkError:
            raise
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return unchanged(task.items, finished.records, digest_now)

    def read(self, number: int) -> FinishedTask:
        """Return a finished task; a ValueError if it is damaged."""
        path = self._path(number)
        for each in (path.parent, path):
            refuse_link(each)
        content = read_model(path, kind=_KIND)
        facts = content.header
        if facts["run"] != self.run:
            raise ValueError("of an earlier extraction, which was still running")
        records = [SourceRecord(*values) for values in facts["records"]]
        return FinishedTask(records, content.arrays["vectors"], facts["n_cached"])

    def remove(self) -> None:
        _remove(self.path)

    def _path(self, number: int) -> Path:
        return self.path / f"{number // _TASKS_PER_FOLDER:06d}" / f"{number:09d}.task"


def remove_drafts(folder: Path) -> None:
    """Remove what a killed run left half written: the output or, before any task, the manifest."""
    refuse_link(folder)
    for draft in folder.glob(".*.tmp"):
        draft.unlink()


def _remove(folder: Path) -> None:
    """Remove a folder of tasks, its manifest last: if interrupted, it is still recognised."""
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
