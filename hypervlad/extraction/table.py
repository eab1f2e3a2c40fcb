"""Features as a Parquet table: its columns, and how it is written and read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hypervlad.encoder.loading import ImageInfo
from hypervlad.extraction.sources import Item

if TYPE_CHECKING:
    import pandas as pd

    from hypervlad.encoder import HypercolumnVLAD
    from hypervlad.extraction.work import Encoded

FORMAT_VERSION = 1
VECTOR = "vector"
_ENTRY = b"hypervlad"
_CONTENT = "hypervlad.content"
_ROW_GROUP_BYTES = 16 * 2**20  # a few of them are in memory at a time


class FeatureFileError(ValueError):
    """A file of features cannot be read or written; the message names it and what to do."""


def beside(output: Path, ending: str) -> Path:
    """Return where something lies that belongs to a file of features.

    Readers that take a folder of Parquet files as one table leave out names that begin with "_".
    """
    return output.with_name(f"_{output.name}.{ending}")


def schema_of(n_features: int) -> pa.Schema:
    """Return the columns of a table of features."""
    vector = pa.list_(pa.field("element", pa.float32(), nullable=False), n_features)
    return pa.schema(
        [
            pa.field("path", pa.string()),
            pa.field("label", pa.string()),
            pa.field("digest", pa.string(), nullable=False),
            pa.field("height", pa.int32(), nullable=False),
            pa.field("width", pa.int32(), nullable=False),
            pa.field("channels", pa.int8(), nullable=False),
            pa.field("pixel_size", pa.float64()),
            pa.field(VECTOR, vector, nullable=False),
        ]
    )


def table_of(items: list[Item], encoded: Encoded) -> pa.Table:
    """Return the images of a task that could be read as rows."""
    rows = [
        (item, facts)
        for item, facts in zip(items, encoded.outcomes, strict=True)
        if isinstance(facts, ImageInfo)
    ]
    flat = pa.array(np.ascontiguousarray(encoded.vectors).ravel())
    n_features = encoded.vectors.shape[1]
    schema = schema_of(n_features)
    columns = [
        [item.path for item, _ in rows],
        [item.label for item, _ in rows],
        [facts.digest for _, facts in rows],
        [facts.shape[0] for _, facts in rows],
        [facts.shape[1] for _, facts in rows],
        [1 if len(facts.shape) == 2 else facts.shape[2] for _, facts in rows],
        [facts.pixel_size for _, facts in rows],
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=False)]
    vectors = pa.FixedSizeListArray.from_arrays(flat, type=schema.field(VECTOR).type)
    return pa.Table.from_arrays([*arrays, vectors], schema=schema)


def vectors_of(table: pa.Table) -> np.ndarray:
    """Return the vectors of a table's rows, (n, n_features) float32."""
    n_features = table.schema.field(VECTOR).type.list_size
    chunks = [chunk.flatten().to_numpy() for chunk in table[VECTOR].chunks]
    flat = np.concatenate(chunks) if chunks else np.empty(0, dtype=np.float32)
    return flat.reshape(-1, n_features)


def frame_of(table: pa.Table) -> pd.DataFrame:
    """Return all columns but the vectors."""
    return table.drop_columns([VECTOR]).to_pandas()


def write_rows(stream: BinaryIO, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
    """Write tables to one file, in row groups of equal length whatever the tables' lengths are."""
    content = hashlib.sha256()
    row_bytes = 4 * schema.field(VECTOR).type.list_size + 200
    rows = max(1, _ROW_GROUP_BYTES // row_bytes)
    small = [name for name in schema.names if name != VECTOR]
    with pq.ParquetWriter(
        stream,
        schema,
        compression={**dict.fromkeys(small, "zstd"), f"{VECTOR}.list.element": "none"},
        use_dictionary=["label"],
        write_statistics=small,
        write_page_checksum=True,
    ) as writer:
        for table in _cut(tables, rows):
            content.update(repr(table["digest"].to_pylist()).encode())
            content.update(vectors_of(table).data)
            writer.write_table(table, row_group_size=rows)
        writer.add_key_value_metadata({_CONTENT: content.hexdigest()})


def _cut(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    n_waiting = 0
    for table in tables:
        waiting.append(table)
        n_waiting += table.num_rows
        while n_waiting >= rows:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, rows)
            waiting, n_waiting = [whole.slice(rows)], n_waiting - rows
    if n_waiting:
        yield pa.concat_tables(waiting)


def described(schema: pa.Schema, facts: dict[str, Any]) -> pa.Schema:
    """Return the schema with facts of ours, as JSON, in its metadata."""
    return schema.with_metadata({_ENTRY: json.dumps(facts, sort_keys=True).encode()})


def description(schema: pa.Schema, path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the facts of ours in a file's metadata.

    Raises
    ------
    FeatureFileError
        If there are none, or they are of a later version.
    """
    entry = (schema.metadata or {}).get(_ENTRY)
    if entry is None:
        raise FeatureFileError(
            f"{os.fspath(path)}: a Parquet file, but not one that extract_features wrote"
        )
    facts: dict[str, Any] = json.loads(entry)
    if facts.get("format", 0) > FORMAT_VERSION:
        raise FeatureFileError(
            f"{os.fspath(path)}: written by a later version of hypervlad; upgrade this one"
        )
    return facts


def content_digest(file: pq.ParquetFile) -> str:
    """Return the digest of a file's images and vectors, which was written with them."""
    digest: bytes = file.metadata.metadata[_CONTENT.encode()]
    return digest.decode()


def open_table(path: str | os.PathLike[str]) -> pq.ParquetFile:
    """Open a file of features.

    Raises
    ------
    FeatureFileError
        If there is none, or it is damaged or something else.
    """
    if os.path.isdir(path):
        raise FeatureFileError(
            f"{os.fspath(path)}: a folder; give one file of features (pyarrow.dataset reads all of "
            "a folder)"
        )
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
    except FileNotFoundError as error:
        raise FeatureFileError(f"{os.fspath(path)}: no such file") from error
    except (pa.ArrowException, OSError) as error:
        raise FeatureFileError(
            f"{os.fspath(path)}: not a Parquet file, or a damaged one ({error}); extract again"
        ) from error
    description(file.schema_arrow, path)
    if VECTOR not in file.schema_arrow.names:
        raise FeatureFileError(
            f"{os.fspath(path)}: holds no features; give the file beside it without '_' and ending"
        )
    return file


def is_parquet(path: str | os.PathLike[str]) -> bool:
    """Say whether a file is readable Parquet, anybody's."""
    try:
        pq.ParquetFile(path).close()
    except (pa.ArrowException, OSError):
        return False
    return True


def facts_of(encoder: HypercolumnVLAD, digest: str) -> dict[str, Any]:
    """Return what a file of features says of the encoder that made it."""
    return {"format": FORMAT_VERSION, "encoder": digest, "parts": encoder.feature_blocks}
