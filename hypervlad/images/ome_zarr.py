"""OME-Zarr: images in folders, by OME-NGFF 0.1 to 0.5, as Zarr of version 2 or 3."""

from __future__ import annotations

import math
import os
import stat
from pathlib import Path
from posixpath import join
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from hypervlad.common.files import parse_json
from hypervlad.common.limits import MAX_ZARR_JSON, MAX_ZARR_LEVELS
from hypervlad.common.progress import by_reader
from hypervlad.images.chunks import (
    ChunkedArray,
    check_stored,
    decompress,
    frame_of_page,
    read_plane,
)
from hypervlad.images.errors import ImageReadError
from hypervlad.images.formats import DecodedImage, unpack_at
from hypervlad.images.metadata import length_in_nm
from hypervlad.images.options import ReadOptions
from hypervlad.images.pixels import check_size

_CHECKSUM = "crc32c"
_CODECS = frozenset(["blosc", "zstd", "gzip", "zlib", "lz4", "bz2", "lzma", _CHECKSUM])
_NOT_STORED = 2**64 - 1  # offset of an inner chunk
_AXES = "tczyx"  # before 0.3
_RED_GREEN_BLUE = ["FF0000", "00FF00", "0000FF"]


def decode_ome_zarr(path: Path, options: ReadOptions, name: str) -> DecodedImage:
    """Decode one plane of the finest level that has at most `max_pixels`, with its pixel size.

    Pages run along all axes but channels, y and x, through all images of the folder. Nothing
    outside the folder is opened. With a `channel`, this one is decoded, and stands for all of
    (H, W, C).
    """
    store = _Store(path, name)
    images = [_Image(store, group) for group in _groups(store)]
    n_frames = [image.n_frames for image in images]
    number, frame, pages = frame_of_page(n_frames, options.page or 0, name)
    image = images[number]
    level = image.finest_level(options.max_pixels)
    pixels = image.read(level, frame, options)
    sides = image.side(level, "x"), image.side(level, "y")
    return DecodedImage.of("OME-Zarr", pixels, sides, **pages, level=level)


def _groups(store: _Store) -> list[str]:
    attributes = store.attributes("")
    if "multiscales" in attributes:
        return [""]
    if "bioformats2raw.layout" in attributes:  # images with the names 0, 1, 2, ...
        found: list[str] = []
        while "multiscales" in store.attributes(f"{len(found)}"):
            found.append(f"{len(found)}")
        if found:
            return found
    for kind, example in (("plate", "A/1/0"), ("well", "0")):
        if kind in attributes:
            raise ImageReadError(
                f"{store.name}: a {kind}, which contains folders of images; give one of these, "
                f"such as {os.path.join(store.name, example)}"
            )
    raise ImageReadError(
        f"{store.name}: a Zarr folder without an OME image (no 'multiscales' in its attributes); "
        "copy it again with its hidden files, or export the image as OME-Zarr or TIFF"
    )


