"""Features, queues and tables: bytes damaged at random, and forged content behind sound checksums.

What is forged reaches what lies behind the checks of damage.
"""

import contextlib
import copy
import csv
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from support.feature_folders import write_image
from support.review_queues import write_queue
from support.tiny import make_tiny_encoder, register_tiny

from hypervlad import extract_features, load_features, load_image_folder
from hypervlad.apps.review import Queue, QueueError
from hypervlad.data import FeatureFileError, ImageFolderError
from tests.campaign.case import Case

_N_PER_SEED = 300
_HEAD = 512  # bytes that are changed as often as all others together
# Numbers at which checks of sizes and offsets may fail.
_EDGES = (0, 1, 2, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1)
#: Values of another type or size than expected.
_ODD: tuple[Any, ...] = (
    *(None, True, 0, -1, 2**31, 2**63, -(2**70), 1e308, float("nan"), float("inf")),
    *("", "\0", "\x1b[2J", "=1+1", "../../x", "\udcff", "9" * 5000, "x" * 100_000),
    *([], {}, [[[]]], {"a": {"a": {}}}),
)


def cases(seed: int, folder: Path) -> Iterator[Case]:
    """Change each file in turn, in its own place."""
    register_tiny()
    rng = np.random.default_rng(seed)
    names = [f"{'ab'[i % 2]}/ä b,{i}.png" for i in range(12)]
    files = [write_image(folder / "images" / name, rng) for name in names]
    features = folder / "features.parquet"
    extract_features(folder / "images", make_tiny_encoder().fit(files), out=features)
    opened = Queue(write_queue(folder, 8, 2))
    opened.label("client-1", "click-001", 1, 1)
    opened.connection.execute("PRAGMA journal_mode = DELETE")
    opened.close()
    queue = folder / "queue" / "queue.sqlite"
    uses: list[tuple[Path, Callable[[Path], None], Callable[..., None]]] = [
        (features, use_features, forge_features),
        (features, use_features, damage),
        (queue, use_queue, forge_queue),
        (queue, use_queue, damage),
    ]
    for delimiter, encoding in ((",", "utf-8"), (";", "utf-8-sig"), ("\t", "utf-16")):
        path = folder / f"{encoding}.csv"
        with path.open("w", newline="", encoding=encoding) as stream:
            rows = [[name, f"paper {i % 3}"] for i, name in enumerate(names)]
            csv.writer(stream, delimiter=delimiter).writerows([["path", "group"], *rows])
        uses.append((path, use_table, damage))
    for number in range(_N_PER_SEED):
        path, use, change = uses[number % len(uses)]
        sound = path.read_bytes()
        change(path, rng)
        yield Case(f"{path.name}, {change.__name__}", partial(use, path), (path,))
        path.write_bytes(sound)


# --- what must come of any file -----------------------------------------------------------------


def use_features(path: Path) -> None:
    """A file of features is read or refused."""
    with contextlib.suppress(FeatureFileError):
        X, frame = load_features(path, mmap=False)
        assert len(X) == len(frame)


def use_queue(path: Path) -> None:
    """A queue, given by its database, is refused, or used until SQLite finds the damage."""
    try:
        with contextlib.closing(Queue(path.parent)) as opened:
            opened.images()
            for item in opened.next("client-1", 3).items:
                for category in opened.categories()[:1]:
                    opened.label("client-1", f"click-{item.id}", item.id, category.id)
    except (QueueError, sqlite3.DatabaseError):
        pass
    finally:
        for left in path.parent.glob(f"{path.name}-*"):
            left.unlink()


def use_table(path: Path) -> None:
    """A table of groups is read, with a group for each image, or refused."""
    with contextlib.suppress(ImageFolderError):
        assert all(load_image_folder(path.parent / "images", path).groups)


# --- changes ------------------------------------------------------------------------------------


