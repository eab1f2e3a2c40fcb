"""What it takes to decode a Parquet file, from the headers of its pages.

A few bytes can become gigabytes: by compression, by a dictionary, by prefixes that values share.
How much they become is in the header of each page, which need not agree with the summary at the end
of the file. So we write plain values only, and read all headers before anything is decoded.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, BinaryIO

import pyarrow.parquet as pq

_HEADER_BYTES = 2**16  # at most; statistics are cut off at 4 kB each
_SPARE_BYTES = 2**26  # that a small file may become
_MAX_GROWTH = 16  # of a large file
# Of Parquet's format: a page of data, values as they are; types of fields of a header.
_DATA_PAGE, _PLAIN = 0, 0
_TRUE, _FALSE, _INT32, _INT64, _BINARY, _STRUCT = 1, 2, 5, 6, 8, 12
_MAX_DEPTH = 3  # a header, what is special for pages of data, statistics


def check_pages(
    path: str | os.PathLike[str], metadata: pq.FileMetaData, columns: Mapping[str, int]
) -> None:
    """Raise if decoding columns of a file takes much more memory than the file has bytes.

    Parameters
    ----------
    path : path
    metadata : pyarrow.parquet.FileMetaData
    columns : mapping of str to int
        The columns that will be read, and how many values a row of each has.

    Raises
    ------
    ValueError, OSError
        If a page holds other than plain values, not as many as there are rows, or too large ones.
    """
    most = _SPARE_BYTES + _MAX_GROWTH * os.path.getsize(path)
    with open(path, "rb") as stream:
        for group in map(metadata.row_group, range(metadata.num_row_groups)):
            for chunk in map(group.column, range(group.num_columns)):
                width = columns.get(chunk.path_in_schema.split(".")[0])
                if width is not None:
                    most -= _decoded_size(stream, chunk, width * group.num_rows, most)


def _decoded_size(stream: BinaryIO, chunk: pq.ColumnChunkMetaData, expected: int, most: int) -> int:
    """Return the size of the decoded pages of a column in a group of rows: so many values."""
    if chunk.has_dictionary_page:
        raise ValueError(f"{chunk.path_in_schema} has a dictionary, and ours have none")
    at, n_values, size = chunk.data_page_offset, 0, 0
    end = at + chunk.total_compressed_size
    while at < end:
        stream.seek(at)
        try:
            header, length = _struct(stream.read(_HEADER_BYTES), 0, 1)
            kind, n_decoded, n_stored = header[1], header[2], header[3]
            n_in_page, encoding = header[5][1], header[5][2]
        except (LookupError, TypeError):
            raise ValueError(f"{chunk.path_in_schema} has a page without a header") from None
        numbers = n_decoded, n_stored, n_in_page
        if (kind, encoding) != (_DATA_PAGE, _PLAIN) or not (
            0 <= min(numbers) <= max(numbers) < 2**31 and (n_in_page or not expected)
        ):
            raise ValueError(f"{chunk.path_in_schema} has a page of another kind than was written")
        at, n_values, size = at + length + n_stored, n_values + n_in_page, size + n_decoded
        if size > most:
            raise ValueError(f"{chunk.path_in_schema} would take more memory than the file should")
    if at != end or n_values != expected:
        raise ValueError(f"{chunk.path_in_schema} has other pages than the file says at its end")
    return size


def _struct(data: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    """Return the fields of a struct by number, texts as None, and where it ends.

    The encoding is Apache Thrift's compact protocol, as far as it is needed.
    """
    fields, number = dict[int, Any](), 0
    while head := data[at]:
        at, kind = at + 1, head & 15
        if not head >> 4 or depth > _MAX_DEPTH:  # numbers in full are for gaps, and there are none
            raise LookupError
        number += head >> 4
        if kind in (_TRUE, _FALSE):
            fields[number] = kind == _TRUE
        elif kind in (_INT32, _INT64):
            value, at = _integer(data, at)
            fields[number] = value >> 1 ^ -(value & 1)
        elif kind == _BINARY:
            length, at = _integer(data, at)
            fields[number], at = None, at + length
        elif kind == _STRUCT:
            fields[number], at = _struct(data, at, depth + 1)
        else:
            raise LookupError
    return fields, at + 1


def _integer(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of at most 64 bits, seven in each byte, and where it ends."""
    value = 0
    for shift in range(0, 64, 7):
        value |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return value, at
    raise LookupError