class _Store:
    """Arrays and attributes in a folder, of which no links are followed."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = os.path.realpath(folder), name

    def open(self, path: str) -> BinaryIO | None:
        """Open a file of the folder; None if there is none."""
        place = os.path.normpath(os.path.join(self.folder, path))
        if os.path.realpath(place) != place or not place.startswith(self.folder + os.sep):
            raise ImageReadError(
                f"{self.name}: {path!r} is a link, or outside the folder, and is not read; copy "
                "the files themselves into the folder"
            )
        try:
            if not stat.S_ISREG(os.stat(place).st_mode):
                raise ValueError(f"{path!r} is no file")
            return open(place, "rb")
        except (FileNotFoundError, NotADirectoryError):
            return None

    def json(self, path: str) -> dict[str, Any]:
        """Return an object that a file contains; an empty one if there is no such file."""
        file = self.open(path)
        if file is None:
            return {}
        with file:
            content = file.read(MAX_ZARR_JSON + 1)
        found = parse_json(content if len(content) <= MAX_ZARR_JSON else "")
        if not isinstance(found, dict):
            raise ValueError(f"{path!r} contains no object")
        return found

    def attributes(self, group: str) -> dict[str, Any]:
        attributes = self.json(join(group, "zarr.json")).get("attributes")
        attributes = attributes or self.json(join(group, ".zattrs"))
        found: dict[str, Any] = attributes.get("ome", attributes)  # from 0.5 on
        return found

    def array(self, path: str) -> ChunkedArray:
        found = self.json(join(path, "zarr.json")) or self._as_version_3(path)
        encoding, codecs = found["chunk_key_encoding"], found["codecs"]
        is_default = encoding["name"] == "default"
        separator = encoding.get("configuration", {}).get("separator", "/" if is_default else ".")
        chunks = tuple(found["chunk_grid"]["configuration"]["chunk_shape"])
        dtype, options = np.dtype(str(found["data_type"])), None
        if dtype.kind not in "biuf":
            raise ImageReadError(
                f"{self.name}: an array of {dtype}, not of pixels; export the image as TIFF"
            )
        if [codec["name"] for codec in codecs] == ["sharding_indexed"]:
            options = codecs[0]["configuration"]  # of shards, which are files of several chunks
            codecs, outer, chunks = options["codecs"], chunks, tuple(options["chunk_shape"])
            of_index = [codec["name"] for codec in options["index_codecs"]]
            if of_index not in (["bytes"], ["bytes", _CHECKSUM]):
                raise ValueError(f"an index of shards by {of_index}")
            in_shard = [n // m for n, m in zip(outer, chunks, strict=True)]
        if codecs and codecs[0]["name"] == "bytes":
            is_big = codecs[0].get("configuration", {}).get("endian") == "big"
            codecs, dtype = codecs[1:], dtype.newbyteorder(">" if is_big else "<")
        names = [codec["name"].removeprefix("numcodecs.") for codec in codecs]
        for name in names:
            if name not in _CODECS:
                raise ImageReadError(
                    f"{self.name}: its image is stored with the codec {name!r}, which is not read; "
                    f"store it with one of {', '.join(sorted(_CODECS - {_CHECKSUM}))}"
                )
        start, order = (["c"] if is_default else []), found.get("order", "C")
        n_bytes = math.prod(chunks) * dtype.itemsize

        def read(place: tuple[int, ...]) -> NDArray[Any] | None:
            outer = place if options is None else np.floor_divide(place, in_shard).tolist()
            file = self.open(join(path, separator.join([*start, *map(str, outer)])))
            if file is None:
                return None
            with file:
                begin, n_stored = 0, os.fstat(file.fileno()).st_size
                if options is not None:
                    inner = np.remainder(place, in_shard).tolist()
                    entry = 16 * int(np.ravel_multi_index(inner, in_shard))
                    n_index = 16 * math.prod(in_shard) + 4 * (len(of_index) - 1)
                    index_first = options.get("index_location", "end") == "start"
                    entry += 0 if index_first else n_stored - n_index
                    begin, n_stored = unpack_at(file, entry, "<QQ")
                    if begin == _NOT_STORED:
                        return None
                check_stored(n_stored, n_bytes)
                file.seek(begin)
                content = file.read(n_stored)
            for codec in reversed(names):
                is_checksum = codec == _CHECKSUM
                content = content[:-4] if is_checksum else decompress(codec, content, n_bytes + 4)
            return np.frombuffer(content, dtype).reshape(chunks, order=order)

        fill = found.get("fill_value") or 0
        return ChunkedArray(tuple(found["shape"]), chunks, dtype, read, fill)

    def _as_version_3(self, path: str) -> dict[str, Any]:
        """Return what Zarr 2 says of an array, and the order of its values, as Zarr 3 does."""
        found = self.json(join(path, ".zarray"))
        if not found:
            raise ImageReadError(
                f"{self.name}: the array {path!r} is missing; copy the whole folder again"
            )
        separator, compressor = found.get("dimension_separator", "."), found.get("compressor")
        codecs = [*(found.get("filters") or []), *([compressor] if compressor else [])]
        return found | {
            "data_type": found["dtype"],
            "chunk_grid": {"configuration": {"chunk_shape": found["chunks"]}},
            "chunk_key_encoding": {"name": "v2", "configuration": {"separator": separator}},
            "codecs": [{"name": codec["id"]} for codec in codecs],
        }


class _Image:
    """One image: levels of the same content, of which the first is the finest."""

    def __init__(self, store: _Store, group: str) -> None:
        self.store = store
        attributes = store.attributes(group)
        self.multiscale = attributes["multiscales"][0]
        self.levels = self.multiscale["datasets"][:MAX_ZARR_LEVELS]
        paths = [join(group, level["path"]) for level in self.levels]
        self.arrays = [store.array(path) for path in paths]
        n_axes = len(self.arrays[0].shape)
        axes = self.multiscale.get("axes", list(_AXES[-n_axes:]))
        self.axes = [{"name": axis} if isinstance(axis, str) else axis for axis in axes]
        self.names = [axis["name"] for axis in self.axes]
        if len(self.names) != n_axes or not {"y", "x"} <= set(self.names):
            raise ValueError(f"axes {self.names} of {self.arrays[0].shape}")
        channels = attributes.get("omero", {}).get("channels", [])
        colours = [str(channel.get("color")).upper() for channel in channels]
        self.is_colour = colours == _RED_GREEN_BLUE

    def frames(self, level: int) -> list[int]:
        """Return the lengths of the axes along which pages run."""
        lengths = zip(self.names, self.arrays[level].shape, strict=True)
        return [n for name, n in lengths if name not in ("c", "y", "x")]

    @property
    def n_frames(self) -> int:
        return math.prod(self.frames(0))

    def length(self, level: int, name: str) -> int:
        return self.arrays[level].shape[self.names.index(name)] if name in self.names else 1

    def finest_level(self, max_pixels: int | None) -> int:
        """Return the finest level of at most `max_pixels`, of those with all frames."""
        for level, array in enumerate(self.arrays):
            height, width = self.length(level, "y"), self.length(level, "x")
            n_colours, n_bytes = 3 if self.is_colour else 1, array.dtype.itemsize
            try:
                check_size(height, width, self.store.name, max_pixels, n_colours, n_bytes)
                if self.frames(level) == self.frames(0):
                    return level
            except ImageReadError as error:
                reason = error
        raise reason

    def read(self, level: int, frame: int, options: ReadOptions) -> NDArray[Any]:
        n_channels, channel = self.length(level, "c"), options.channel
        is_colour = self.is_colour and channel is None and n_channels == 3
        if n_channels > 1 and channel is None and not is_colour:
            raise ImageReadError(
                f"{self.store.name}: an image of {n_channels} channels, which are not red, green "
                "and blue; "
                + by_reader(
                    "--set channel=0 (in Python, read_options={'channel': 0}) reads the first as "
                    f"grey (0 to {n_channels - 1})",
                    "export one as a grey image",
                )
            )
        one = None if is_colour else min(channel or 0, n_channels - 1)
        chosen: dict[str, int | None] = {"c": one, "y": None, "x": None}
        others = [name for name in self.names if name not in chosen]
        for name, n in reversed(list(zip(others, self.frames(0), strict=True))):
            frame, chosen[name] = divmod(frame, n)
        where = [chosen[name] for name in self.names]
        plane = read_plane(self.arrays[level], where, self.store.name, options.max_pixels)
        kept = [name for name in self.names if chosen[name] is None]
        plane = plane.transpose([kept.index(name) for name in ("y", "x", "c") if name in kept])
        if channel is None:
            return plane
        return np.broadcast_to(plane[:, :, None], (*plane.shape, n_channels))

    def side(self, level: int, name: str) -> float | None:
        """Return the side of a pixel along an axis, nm."""
        index = self.names.index(name)
        scale, is_known = 1.0, False
        for described in (self.multiscale, self.levels[level]):
            for transformation in described.get("coordinateTransformations", []):
                if transformation["type"] == "scale" and "scale" in transformation:
                    scale, is_known = scale * transformation["scale"][index], True
        return length_in_nm(scale, self.axes[index].get("unit")) if is_known else None
