"""Files of a few kilobytes that would become gigabytes are refused before they are decoded."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hypervlad.data.extraction.table import check_pages

N_ROWS, N_VALUES = 200, 7
WIDTHS = {"path": 1, "size": 1, "vector": N_VALUES}
PLAIN = {"use_dictionary": False, "compression": "zstd"}


def table(path: str = "a/{}.png") -> pa.Table:
    vectors = np.random.default_rng(0).random(N_ROWS * N_VALUES).astype(np.float32)
    return pa.table(
        {
            "path": [path.format(i) for i in range(N_ROWS)],
            "size": pa.array([None, *range(1, N_ROWS)], pa.int64()),
            "vector": pa.FixedSizeListArray.from_arrays(vectors, N_VALUES),
        }
    )


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A file as we write it."""
    pq.write_table(table(), tmp_path / "f.parquet", **PLAIN)
    return tmp_path / "f.parquet"


@pytest.mark.parametrize(
    ("compression", "page_bytes", "statistics"),
    [("none", 100, True), ("zstd", 2**20, False), ("snappy", 100, False)],
)
def test_plain_pages_of_any_size_are_accepted(
    compression: str, page_bytes: int, statistics: bool, tmp_path: Path
) -> None:
    pq.write_table(
        table(),
        tmp_path / "f.parquet",
        use_dictionary=False,
        compression=compression,
        data_page_size=page_bytes,
        write_batch_size=10,
        row_group_size=70,
        write_statistics=statistics,
        write_page_checksum=True,
    )
    check_pages(tmp_path / "f.parquet", WIDTHS)


def test_long_statistics_are_accepted(tmp_path: Path) -> None:
    pq.write_table(table("x" * 4000 + "{}"), tmp_path / "f.parquet", **PLAIN)
    check_pages(tmp_path / "f.parquet", WIDTHS)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"use_dictionary": ["path"]}, "path has a dictionary"),
        ({"column_encoding": {"path": "DELTA_BYTE_ARRAY"}}, "path has a page of another kind"),
        ({"column_encoding": {"size": "DELTA_BINARY_PACKED"}}, "size has a page of another kind"),
        ({"data_page_version": "2.0"}, "has a page"),
    ],
)
def test_what_grows_is_refused(options: dict[str, Any], reason: str, tmp_path: Path) -> None:
    pq.write_table(table(), tmp_path / "f.parquet", **(PLAIN | options))
    with pytest.raises(ValueError, match=reason):
        check_pages(tmp_path / "f.parquet", WIDTHS)


def test_empty_pages_are_refused(plain: Path) -> None:
    """They hold nothing, but each must be found, and there may be many."""
    content = bytearray(plain.read_bytes())
    empty = b"\x15\0\x15\0\x15\0\x2c\x15\0\x15\0\0\0"  # of data, plain, with no values
    content[4 : 4 + len(empty)] = empty  # the first page, of paths
    plain.write_bytes(content)
    with pytest.raises(ValueError, match="path has a page of another kind"):
        check_pages(plain, WIDTHS)


def test_a_changed_summary_is_refused_or_harmless(plain: Path) -> None:
    sound, rng = plain.read_bytes(), np.random.default_rng(0)
    length = int.from_bytes(sound[-8:-4], "little") + 8
    for _ in range(600):
        content = bytearray(sound)
        content[-rng.integers(1, length + 1)] = rng.integers(256)
        plain.write_bytes(content)
        with contextlib.suppress(ValueError, OSError):
            check_pages(plain, WIDTHS)


def test_more_memory_than_the_file_should_take_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(table("x" * 2000 + "{}"), tmp_path / "f.parquet", **PLAIN)
    monkeypatch.setattr("hypervlad.data.extraction.table._SPARE_BYTES", 2**16)
    with pytest.raises(ValueError, match="path would take more memory than the file should"):
        check_pages(tmp_path / "f.parquet", WIDTHS)


def test_columns_that_are_not_read_are_not_examined(tmp_path: Path) -> None:
    pq.write_table(table(), tmp_path / "f.parquet", use_dictionary=["path"])
    check_pages(tmp_path / "f.parquet", {"size": 1, "vector": N_VALUES})


def test_another_number_of_values_is_refused(plain: Path) -> None:
    with pytest.raises(ValueError, match=r"vector.* has other pages than the file says at its end"):
        check_pages(plain, WIDTHS | {"vector": N_VALUES + 1})


def test_a_dictionary_that_is_not_declared_is_refused(tmp_path: Path) -> None:
    """The pages of one file, and the end of another, which tells of plain values."""
    pq.write_table(table(), tmp_path / "f.parquet", use_dictionary=["path"], compression="none")
    pq.write_table(table(), tmp_path / "plain.parquet", use_dictionary=False, compression="none")
    forged, plain = ((tmp_path / name).read_bytes() for name in ("f.parquet", "plain.parquet"))
    end = int.from_bytes(plain[-8:-4], "little") + 8
    (tmp_path / "f.parquet").write_bytes(
        forged[: len(plain) - end].ljust(len(plain) - end, b"\0") + plain[-end:]
    )
    with pytest.raises(ValueError, match="path has a page"):
        check_pages(tmp_path / "f.parquet", WIDTHS)


def test_changed_headers_are_refused_or_harmless(plain: Path) -> None:
    with pq.ParquetFile(plain) as file:
        metadata = file.metadata
    sound, rng = plain.read_bytes(), np.random.default_rng(0)
    starts = [metadata.row_group(0).column(i).data_page_offset for i in range(3)]
    refused = 0
    for _ in range(300):
        content = bytearray(sound)
        at = starts[rng.integers(3)] + rng.integers(24)
        content[at] = rng.integers(256)
        plain.write_bytes(content)
        try:
            check_pages(plain, WIDTHS)
        except (ValueError, OSError):
            refused += 1
    assert refused > 45
