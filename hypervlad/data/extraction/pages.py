"""What it takes to decode a Parquet file, from the headers of its pages."""

# A few bytes can become gigabytes: by compression, by a dictionary, by prefixes that values share.
# How many is in the header of each page, which need not agree with the summary at the end of the
# file. So we write plain values only, and read all headers before anything is decoded. The summary
# is read here too: Arrow's own objects for it end the process where it is damaged.

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, BinaryIO

_HEADER_BYTES = 2**16  # at most; statistics are cut off at 4 kB each
_SPARE_BYTES = 2**26  # that a small file may become
_MAX_GROWTH = 16  # of a large file
# Of Parquet's format: a page of data, values as they are; types of fields of a header.
_DATA_PAGE, _PLAIN = 0, 0
_TRUE, _FALSE, _BYTE, _BINARY, _LIST, _STRUCT = 1, 2, 3, 8, 9, 12
_INTEGERS = {4, 5, 6}
_MAX_DEPTH = 8


def check_pages(path: str | os.PathLike[str], columns: Mapping[str, int]) -> None:
    """Raise if decoding columns of a file takes much more memory than the file has bytes.

    ``columns`` are those that will be read, and how many values a row of each has.
    """
    most = _SPARE_BYTES + _MAX_GROWTH * os.path.getsize(path)
    with open(path, "rb") as stream:
        try:
            # By the numbers of fields in parquet.thrift: FileMetaData, RowGroup, ColumnChunk.
            for group in _summary(stream)[4]:
                for chunk in (column[3] for column in group[1]):
                    name = chunk[3][0].decode()
                    if name in columns:
                        most -= _decoded_size(stream, name, chunk, columns[name] * group[3], most)
        except (LookupError, TypeError, AttributeError):
            raise ValueError("its end is not the summary of such a file") from None


def _summary(stream: BinaryIO) -> dict[int, Any]:
    """Return the fields of the summary at the end of a file: its length, and a mark, follow it."""
    stream.seek(-8, os.SEEK_END)
    length = int.from_bytes(stream.read(4), "little")
    stream.seek(-8 - length, os.SEEK_END)
    return _struct(stream.read(length), 0, 1)[0]


def _decoded_size(
    stream: BinaryIO, name: str, chunk: dict[int, Any], expected: int, most: int
) -> int:
    """Return the size of the decoded pages of a column in a group of rows: so many values."""
    if 11 in chunk:  # where its dictionary is
        raise ValueError(f"{name} has a dictionary, and ours have none")
    at, end = chunk[9], chunk[9] + chunk[7]
    n_values = size = 0
    while at < end:
        stream.seek(at)
        try:
            header, length = _struct(stream.read(_HEADER_BYTES), 0, 1)
            kind, n_decoded, n_stored = header[1], header[2], header[3]
            n_in_page, encoding = header[5][1], header[5][2]
        except (LookupError, TypeError):
            raise ValueError(f"{name} has a page without a header") from None
        numbers = n_decoded, n_stored, n_in_page
        if (
            (kind, encoding) != (_DATA_PAGE, _PLAIN)
            or not 0 <= min(numbers) <= max(numbers) < 2**31
            or not (n_in_page or not expected)
        ):
            raise ValueError(f"{name} has a page of another kind than was written")
        at, n_values, size = at + length + n_stored, n_values + n_in_page, size + n_decoded
        if size > most:
            raise ValueError(f"{name} would take more memory than the file should")
    if at != end or n_values != expected:
        raise ValueError(f"{name} has other pages than the file says at its end")
    return size


def _struct(data: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    """Return the fields of a struct of Thrift's compact protocol by number, and where it ends."""
    fields, number = dict[int, Any](), 0
    while head := data[at]:
        at, kind = at + 1, head & 15
        if not head >> 4:  # numbers in full are for gaps, and there are none
            raise LookupError
        number += head >> 4
        if kind in (_TRUE, _FALSE):
            fields[number] = kind == _TRUE
        else:
            fields[number], at = _value(data, at, kind, depth)
    return fields, at + 1


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    """Return a value of a kind, texts as bytes, and where it ends."""
    if depth > _MAX_DEPTH:
        raise LookupError
    if kind == _BYTE:
        return data[at], at + 1
    if kind in _INTEGERS:
        value, at = _integer(data, at)
        return value >> 1 ^ -(value & 1), at
    if kind == _BINARY:
        length, at = _integer(data, at)
        return data[at : at + length], at + length
    if kind == _STRUCT:
        return _struct(data, at, depth + 1)
    if kind != _LIST:
        raise LookupError
    length, kind, at, found = data[at] >> 4, data[at] & 15, at + 1, []
    if length == 15:  # and more
        length, at = _integer(data, at)
    for _ in range(length):
        item, at = _value(data, at, kind, depth + 1)
        found.append(item)
    return found, at


def _integer(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of at most 64 bits, seven in each byte, and where it ends."""
    value = 0
    for shift in range(0, 64, 7):
        value |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return value, at
    raise LookupError
