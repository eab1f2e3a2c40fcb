"""The file of features: a Parquet table, its columns, how it is written and read."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.utils.validation import check_is_fitted

from hypervlad.common.files import parse_json, refuse_link, replace_when_complete
from hypervlad.extraction.tasks import PLACE, SourceRecord
from hypervlad.features.cache import cache_key
from hypervlad.features.encoder import HypercolumnVLAD

if TYPE_CHECKING:
    import pandas as pd

FORMAT_VERSION = 1
VECTOR = "vector"
#: What is known of an image that was read.
IMAGE_FIELDS = [
    pa.field("path", pa.string()),
    pa.field("label", pa.string()),
    pa.field("digest", pa.string(), nullable=False),
    pa.field("height", pa.int32(), nullable=False),
    pa.field("width", pa.int32(), nullable=False),
    pa.field("channels", pa.int8(), nullable=False),
    pa.field("pixel_size", pa.float64()),
]
#: Where a particle is.
PLACE_FIELDS = [
    pa.field(PLACE[0], pa.string()),
    *(pa.field(name, pa.int32()) for name in PLACE[1:]),
]
_ENTRY = b"hypervlad"
_CONTENT = "hypervlad.content"
_ROW_GROUP_BYTES = 16 * 2**20  # a few of them are in memory at a time
_MAX_MEMORY_SHARE = 0.25  # that vectors may take before they are mapped
_DIGEST = re.compile(b"[0-9a-f]{64}")
_MARK, _LENGTH_BYTES = b"PAR1", 4  # at both ends of a Parquet file; of its summary's length
_DIGITS = 12  # of the digest in a copy's name
_USUAL_MEMORY = 16 * 2**30  # where the system does not say how much there is


class FeatureFileError(ValueError):
    """A file of features cannot be read or written; the message names it and what to do."""


def file_beside(output: Path, ending: str) -> Path:
    """Return the path of a file that belongs to one of features; pandas ignores the "_" names."""
    return output.with_name(f"_{output.name}.{ending}")


def schema_of(n_features: int, *, with_particles: bool = False) -> pa.Schema:
    vector = pa.list_(pa.field("element", pa.float32(), nullable=False), n_features)
    places = PLACE_FIELDS if with_particles else []
    return pa.schema([*IMAGE_FIELDS, *places, pa.field(VECTOR, vector, nullable=False)])


def table_of(records: Sequence[SourceRecord], vectors: np.ndarray, schema: pa.Schema) -> pa.Table:
    read = [record for record in records if record.digest is not None]
    facts = [field for field in schema if field.name != VECTOR]
    arrays = [pa.array([getattr(each, own.name) for each in read], own.type) for own in facts]
    flat = pa.array(np.ascontiguousarray(vectors).ravel())
    vector = pa.FixedSizeListArray.from_arrays(flat, type=schema.field(VECTOR).type)
    return pa.Table.from_arrays([*arrays, vector], schema=schema)


def vectors_of(table: pa.Table) -> np.ndarray:
    n_features = table.schema.field(VECTOR).type.list_size
    chunks = [chunk.flatten().to_numpy() for chunk in table[VECTOR].chunks]
    flat = np.concatenate(chunks) if chunks else np.empty(0, dtype=np.float32)
    return flat.reshape(-1, n_features)


def write_rows(stream: BinaryIO, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
    """Write tables to one file, in row groups of equal length whatever the tables' lengths are."""
    content = hashlib.sha256()
    row_bytes = 4 * schema.field(VECTOR).type.list_size + 200
    rows = max(1, _ROW_GROUP_BYTES // row_bytes)
    small = [name for name in schema.names if name != VECTOR]
    with pq.ParquetWriter(
        stream,
        schema,
        compression="none",  # see `check_columns`; vectors are nearly all of the file
        use_dictionary=False,
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
    return schema.with_metadata({_ENTRY: json.dumps(facts, sort_keys=True).encode()})


def description(schema: pa.Schema, path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the facts in a file's metadata; raise if there are none, or of a later version."""
    entry = (schema.metadata or {}).get(_ENTRY)
    if entry is None:
        raise FeatureFileError(
            f"{os.fspath(path)}: a Parquet file, but not one that extract_features wrote"
        )
    with _reporting_damage(path):
        facts: dict[str, Any] = dict(parse_json(entry))
        version = int(facts.get("format", 0))
    if version > FORMAT_VERSION:
        raise FeatureFileError(
            f"{os.fspath(path)}: written by a later version of hypervlad; upgrade this one"
        )
    return facts


def open_table(path: str | os.PathLike[str]) -> pq.ParquetFile:
    if os.path.isdir(path):
        raise FeatureFileError(
            f"{os.fspath(path)}: a folder; give one file of features (or use pyarrow.dataset)"
        )
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
    except FileNotFoundError as error:
        raise FeatureFileError(f"{os.fspath(path)}: no such file") from error
    except (pa.ArrowException, OSError, ValueError) as error:  # UnicodeDecodeError, too
        raise FeatureFileError(
            f"{os.fspath(path)}: not a Parquet file, or a damaged one ({error}); extract again"
        ) from error
    try:
        _check_layout(file, path)
    except BaseException:
        file.close()
        raise
    return file


def _check_layout(file: pq.ParquetFile, path: str | os.PathLike[str]) -> None:
    schema = file.schema_arrow
    facts = description(schema, path)
    if VECTOR not in schema.names:
        raise FeatureFileError(
            f"{os.fspath(path)}: holds no features; give the file beside it without '_' and ending"
        )
    column = schema.field(schema.names.index(VECTOR))
    n_features = getattr(column.type, "list_size", 0)
    # Vectors are not compressed, so that what the header claims can be compared with the size.
    n_bytes = 4 * file.metadata.num_rows * n_features
    groups = map(file.metadata.row_group, range(file.num_row_groups))
    if (
        not n_features
        or schema.remove_metadata()
        not in [schema_of(n_features, with_particles=each) for each in (False, True)]
        or sum(group.num_rows for group in groups) != file.metadata.num_rows
        or _DIGEST.fullmatch(file.metadata.metadata.get(_CONTENT.encode(), b"")) is None
        or not isinstance(facts.get("encoder"), str)
        or n_bytes > os.path.getsize(path)
    ):
        raise FeatureFileError(f"{os.fspath(path)}: damaged or changed; extract again")
    with _reporting_damage(path):
        check_columns(path, file, n_features)


def is_parquet(path: str | os.PathLike[str]) -> bool:
    try:
        pq.ParquetFile(path).close()
    except (pa.ArrowException, OSError, ValueError):
        return False
    return True


# --- the encoder that made it ---------------------------------------------------------------------


def fitted_encoder(model: Any) -> HypercolumnVLAD:
    if isinstance(model, str | os.PathLike):
        name = os.fspath(model)
        raise TypeError(f"encoder must be a fitted model, not a path; give load({name!r})")
    found = model if isinstance(model, HypercolumnVLAD) else getattr(model, "encoder_", None)
    if not isinstance(found, HypercolumnVLAD):
        check_is_fitted(model)
        raise ValueError(
            "encoder must be a fitted HypercolumnVLAD or MicrographClassifier, not "
            f"{type(model).__name__}"
        )
    check_is_fitted(found)
    return found


def encoder_digest(model: Any) -> str:
    """Return a digest of all that a fitted encoder's vectors depend on, except the images."""
    encoder = fitted_encoder(model)
    reading = asdict(encoder.fitted_params_.read_options)
    del reading["max_pixels"]  # changes no pixel, and is not kept in a model's file
    reading["pixel_size"] = repr(reading["pixel_size"])  # maybe those of single files
    return cache_key(encoder.fingerprint() | {"reading": reading})


# --- reading it -----------------------------------------------------------------------------------


def load_features(
    path: str | os.PathLike[str], *, encoder: Any = None, mmap: bool | None = None
) -> tuple[np.ndarray, pd.DataFrame]:
    """Read a file that :func:`extract_features` wrote.

    Parameters
    ----------
    path : path
        The file.
    encoder : HypercolumnVLAD or MicrographClassifier, optional
        Fitted; the file must have been made with it. By default, this is not checked.
    mmap : bool, optional
        Map the vectors from an uncompressed copy that is written beside the file once. By default,
        they are mapped if they would take more than a quarter of the machine's memory.

    Returns
    -------
    X : ndarray of shape (n, n_features), float32
        A read-only ``memmap`` if mapped.
    frame : DataFrame of n rows
        ``path`` (relative; missing for an array), ``label`` (may be missing), ``digest`` (of the
        pixels: see :class:`hypervlad.Micrograph`), ``height``, ``width``, ``channels``,
        ``pixel_size`` (nm, NaN if not known). If there are particles, also their ``micrograph``
        (relative), number (``particle``) and box: ``top``, ``left``, ``bottom``, ``right``.

    Raises
    ------
    FeatureFileError
        A ValueError: no such file, a damaged or a foreign one, or one of another encoder.

    Examples
    --------
    >>> import tempfile
    >>> from hypervlad import HypercolumnVLAD, extract_features, load_features, make_tem_images
    >>> images, _ = make_tem_images(8, size=64, random_state=0)
    >>> encoder = HypercolumnVLAD(weights="random", image_size=64, n_codewords=4, sampling=900)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     extract_features(images, encoder.fit(images), out=f"{folder}/f.parquet").n_images
    ...     X, frame = load_features(f"{folder}/f.parquet", encoder=encoder)
    8
    >>> X.shape
    (8, 544)
    """
    path = Path(path)
    with open_table(path) as file:
        if encoder is not None:
            made_with = description(file.schema_arrow, path)["encoder"]
            if made_with != encoder_digest(encoder):
                raise FeatureFileError(
                    f"{path}: these features are of another model (or of this one, retrained or "
                    "with other pixel sizes); extract them again with this one"
                )
        if mmap is None:
            mmap = _too_large(file)
        vectors = _mapped(path, file) if mmap else _read(path, file)
        rest = [name for name in file.schema_arrow.names if name != VECTOR]
        with _reporting_damage(path):
            return vectors, file.read(columns=rest).to_pandas()


@contextlib.contextmanager
def _reporting_damage(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise FeatureFileError(f"{os.fspath(path)}: damaged ({error}); extract again") from error


def _shape(file: pq.ParquetFile) -> tuple[int, int]:
    return file.metadata.num_rows, file.schema_arrow.field(VECTOR).type.list_size


def _blocks(path: Path, file: pq.ParquetFile) -> Iterator[np.ndarray]:
    for group in range(file.num_row_groups):
        with _reporting_damage(path):
            block = vectors_of(file.read_row_group(group, columns=[VECTOR]))
            if len(block) != file.metadata.row_group(group).num_rows:
                raise OSError("a group of rows has another length than its header says")
        yield block


def _read(path: Path, file: pq.ParquetFile) -> np.ndarray:
    vectors = np.empty(_shape(file), dtype=np.float32)
    row = 0
    for block in _blocks(path, file):
        vectors[row : row + len(block)] = block
        row += len(block)
    return vectors


def _mapped(path: Path, file: pq.ParquetFile) -> np.ndarray:
    digest = file.metadata.metadata[_CONTENT.encode()].decode()
    copy = file_beside(path, f"{digest[:_DIGITS]}.npy")
    refuse_link(copy)
    if not copy.exists():
        _remove_older_copies(path)
        try:
            _write_copy(copy, path, file)
        except OSError as error:
            raise OSError(
                error.errno,
                "the uncompressed copy that mapping needs cannot be written; free some space, or "
                "give mmap=False",
                str(copy),
            ) from error
    with _reporting_damage(copy):
        mapped = np.lib.format.open_memmap(copy, mode="r")
        if mapped.shape != _shape(file) or mapped.dtype != np.float32:
            raise OSError("it does not fit the file of features; remove it")
    return mapped


def _write_copy(copy: Path, path: Path, file: pq.ParquetFile) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": _shape(file)}
    with replace_when_complete(copy) as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for block in _blocks(path, file):
            stream.write(block.astype("<f4", copy=False).data)


def _remove_older_copies(path: Path) -> None:
    """Remove copies of what was in the file before; on Windows not while they are in use."""
    name = re.compile(rf"_{re.escape(path.name)}\.[0-9a-f]{{{_DIGITS}}}\.npy")
    for old in path.parent.iterdir():
        if name.fullmatch(old.name):
            with contextlib.suppress(OSError):
                old.unlink()


def _too_large(file: pq.ParquetFile) -> bool:
    n_rows, n_features = _shape(file)
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows
        memory = _USUAL_MEMORY
    return 4 * n_rows * n_features > _MAX_MEMORY_SHARE * memory


# --- what it takes to decode it ------------------------------------------------------------------


def check_columns(path: str | os.PathLike[str], file: pq.ParquetFile, n_values: int) -> None:
    """Raise a ValueError unless all columns are plain values that fill the file without a gap.

    In memory they then take about as much as in the file: a few bytes that are compressed, or that
    stand for long texts of a dictionary, can become gigabytes. It also finds nearly all damage to
    the summary at the file's end, with which pyarrow may crash. A row has ``n_values`` of vectors.
    """
    end = len(_MARK)
    for group in map(file.metadata.row_group, range(file.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            name = column.path_in_schema
            # Not its compression: of an unknown one, pyarrow ends the process.
            is_plain = column.total_compressed_size == column.total_uncompressed_size
            if not is_plain or not {"PLAIN", "RLE"} >= set(column.encodings):
                raise ValueError(f"{name} is compressed or has a dictionary, which ours are not")
            n_expected = group.num_rows * (n_values if name.startswith(VECTOR) else 1)
            if column.num_values != n_expected or column.data_page_offset != end:
                raise ValueError(f"{name} has other values than the file says at its end")
            end += column.total_compressed_size
    with open(path, "rb") as stream:
        stream.seek(-_LENGTH_BYTES - len(_MARK), os.SEEK_END)
        start = stream.tell() - int.from_bytes(stream.read(_LENGTH_BYTES), "little")
    if end != start:
        raise ValueError("its columns do not fill it")
