"""Images in HDF5 files: EMD of Velox and of Berkeley, and Gatan's DM5."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, TypeAlias
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from hypervlad.common.files import parse_json
from hypervlad.common.limits import (
    MAX_HDF5_OBJECTS,
    MAX_HEAP_READ,
    MAX_HEAP_TEXTS,
    MAX_VELOX_TEXT,
    MAX_VELOX_TEXTS,
)
from hypervlad.common.wording import name_some
from hypervlad.images.chunks import (
    ChunkedArray,
    check_stored,
    decompress,
    frame_of_page,
    not_stored,
    read_plane,
)
from hypervlad.images.errors import ImageReadError
from hypervlad.images.formats import DecodedImage, json_value, unpack_at
from hypervlad.images.metadata import Sides, length_in_nm
from hypervlad.images.microscopy import DM_RGB, import_extra
from hypervlad.images.options import ReadOptions
from hypervlad.images.pixels import check_size

_MIN_TEXT = 1 << 10  # bytes of a chunk of text, as one takes as long
_HEAP = b"GCOL\x01\0\0\0"
_SHUFFLE, _CHECKSUM = 2, 3  # filters by their registered numbers
_COMPRESSORS = {1: "zlib", 32000: "lzf", 32001: "blosc", 32015: "zstd"}
_AXIS = re.compile(r"(?:.*[_ ]|[RQ])?([xy])", re.IGNORECASE)  # x, R_x or Qx

#: Sides of a pixel and metadata.
Description: TypeAlias = tuple[Sides, dict[str, Any]]


@dataclass
class _StoredImage:
    data: Any  # h5py.Dataset
    down: int  # the axis of rows
    across: int
    describe: Callable[[int], Description]  # of a frame
    colours: int | None = None  # the axis of colours
    is_packed: bool = False  # whether a value is four bytes: blue, green, red, alpha

    @property
    def frames(self) -> dict[int, int]:
        """The other axes, with their lengths."""
        own = (self.down, self.across, self.colours)
        return {axis: n for axis, n in enumerate(self.data.shape) if axis not in own}

    @property
    def n_frames(self) -> int:
        return math.prod(self.frames.values())


def decode_hdf5(file: BinaryIO, options: ReadOptions, name: str) -> DecodedImage:
    """Decode one frame of all images of an HDF5 file; see `Reader`.

    Nothing outside the file is opened.
    """
    h5py = import_extra("h5py", "HDF5", name)
    with h5py.File(_CheckedFile(file), "r") as root:
        kind, images = _Finder(h5py, root, name).find()
        n_frames = [image.n_frames for image in images]
        number, frame, pages = frame_of_page(n_frames, options.page or 0, name)
        image = images[number]
        pixels = _read_frame(image, frame, name, options.max_pixels)
        sides, facts = image.describe(frame)
    return DecodedImage.of(kind, pixels, sides, **pages, **facts)


class _CheckedFile:
    """An open file that refuses heaps of texts in which the HDF5 library would search for ever."""

    def __init__(self, file: BinaryIO) -> None:
        self.file: Any = file
        self.read, self.seek, self.tell = file.read, file.seek, file.tell
        self.n_left = MAX_HEAP_TEXTS

    def readinto(self, buffer: memoryview) -> int:
        start = self.tell()
        n_read: int = self.file.readinto(buffer)
        if len(buffer) <= MAX_HEAP_READ:
            # The library may have read the first bytes of the mark before.
            before = max(start - len(_HEAP), 0)
            self.seek(before)
            for heap in re.finditer(_HEAP, self.read(start + n_read - before)):
                self.check_heap(before + heap.start())
        self.seek(start + n_read)
        return n_read

    def check_heap(self, start: int) -> None:
        (n_bytes,) = unpack_at(self.file, start + len(_HEAP), "<Q")
        position = 16
        while position + 16 <= n_bytes:
            number, length = unpack_at(self.file, start + position, "<H6xQ")
            step = 16 + -(-length // 8) * 8 if number else length
            self.n_left -= 1
            if not 0 < step <= n_bytes - position or self.n_left < 0:
                raise ValueError("a heap of texts without an end")
            position += step


def _read_frame(image: _StoredImage, frame: int, name: str, max_pixels: int | None) -> NDArray[Any]:
    shape, n_bytes = image.data.shape, image.data.dtype.itemsize
    n_colours = 3 if image.is_packed else 1 if image.colours is None else shape[image.colours]
    check_size(shape[image.down], shape[image.across], name, max_pixels, n_colours, n_bytes)
    where: list[int | None] = [None] * len(shape)
    for axis, n in reversed(image.frames.items()):
        frame, where[axis] = divmod(frame, n)
    pixels = _read(image.data, where, name, max_pixels)
    if image.is_packed:
        return pixels.astype("<u4").view("u1").reshape(*pixels.shape, 4)[..., 2::-1]
    return pixels.T if image.down > image.across else pixels


def _read(data: Any, where: list[int | None], name: str, max_pixels: int | None) -> NDArray[Any]:
    """Read a part of a dataset like `read_plane`.

    Chunks are decoded here: the HDF5 library would decode a chunk of any size.
    """
    if data.chunks is None:
        if not data.id.get_storage_size():
            raise not_stored(name)
        found: NDArray[Any] = data[tuple(slice(None) if at is None else at for at in where)]
        return found
    plist, dtype, chunks = data.id.get_create_plist(), data.dtype, data.chunks
    filters = [plist.get_filter(index) for index in range(plist.get_nfilters())]
    for number, _, _, label in filters:
        if number not in (_SHUFFLE, _CHECKSUM, *_COMPRESSORS):
            raise ImageReadError(
                f"{name}: its image is stored with the HDF5 filter {number} "
                f"({label.decode(errors='replace')!r}), which is not read; 'h5repack -f GZIP=1' "
                "writes a copy that is"
            )
    n_bytes = math.prod(chunks) * dtype.itemsize

    def read_chunk(place: tuple[int, ...]) -> NDArray[Any] | None:
        start = tuple(p * c for p, c in zip(place, chunks, strict=True))
        info = data.id.get_chunk_info_by_coord(start)
        if info.byte_offset is None:
            return None
        check_stored(info.size, n_bytes)
        skipped, content = data.id.read_direct_chunk(start)
        for index, (number, *_) in reversed(list(enumerate(filters))):
            if skipped >> index & 1:
                continue
            if number == _CHECKSUM:
                content = content[:-4]
            elif number == _SHUFFLE:
                content = np.frombuffer(content, "u1").reshape(dtype.itemsize, -1).T.tobytes()
            else:
                content = decompress(_COMPRESSORS[number], content, n_bytes + 4)
        return np.frombuffer(content, dtype).reshape(chunks)

    array = ChunkedArray(data.shape, chunks, dtype, read_chunk, data.fillvalue)
    return read_plane(array, where, name, max_pixels)


class _Finder:
    """Finds the images of a file, through hard links only."""

    def __init__(self, h5py: Any, root: Any, name: str) -> None:
        self.h5py, self.root, self.name = h5py, root, name
        self.left_out: list[str] = []
        self.n_texts = 0  # bytes

    def find(self) -> tuple[str, list[_StoredImage]]:
        """Return the format, and the images in the order of their pages."""
        gatan, velox = (self.member(self.root, path) for path in ("ImageList", "Data"))
        if gatan is not None:
            kind, images = "DM5", list(self.gatan(gatan))
            other = "a Gatan file without an image, or of spectra only; leave it out"
        elif any(re.match("Image|.*Spectrum", key) for key in self.names(velox)):
            kind, images = "EMD", self.velox(velox)
            found = name_some(self.left_out)
            other = f"a Velox file without an image that is read ({found}); export one as TIFF"
        else:
            kind, images = "EMD", list(self.berkeley())
            arrays = [each.name for each in self.objects() if isinstance(each, self.h5py.Dataset)]
            found = f"with {name_some(list(map(repr, arrays)))}" if arrays else "it has no arrays"
            other = (
                "an HDF5 file without an image of EMD (Velox, Berkeley 0.2) or DM5 "
                f"({found}); export the image as TIFF from the program that wrote it, or "
                'with python -c "import h5py, tifffile; '
                "tifffile.imwrite('NAME.tif', h5py.File('NAME.h5')['ARRAY'][()])\""
            )
        if not images:
            raise ImageReadError(f"{self.name}: {other}")
        return kind, images

    def member(self, group: Any, path: str) -> Any:
        """Return a group or a dataset; None if there is none."""
        for part in path.split("/"):
            link = group.get(part, getlink=True) if isinstance(group, self.h5py.Group) else None
            if link is None:
                return None
            if not isinstance(link, self.h5py.HardLink):
                raise ImageReadError(
                    f"{self.name}: {part!r} is a link to another place or file, and links are not "
                    "followed; export the image as TIFF"
                )
            group = group[part]
        return group

    def names(self, group: Any) -> list[str]:
        if not isinstance(group, self.h5py.Group):
            return []
        if len(group) > MAX_HDF5_OBJECTS:
            raise self.too_many()
        # Of Gatan's lists, [10] comes after [9].
        return sorted(group, key=lambda name: (len(name) if name[0] == "[" else 0, name))

    def too_many(self) -> ImageReadError:
        return ImageReadError(
            f"{self.name}: an HDF5 file of more than {MAX_HDF5_OBJECTS:,} groups and arrays, which "
            "is not searched; export the image as TIFF"
        )

    def members(self, group: Any) -> Iterator[tuple[str, Any]]:
        return ((name, self.member(group, name)) for name in self.names(group))

    def dataset(self, group: Any, path: str, kinds: str = "biufc") -> Any:
        """Return a dataset of numbers; None if there is none."""
        data = self.member(group, path)
        if not isinstance(data, self.h5py.Dataset):
            return None
        if data.is_virtual or data.external:
            raise ImageReadError(
                f"{self.name}: the values of {data.name!r} are in other files, which are not "
                "opened; export the image as TIFF"
            )
        return data if data.dtype.kind in kinds else None

    def velox(self, data: Any) -> list[_StoredImage]:
        images, titles = [], self.velox_titles()
        self.left_out = [name for name in self.names(data) if name not in ("Image", "Text")]
        for name, group in self.members(self.member(data, "Image")):
            pixels = self.dataset(group, "Data")
            if pixels is None or pixels.ndim not in (2, 3):  # pairs of numbers, mostly
                self.left_out.append("an image of complex values")
            else:
                describe = partial(self.describe_velox, group, titles.get(name, ""))
                images.append(_StoredImage(pixels, 0, 1, describe))

        def order(image: _StoredImage) -> tuple[Any, ...]:
            facts, pixels = image.describe(0)[1], image.data
            names = facts["title"] or facts["detector"], facts["detector"]
            return pixels.dtype.kind == "f", not names[0], *names, -math.prod(pixels.shape[:2])

        return sorted(images, key=order)

    def velox_titles(self) -> dict[str, str]:
        """Return the title under which Velox shows an image, by the name of its group."""
        titles = {}
        for path in ("Presentation/Displays", "Displays"):  # before version 11, and from then on
            shown = self.member(self.root, f"{path}/ImageDisplay")
            for name in self.names(shown):
                display = self.velox_text(shown, name)
                title = _entry(display, "title") or _entry(display, "display", "label")
                reference = str(_entry(display, "data")).strip("/")
                place = _entry(display, "dataPath") or _entry(
                    self.velox_text(self.root, reference), "dataPath"
                )
                titles[str(place).rpartition("/")[2]] = unquote(str(title or ""))
        return titles

    def velox_text(self, group: Any, path: str) -> Any:
        """Return JSON of a dataset of one text; None if there is none."""
        text = self.dataset(group, path, "O")
        # In one chunk of one value, without a filter, which the HDF5 library would decode.
        is_small = text is not None and text.shape == (1,) and text.chunks in (None, (1,))
        if not is_small or text.id.get_create_plist().get_nfilters():
            return None
        content = text[0]
        return self.parsed(content, len(content)) if isinstance(content, bytes) else None

    def parsed(self, text: bytes, n_bytes: int) -> Any:
        """Return JSON of a text, for which `n_bytes` were decoded; None if it is none."""
        self.n_texts += n_bytes
        if self.n_texts > MAX_VELOX_TEXTS:
            raise ImageReadError(
                f"{self.name}: a Velox file whose images have more than {MAX_VELOX_TEXTS:,} bytes "
                "of metadata; export the image as TIFF"
            )
        with suppress(ValueError):
            return parse_json(text)
        return None

    def describe_velox(self, group: Any, title: str, frame: int) -> Description:
        texts = self.dataset(group, "Metadata", "u")  # a text in each column, padded with zeros
        facts: Any = {}
        if texts is not None and texts.ndim == 2 and texts.shape[0] <= MAX_VELOX_TEXT:
            chunks = texts.chunks or (texts.shape[0], 1)
            n_chunks = -(-texts.shape[0] // chunks[0])
            where = [None, min(frame, texts.shape[1] - 1)]
            column = _read(texts, where, self.name, MAX_VELOX_TEXT)
            text = column.astype("u1").tobytes().partition(b"\0")[0]
            facts = self.parsed(text, n_chunks * max(math.prod(chunks), _MIN_TEXT))
        result = _entry(facts, "BinaryResult")
        number = f"Detector-{_entry(result, 'DetectorIndex')}"
        detector = _entry(result, "Detector") or _entry(facts, "Detectors", number, "DetectorName")
        across, down = (
            length_in_nm(_entry(result, "PixelSize", side), _entry(result, f"PixelUnit{axis}"))
            for side, axis in (("width", "X"), ("height", "Y"))
        )
        names = {"title": title, "detector": str(detector or ""), "left_out": self.left_out}
        return (across, down), {**names, "velox": facts}

    def gatan(self, listed: Any) -> Iterator[_StoredImage]:
        thumbnails = {
            f"[{_attribute(group, 'ImageIndex')}]"
            for _, group in self.members(self.member(self.root, "Thumbnails"))
        }
        for name, group in self.members(listed):
            data = self.dataset(group, "ImageData/Data")
            if name in thumbnails or data is None:
                continue
            # Rows, columns and colours, if there are any, are the last axes.
            is_colour = _attribute(self.member(group, "ImageData"), "DataType") in DM_RGB
            colours = data.ndim - 1 if is_colour and data.dtype.itemsize == 1 else None
            across = data.ndim - 1 if colours is None else colours - 1
            content = str(_attribute(self.member(group, "ImageTags/Meta Data"), "Format"))
            is_line = across == 1 and content.startswith("Spectrum")
            if across > 0 and not is_line and 1 not in data.shape[across - 1 : across + 1]:
                describe = partial(self.describe_gatan, group)
                is_packed = is_colour and data.dtype.itemsize == 4
                yield _StoredImage(data, across - 1, across, describe, colours, is_packed)

    def describe_gatan(self, group: Any, frame: int) -> Description:
        axes = [self.member(group, f"ImageData/Calibrations/Dimension/[{axis}]") for axis in (0, 1)]
        across, down = (
            length_in_nm(_attribute(axis, "Scale"), _attribute(axis, "Units")) for axis in axes
        )
        tags = self.member(group, "ImageTags/Microscope Info")
        kept = {} if tags is None else {key: _attribute(tags, key) for key in tags.attrs}
        return (across, down), {"gatan": kept}

    def berkeley(self) -> Iterator[_StoredImage]:
        for group in self.objects():
            if _attribute(group, "emd_group_type") != 1:
                continue
            data = self.dataset(group, "data") or self.dataset(group, "realslice")  # of Prismatic
            if data is None or data.ndim < 2:
                continue
            axes = [self.dataset(group, f"dim{axis + 1}", "biuf") for axis in range(data.ndim)]
            names = (re.fullmatch(_AXIS, str(_attribute(axis, "name"))) for axis in axes)
            named = {found[1].lower(): axis for axis, found in enumerate(names) if found}
            down, across = data.ndim - 2, data.ndim - 1
            if len(named) == 2:
                down, across = named["y"], named["x"]
            describe = partial(self.describe_berkeley, axes[across], axes[down])
            yield _StoredImage(data, down, across, describe)

    def describe_berkeley(self, across: Any, down: Any, frame: int) -> Description:
        return (self.step(across), self.step(down)), {}

    def step(self, axis: Any) -> float | None:
        """Return the distance of the points of an axis, nm."""
        if axis is None or axis.ndim != 1 or not 1 < axis.size <= MAX_VELOX_TEXT:
            return None
        first, second, *_ = _read(axis, [None], self.name, MAX_VELOX_TEXT).tolist()
        return length_in_nm(abs(second - first), _attribute(axis, "units"))

    def objects(self) -> list[Any]:
        """Return groups and datasets, each once."""
        found: list[Any] = []

        def visit(_: str, item: Any) -> None:
            if len(found) == MAX_HDF5_OBJECTS:
                raise self.too_many()
            found.append(item)

        self.root.visititems(visit)
        return found


def _entry(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _attribute(item: Any, key: str) -> Any:
    """Return an attribute of a group or dataset as a JSON value; None if there is none."""
    value = None if item is None else item.attrs.get(key)
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if not isinstance(value, bytes):
        return json_value(value)
    for encoding in ("utf-8", "gb2312"):  # GMS writes that of the system
        with suppress(UnicodeDecodeError):
            return value.decode(encoding).rstrip("\0")
    return value.decode("latin-1").rstrip("\0")