def damage(path: Path, rng: np.random.Generator) -> None:
    path.write_bytes(damaged(path.read_bytes(), rng))


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Return bytes with one to four random changes."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        size = len(changed)
        at = int(rng.integers(min(size, _HEAD) if rng.random() < 0.5 else size)) if size else 0
        length = min(int(2 ** rng.uniform(0, 10)), size - at)
        match rng.integers(6):
            case 0:  # a bit
                changed[at : at + 1] = bytes(b ^ 1 << rng.integers(8) for b in changed[at : at + 1])
            case 1:  # a number of 1, 2, 4 or 8 bytes
                width, order = 2 ** int(rng.integers(4)), ("little", "big")[rng.integers(2)]
                number = _EDGES[rng.integers(len(_EDGES))] % 256**width
                changed[at : at + width] = number.to_bytes(width, order)
            case 2:
                del changed[at:]
            case 3:
                del changed[at : at + length]
            case 4:  # a block twice
                changed[at:at] = changed[at : at + length]
            case 5:
                changed[at : at + length] = bytes(length)
    return bytes(changed)


def forge_features(path: Path, rng: np.random.Generator) -> None:
    """Write sound Parquet of other rows, columns or facts."""
    table = pq.read_table(path)
    metadata = {key: own for key, own in table.schema.metadata.items() if key != b"ARROW:schema"}
    n_rows, column = table.num_rows, int(rng.integers(table.num_columns))
    name = table.column_names[column]
    match rng.integers(8):
        case 0:
            table = table.take(pa.array(rng.integers(0, n_rows, rng.integers(2 * n_rows))))
        case 1:
            table = table.drop_columns([name])
        case 2:
            table = table.append_column(name, table.column(column))
        case 3:
            table = table.rename_columns([*rng.permutation(table.column_names).tolist()])
        case 4:
            kinds = (pa.int8(), pa.float64(), pa.binary(), pa.list_(pa.float32()), pa.string())
            values = pa.array([None] * n_rows, kinds[rng.integers(len(kinds))])
            table = table.set_column(column, name, values)
        case 5:
            nested = (b"[" * 100_000, b'{"a":' * 100_000, b"", b"\xff", b"null", b"1e999")
            metadata[b"hypervlad"] = nested[rng.integers(len(nested))]
        case _:
            facts = changed_value(json.loads(metadata[b"hypervlad"]), rng)
            metadata[b"hypervlad"] = json.dumps(facts).encode()
    dictionaries = bool(rng.random() < 0.2)
    pq.write_table(table.replace_schema_metadata(metadata), path, use_dictionary=dictionaries)


def changed_value(value: Any, rng: np.random.Generator) -> Any:
    """Return a JSON value with one of its inner values replaced or removed."""
    value = copy.deepcopy(value)
    inner, place = value, None
    while isinstance(inner, dict | list) and inner and (place is None or rng.random() < 0.8):
        names = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        place = inner, names[rng.integers(len(names))]
        inner = inner[place[1]]
    if place is None:
        return _ODD[rng.integers(len(_ODD))]
    holder, key = place
    if rng.random() < 0.3:
        del holder[key]
    else:
        holder[key] = _ODD[rng.integers(len(_ODD))]
    return value


def forge_queue(path: Path, rng: np.random.Generator) -> None:
    """Fill a column of the database with an odd value."""
    connection = sqlite3.connect(path)
    columns = [
        (table, column[1])
        for table in ("facts", "categories", "training", "items")
        for column in connection.execute(f"PRAGMA table_info({table})")
    ]
    table, column = columns[rng.integers(len(columns))]
    value = _ODD[rng.integers(len(_ODD))]
    if value is not None and not isinstance(value, bool | float):
        value = json.dumps(value) if isinstance(value, list | dict) else value
        value = value % 2**63 if isinstance(value, int) else os.fsencode(value)
    connection.execute("PRAGMA ignore_check_constraints = ON")
    with contextlib.suppress(sqlite3.Error), connection:  # the database itself may refuse it
        connection.execute(f"UPDATE OR IGNORE {table} SET {column} = ?", [value])
    connection.close()
