"""The one-file container of a trained model: a JSON header, named arrays, and a digest over both.

It is a safetensors file whose single metadata entry is JSON, the SHA-256 of all other bytes first:
see docs/reference/model_file.md. The digest finds damage, not forgery.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from hypervlad._version import __version__
from hypervlad.common.files import LinkError, parse_json, replace_when_complete
from hypervlad.common.limits import MAX_MODEL_HEADER, MAX_QUOTED

FORMAT_VERSION = 1

_ENTRY = "hypervlad"
_NO_DIGEST = "0" * 64
# Where the digest stands is part of the format: it must be found before anything can be parsed.
_START = re.compile(
    rb'.{8}\{"__metadata__":\{"hypervlad":"\{\\"sha256\\":\\"([0-9a-f]{64})\\",', re.DOTALL
)
_START_LENGTH = 256
_DTYPES = frozenset(
    np.dtype(code)
    for code in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")
)
_FOREIGN = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"BM", "a BMP image"),
    (b"PK\x03\x04", "a zip archive, as PyTorch's .pth files are"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array file"),
    (b"\x80", "a Python pickle, which hypervlad never opens because a pickle can run any code"),
)


class ModelFileError(ValueError):
    """A model file cannot be read or written; the message names the file and what to do."""


class ModelFileNotFoundError(ModelFileError, FileNotFoundError):
    """There is no such model file, or no such folder to write one into."""


@dataclass(frozen=True)
class ModelFile:
    """What a model file holds; `kind` is the estimator's, such as ``"micrograph_classifier"``.

    The version is by default that of this library.
    """

    kind: str
    header: dict[str, Any]
    arrays: dict[str, NDArray[Any]] = field(repr=False)
    library_version: str = __version__


def write_model(
    path: str | os.PathLike[str],
    kind: str,
    header: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
) -> None:
    """Write a model file, completely or not at all, or raise a ModelFileError.

    The same content gives the same bytes. The header has finite JSON values with string keys;
    arrays are floats of 16 to 64 bits, integers or booleans. An existing file is replaced, no
    symbolic link.
    """
    data = model_bytes(kind, header, arrays)
    try:
        with replace_when_complete(path) as stream:
            stream.write(data)
    except LinkError as error:
        raise ModelFileError(str(error)) from error
    except OSError as error:
        raise ModelFileError(
            f"{os.fspath(path)}: the model could not be written ({error.strerror or error}); "
            "choose another folder or free some space there."
        ) from error


def model_bytes(kind: str, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the content of a file: see `write_model`."""
    return _with_digest(_serialise(kind, header, arrays))


def read_model(
    path: str | os.PathLike[str], *, kind: str | None = None, header_only: bool = False
) -> ModelFile:
    """Read a model file, by default of any kind, or raise a ModelFileError.

    With `header_only`, the arrays are not read, and damage in them is not found.
    """
    name = os.fspath(path)
    data = _read_bytes(Path(path), name, header_only=header_only)
    if not header_only:
        _check_digest(data, name)
    try:
        length = int.from_bytes(data[:8], "little")
        if length > MAX_MODEL_HEADER:
            raise ValueError(f"a header of {length} bytes, more than {MAX_MODEL_HEADER}")
        entry = parse_json(parse_json(data[8 : 8 + length])["__metadata__"][_ENTRY])
        _check_version(entry, name)
        content = ModelFile(
            kind=_text(entry["kind"]),
            header=dict(entry["header"]),
            arrays={
                key: array if array.flags.writeable else array.copy()
                for key, array in ({} if header_only else safetensors.numpy.load(data)).items()
            },
            library_version=_text(entry["library"]),
        )
    except ModelFileError:
        raise
    except (safetensors.SafetensorError, LookupError, TypeError, ValueError) as err:
        raise ModelFileError(
            f"{name}: the file is whole but not laid out as a hypervlad model "
            f"({type(err).__name__}: {str(err)[:MAX_QUOTED]}); save the model again."
        ) from err
    if kind is not None and content.kind != kind:
        raise ModelFileError(
            f"{name}: expected a model of kind {kind!r} but it holds one of kind {content.kind!r}; "
            "load it with hypervlad.load, which picks the right class."
        )
    return content


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{reprlib.repr(value)} is not a text")
    return value


