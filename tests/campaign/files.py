"""Forged files whose checksums fit: features and queues.

Other than damaged bytes, these reach what lies behind the checks of damage.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from support.review_queues import write_queue

from hypervlad import extract_features
from tests.campaign.case import Case
from tests.campaign.damaged_files import encoder_and_images, use_features, use_queue

_N_PER_SEED = 60
#: Values of another type or size than expected.
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 2**31, 2**63, -(2**70), 1e308, float("nan"), float("inf")),
    *("", "\0", "\x1b[2J", "=1+1", "../../x", "\udcff", "9" * 5000, "x" * 100_000),
    *([], {}, [[[]]], {"a": {"a": {}}}),
)


# --- changed values -------------------------------------------------------------------------------


def changed_value(value: Any, rng: np.random.Generator) -> Any:
    """Return a JSON value with one of its inner values replaced, removed or repeated."""
    value = copy.deepcopy(value)
    inner, keys = value, []
    while isinstance(inner, dict | list) and inner and (not keys or rng.random() < 0.8):
        names = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        keys.append((inner, names[rng.integers(len(names))]))
        inner = keys[-1][0][keys[-1][1]]
    if not keys:
        return _odd(rng)
    holder, key = keys[-1]
    match rng.integers(3):
        case 0:
            holder[key] = _odd(rng)
        case 1:
            del holder[key]
        case 2 if isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        case 2:
            holder["more"] = copy.deepcopy(holder[key])
    return value


def _odd(rng: np.random.Generator) -> Any:
    return ODD_VALUES[rng.integers(len(ODD_VALUES))]


def changed_table(table: pa.Table, rng: np.random.Generator) -> pa.Table:
    """Return a table with other rows, columns, types or values."""
    n_rows, column = table.num_rows, int(rng.integers(table.num_columns))
    name = table.column_names[column]
    match rng.integers(7):
        case 0:
            return table.slice(int(rng.integers(n_rows + 1)))
        case 1:
            return table.take(pa.array(rng.integers(0, n_rows, rng.integers(2 * n_rows))))
        case 2:
            return table.drop_columns([name])
        case 3:
            return table.append_column(name, table.column(column))
        case 4:
            return table.set_column(column, name, pa.nulls(n_rows))
        case 5:
            return table.rename_columns([*rng.permutation(table.column_names).tolist()])
        case _:
            kinds = (pa.int8(), pa.float64(), pa.binary(), pa.list_(pa.float32()), pa.string())
            kind = kinds[rng.integers(len(kinds))]
            values = pa.array([None] * n_rows, kind)
            return table.set_column(column, name, values)


def changed_facts(metadata: dict[bytes, bytes], rng: np.random.Generator) -> dict[bytes, bytes]:
    """Return the metadata of a schema with other facts."""
    metadata = {key: each for key, each in metadata.items() if key != b"ARROW:schema"}
    if rng.random() < 0.1:
        nested = (b"[" * 100_000, b'{"a":' * 100_000, b"", b"\xff", b"null", b"1e999")
        return {**metadata, b"hypervlad": nested[rng.integers(len(nested))]}
    facts = changed_value(json.loads(metadata[b"hypervlad"]), rng)
    return {**metadata, b"hypervlad": json.dumps(facts).encode()}


# --- features ----------------------------------------------------------


def features(seed: int, folder: Path) -> Iterator[Case]:
    """Files of features that are sound Parquet of another content."""
    rng, (encoder, images) = np.random.default_rng(seed), encoder_and_images(seed, folder)
    out = folder / "f.parquet"
    extract_features(images, encoder, out=out)
    with pq.ParquetFile(out) as file:
        metadata = {**file.metadata.metadata}
    table = pq.read_table(out)
    for number in range(_N_PER_SEED):
        forged = folder / f"{number}.parquet"
        facts, content = metadata, table
        if rng.random() < 0.6:
            content = changed_table(table, rng)
        if rng.random() < 0.6:
            facts = changed_facts(metadata, rng)
        kept = {key: each for key, each in facts.items() if key != b"ARROW:schema"}
        pq.write_table(content.replace_schema_metadata(kept), forged, **_layout(content, rng))
        if rng.random() < 0.4:
            _change_page_header(forged, rng)
        yield Case("a file of features", partial(use_features, forged), (forged,))
        forged.unlink()


def _layout(table: pa.Table, rng: np.random.Generator) -> dict[str, Any]:
    """Return how a table is written: mostly as files of features are."""
    columns = list(dict.fromkeys(table.column_names))
    few = [name for name in columns if rng.random() < 0.3]
    match rng.integers(6):
        case 0:
            return {"use_dictionary": few}
        case 1:
            texts = [each.name for each in table.schema if each.type == pa.string()]
            deltas = dict.fromkeys(set(few) & set(texts), "DELTA_BYTE_ARRAY")
            return {"use_dictionary": False, "column_encoding": deltas or None}
        case 2:
            return {"use_dictionary": False, "data_page_version": "2.0"}
        case _:
            return {"use_dictionary": False, "compression": ("none", "zstd")[rng.integers(2)]}


def _change_page_header(path: Path, rng: np.random.Generator) -> None:
    """Change a byte of the header of a page, which has no checksum."""
    with pq.ParquetFile(path) as file:
        if not file.num_row_groups:
            return
        group = file.metadata.row_group(0)
        at = group.column(int(rng.integers(group.num_columns))).data_page_offset
    content = bytearray(path.read_bytes())
    content[at + int(rng.integers(24))] = int(rng.integers(256))
    path.write_bytes(content)


# --- queues ---------------------------------------------------------------------------------------


def queues(seed: int, folder: Path) -> Iterator[Case]:
    """Queues whose tables hold odd values."""
    rng = np.random.default_rng(seed)
    sound = write_queue(folder)
    for _ in range(_N_PER_SEED):
        forged = folder / "forged"
        shutil.copytree(sound, forged)
        database = forged / "queue.sqlite"
        changed = _change_cells(database, rng)
        yield Case(f"a queue, {changed}", partial(use_queue, database), (database,))
        shutil.rmtree(forged)


def _change_cells(database: Path, rng: np.random.Generator) -> str:
    connection = sqlite3.connect(database)
    columns = [
        (table, column[1])
        for table in ("facts", "categories", "training", "items")
        for column in connection.execute(f"PRAGMA table_info({table})")
    ]
    table, column = columns[rng.integers(len(columns))]
    value = _odd(rng)
    if value is not None and not isinstance(value, bool | float):
        value = json.dumps(value) if isinstance(value, list | dict) else value
        value = value % 2**63 if isinstance(value, int) else os.fsencode(value)
    connection.execute("PRAGMA ignore_check_constraints = ON")
    try:
        with connection:
            connection.execute(f"UPDATE OR IGNORE {table} SET {column} = ?", [value])
    except sqlite3.Error:
        pass  # the database itself refuses it
    connection.close()
    return f"{table}.{column}"
