"""Universal Binary JSON, as far as xgboost writes it: its models without a loss of digits.

In this form numbers are stored as they are; decimal digits would have to be rounded twice.

References
----------
UBJSON specification, draft 12, https://ubjson.org.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_DTYPES = {
    code: np.dtype(f">{dtype}")
    for code, dtype in zip("iUIlLdD", ("i1", "u1", "i2", "i4", "i8", "f4", "f8"), strict=True)
}
_CODES = {dtype.newbyteorder("="): code for code, dtype in _DTYPES.items()}
_SIZES = {"i": 1, "I": 2, "l": 4, "L": 8}  # bytes of an integer


def encode(value: Any) -> bytes:
    """Return a value in UBJSON.

    Parameters
    ----------
    value : dict, list, str, int, one-dimensional ndarray or bytes
        Also nested. Arrays keep their type: integers of 8 to 64 bits, floats of 32 or 64. Bytes are
        values that are encoded already.

    Returns
    -------
    bytes
    """
    parts: list[bytes] = []
    _encode(value, parts)
    return b"".join(parts)


def decode(data: bytes) -> Any:
    """Return the value of UBJSON that xgboost wrote in this process; not for bytes from a file.

    Parameters
    ----------
    data : bytes

    Returns
    -------
    dict, list, str, int or ndarray
        Typed arrays become arrays of NumPy.

    Raises
    ------
    ValueError
        For a type that xgboost does not use.
    """
    value, _ = _decode(memoryview(data), 0)
    return value


def array_head(dtype: np.dtype[Any]) -> bytes:
    """Return what stands before an array's length, in 8 bytes, and its values."""
    return b"[$" + _CODES[dtype].encode() + b"#L"


def array_bytes(array: NDArray[Any]) -> bytes:
    """Return the values of an array: so many bytes for each, those of a slice in a row."""
    return array.astype(_DTYPES[_CODES[array.dtype]]).tobytes()


def list_head(length: int) -> bytes:
    """Return what stands before the items of a list."""
    return b"[#L" + length.to_bytes(8, "big")


def integers(values: NDArray[np.integer]) -> bytes:
    """Return a list of integers: xgboost reads no array in some places."""
    items = np.empty(len(values), dtype=[("code", "S1"), ("value", ">i8")])
    items["code"], items["value"] = b"L", values
    return list_head(len(values)) + items.tobytes()


def key(name: str) -> bytes:
    """Return a key of an object, which its value follows."""
    data = name.encode()
    return b"L" + len(data).to_bytes(8, "big") + data


def _encode(value: Any, parts: list[bytes]) -> None:
    if isinstance(value, dict):
        parts.append(b"{")
        for name, item in value.items():
            parts.append(key(name))
            _encode(item, parts)
        parts.append(b"}")
    elif isinstance(value, np.ndarray):
        parts += array_head(value.dtype), len(value).to_bytes(8, "big"), array_bytes(value)
    elif isinstance(value, bytes):
        parts.append(value)
    elif isinstance(value, list):
        parts.append(list_head(len(value)))
        for item in value:
            _encode(item, parts)
    elif isinstance(value, str):
        parts += b"S", key(value)
    else:
        parts.append(b"L" + value.to_bytes(8, "big", signed=True))


def _decode(data: memoryview, at: int) -> tuple[Any, int]:
    code, at = chr(data[at]), at + 1
    if code in _SIZES:
        end = at + _SIZES[code]
        return int.from_bytes(data[at:end], "big", signed=True), end
    if code == "S":
        return _text(data, at)
    if code == "{":
        found: dict[str, Any] = {}
        while data[at] != ord("}"):
            name, at = _text(data, at)
            found[name], at = _decode(data, at)
        return found, at + 1
    if code == "[" and data[at] == ord("$"):
        length, end = _decode(data, at + 3)  # after "$", the type and "#"
        return _numbers(data, end, chr(data[at + 1]), length)
    if code == "[" and data[at] == ord("#"):
        length, at = _decode(data, at + 1)
        items: list[Any] = []
        for _ in range(length):
            item, at = _decode(data, at)
            items.append(item)
        return items, at
    raise ValueError(f"UBJSON of type {code!r}, which xgboost is not known to write")


def _text(data: memoryview, at: int) -> tuple[str, int]:
    length, at = _decode(data, at)
    return str(data[at : at + length], "utf-8"), at + length


def _numbers(data: memoryview, at: int, code: str, length: int) -> tuple[NDArray[Any], int]:
    dtype = _DTYPES[code]
    array = np.frombuffer(data, dtype, length, at)
    return array.astype(dtype.newbyteorder("=")), at + array.nbytes