def _serialise(kind: str, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    try:
        _check_keys(header)
        plain = json.dumps(dict(header), sort_keys=True, allow_nan=False, separators=(",", ":"))
        labels = f'"kind":{json.dumps(str(kind))},"library":{json.dumps(__version__)}'
        entry = f'{{"sha256":"{_NO_DIGEST}","format":{FORMAT_VERSION},{labels},"header":{plain}}}'
        parse_json(entry)  # raises for what could not be read again
        tensors = {key: _storable(key, array) for key, array in arrays.items()}
        return safetensors.numpy.save(tensors, metadata={_ENTRY: entry})
    except (safetensors.SafetensorError, TypeError, ValueError, RecursionError) as error:
        raise ModelFileError(f"this model of kind {kind!r} cannot be stored: {error}") from error


def _check_keys(value: Any, where: str = "header") -> None:
    # json would quietly turn the key 1 into "1", and the model would not come back as it was.
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{where} has the key {key!r}; only strings survive JSON.")
            _check_keys(item, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for item in value:
            _check_keys(item, where)


def _storable(key: object, array: NDArray[Any]) -> NDArray[Any]:
    array = np.asarray(array)
    native = array.dtype.newbyteorder("=")
    if native not in _DTYPES or not isinstance(key, str) or key == "__metadata__":
        raise TypeError(
            f"array {key!r} of type {array.dtype}; expected floats, integers or booleans "
            "under a name that is a string other than '__metadata__'."
        )
    return np.asarray(array, dtype=native, order="C")


def _with_digest(blank: bytes) -> bytes:
    found = _START.match(blank)
    if found is None:  # pragma: no cover  # only if safetensors changed how it writes a header
        raise ModelFileError(
            f"safetensors {safetensors.__version__} lays out its header in a way that this version "
            "of hypervlad does not know; install another version of safetensors."
        )
    return blank[: found.start(1)] + _digest(blank, found).encode() + blank[found.end(1) :]


def _digest(data: bytes, found: re.Match[bytes]) -> str:
    digest = hashlib.sha256(data[: found.start(1)])
    digest.update(memoryview(data)[found.end(1) :])
    return digest.hexdigest()


def _read_bytes(path: Path, name: str, *, header_only: bool) -> bytes:
    if path.is_dir():
        raise ModelFileError(f"{name} is a folder; give the model file itself.")
    if not path.exists():
        raise ModelFileNotFoundError(
            f"{name}: there is no such file; check the name and the folder."
        )
    if not path.is_file():
        raise ModelFileError(f"{name} is not an ordinary file; give a model file.")
    try:
        with open(path, "rb") as stream:
            # A foreign file may be many gigabytes: look at its start before reading the rest.
            start = stream.read(_START_LENGTH)
            if _START.match(start) is None:
                raise ModelFileError(_what_it_is(start, name))
            length = 8 + min(int.from_bytes(start[:8], "little"), MAX_MODEL_HEADER)
            return start + stream.read(max(0, length - len(start)) if header_only else -1)
    except OSError as error:
        raise ModelFileError(
            f"{name} could not be read ({error.strerror or error}); check its permissions."
        ) from error


def _what_it_is(start: bytes, name: str) -> str:
    if not start:
        return f"{name} is empty; copy or save the model again."
    if start[8:9] == b"{":
        return (
            f"{name} is a safetensors file but not a hypervlad model, or its first bytes are "
            "damaged; give a file that hypervlad saved (a network's weights go to weights=)."
        )
    for magic, what in _FOREIGN:
        if start.startswith(magic):
            return f"{name} is not a hypervlad model: it looks like {what}."
    return (
        f"{name} is not a hypervlad model, or its first bytes are damaged or cut off; "
        "give a file that hypervlad saved, or copy it again."
    )


def _check_digest(data: bytes, name: str) -> None:
    found = _START.match(data)
    if found is None or _digest(data, found) != found.group(1).decode():
        raise ModelFileError(
            f"{name} is damaged: its content does not match its SHA-256 (it may be truncated or a "
            "download may have failed); copy it again, or train and save the model again."
        )


def _check_version(entry: object, name: str) -> None:
    if not isinstance(entry, dict) or not isinstance(entry["format"], int):
        raise TypeError("the format's version is not a number")
    if entry["format"] > FORMAT_VERSION:
        raise ModelFileError(
            f"{name} was written by hypervlad {entry.get('library')} in format {entry['format']}, "
            f"and this version, {__version__}, reads up to {FORMAT_VERSION}; update it: "
            "pip install --upgrade hypervlad"
        )
