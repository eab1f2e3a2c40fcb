"""Images of every readable format and layout, with wrong numbers in their headers and bytes."""

from __future__ import annotations

import re
import shutil
import struct
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from support.hdf5_files import velox_metadata, write_dm5, write_velox
from support.instrument_files import SIDECARS, TIFFS
from support.microscopy_files import DM, MRC_MODES, mrc_bytes, ser_bytes
from support.ome_zarr_folders import write_ome_zarr
from support.raster_headers import jp2_boxes, jp2_bytes, siz_bytes

from hypervlad.images import ImageReadError, PartlyReadWarning, read_micrograph
from tests.campaign.case import Case
from tests.campaign.damaged_files import damaged

_N_SOUND = 12  # images of each seed
_N_DAMAGED = 15  # files made of each of them

_DTYPES = ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "c8", "?"]
_COMPRESSIONS = [None, "lzw", "zlib", "packbits", "zstd", "lzma", "jpeg", "jpeg2000", "png", "webp"]
_LAYOUTS: list[dict[str, Any]] = [{}, {"rowsperstrip": 8}, {"tile": (16, 16)}, {"bigtiff": True}]
_PHOTOMETRICS = ["minisblack", "miniswhite", "rgb", "separated", "palette"]
_FIELD_NUMBERS = [0, 1, 2, 3, 4, 7, 8, 16, 64, 255, 400, 1000, 19000, 65535, 2**31 - 1, 2**32 - 1]
_PILLOW = {
    "png": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
    "bmp": ["1", "L", "P", "RGB"],
    "gif": ["L", "P", "RGB"],
    "webp": ["RGB", "RGBA"],
    "jp2": ["L", "LA", "RGB", "RGBA", "I;16"],
    "jpg": ["L", "RGB", "CMYK"],
    "ppm": ["1", "L", "RGB", "I;16"],
}


def cases(seed: int, folder: Path) -> Iterator[Case]:
    """Write images of random formats and layouts, each sound at first, then damaged in many ways.

    Each file is replaced by the next.
    """
    rng = np.random.default_rng(seed)
    for number in range(_N_SOUND):
        path = folder / f"{number:02d}"
        path = path.with_suffix(_write_any(path, rng))
        case = Case(path.name, partial(attack, path), tuple(sorted(folder.glob(f"{path.stem}.*"))))
        yield case
        sound = path.read_bytes()
        for change in range(_N_DAMAGED):
            fields = _tiff_fields(sound) if path.suffix == ".tif" else []
            is_field = bool(fields) and change % 2 == 0
            content = _with_field(sound, fields, rng) if is_field else damaged(sound, rng)
            path.write_bytes(content)
            yield case
        path.unlink()


def folders(seed: int, folder: Path) -> Iterator[Case]:
    """Write OME-Zarr folders, and damage one file or one number in it at a time."""
    rng = np.random.default_rng(seed)
    for number in range(_N_SOUND):
        path = folder / f"{number}.zarr"
        chunks: dict[str, Any] = {"chunks": (16, 16)}
        if rng.random() < 0.3:
            chunks |= {"shards": (32, 32)}
        version = "0.5" if "shards" in chunks else str(rng.choice(["0.4", "0.5"]))
        levels = [_pixels(rng, str(rng.choice(["u1", "u2", "f4", "?"]))) for _ in range(2)]
        write_ome_zarr(path, levels, version=version, **chunks)
        for file in sorted(each for each in path.rglob("*") if each.is_file()):
            sound, case = file.read_bytes(), Case(str(file), partial(attack, path), (file,))
            yield case
            for change in range(_N_DAMAGED):
                is_number = file.name.startswith((".", "zarr")) and change % 3
                file.write_bytes(_with_number(sound, rng) if is_number else damaged(sound, rng))
                yield case
            file.write_bytes(sound)
        shutil.rmtree(path)


def _with_number(text: bytes, rng: np.random.Generator) -> bytes:
    numbers = list(re.finditer(rb"\d+", text))
    if not numbers:
        return text
    start, end = numbers[rng.integers(len(numbers))].span()
    return text[:start] + b"%d" % rng.choice([-1, *_FIELD_NUMBERS]) + text[end:]


def attack(path: Path) -> None:
    """An image, its second page and its first channel are read, or refused."""
    for options in ({}, {"page": 1}, {"channel": 0, "banner": "remove"}):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", PartlyReadWarning)
                found = read_micrograph(path, **options)
        except ImageReadError:
            continue
        assert np.isfinite(found.pixels).all()
        assert found.pixels.min() >= 0
        assert found.pixels.max() <= 1


def _write_any(stem: Path, rng: np.random.Generator) -> str:
    """Write a sound image, and return its suffix."""
    writers: list[Callable[[Path, np.random.Generator], str]]
    writers = [_write_tiff] * 4 + [_write_pillow] * 3 + [_write_microscopy, _write_hdf5]
    writers += [_write_pnm, _write_jpeg_2000, _write_stack, _write_instrument]
    while True:
        try:
            return writers[rng.integers(len(writers))](stem, rng)
        except (ValueError, TypeError, KeyError, RuntimeError, OSError, struct.error):
            continue  # a combination that no package writes


def _pixels(rng: np.random.Generator, dtype: str, *channels: int) -> NDArray[Any]:
    shape = (int(rng.integers(1, 40)), int(rng.integers(1, 40)), *channels)
    return (rng.integers(0, 256, shape) * rng.choice([1, 250])).astype(dtype)


def _write_tiff(stem: Path, rng: np.random.Generator) -> str:
    photometric = str(rng.choice(_PHOTOMETRICS))
    n_samples = {"rgb": 3, "separated": 4}.get(photometric, 1) + int(rng.choice([0, 0, 0, 1, 4]))
    pixels = _pixels(rng, str(rng.choice(_DTYPES)), *([n_samples] if n_samples > 1 else []))
    planar = "contig"
    if n_samples > 1 and rng.random() < 0.3:
        pixels, planar = np.ascontiguousarray(np.moveaxis(pixels, -1, 0)), "separate"
    options = dict(_LAYOUTS[rng.integers(len(_LAYOUTS))])
    if photometric == "palette":
        options["colormap"] = rng.integers(0, 65536, (3, 256)).astype(np.uint16)
    if n_samples > 1:
        options["planarconfig"] = planar
    with tifffile.TiffWriter(
        stem.with_suffix(".tif"),
        bigtiff=options.pop("bigtiff", False),
        byteorder=rng.choice(["<", ">"]),
    ) as writer:
        for _ in range(int(rng.choice([1, 1, 3]))):
            writer.write(
                pixels,
                photometric=photometric,
                compression=_COMPRESSIONS[rng.integers(len(_COMPRESSIONS))],
                predictor=bool(rng.random() < 0.2),
                **options,
            )
    return ".tif"


def _write_instrument(stem: Path, rng: np.random.Generator) -> str:
    """Write a TIFF of an instrument, and beside it a damaged text of another."""
    write, *_ = list(TIFFS.values())[rng.integers(len(TIFFS))]
    write(stem.with_suffix(".tif"))
    end, text = SIDECARS[rng.integers(len(SIDECARS))]
    stem.with_suffix(end).write_bytes(damaged(text.encode(), rng))
    return ".tif"


def _write_pillow(stem: Path, rng: np.random.Generator) -> str:
    suffix = str(rng.choice(list(_PILLOW)))
    mode = str(rng.choice(_PILLOW[suffix]))
    image = Image.fromarray(_pixels(rng, "u2" if mode == "I;16" else "u1"))
    image = image if mode == "I;16" else image.convert(mode)
    several = {"save_all": True, "append_images": [image] * 2}
    many = rng.random() < 0.2 and suffix in ("png", "gif", "webp")
    image.save(stem.with_suffix(f".{suffix}"), **(several if many else {}))
    return f".{suffix}"


def _write_pnm(stem: Path, rng: np.random.Generator) -> str:
    """Write a header token by token, with blanks and comments of any length between them."""
    kind, top = int(rng.integers(1, 7)), int(rng.choice([1, 255, 256, 4095, 65535]))
    pixels = _pixels(rng, "u2", *([3] if kind in (3, 6) else []))
    numbers = [pixels.shape[1], pixels.shape[0], *([top] if kind not in (1, 4) else [])]
    header = b"P%d" % kind + b"".join(_gap(rng) + b"%d" % each for each in numbers)
    if kind > 3:
        body = pixels.astype(">u2" if top > 255 else "u1").tobytes()
    else:
        body = b"".join(b"%d" % (int(each) % (top + 1)) + _gap(rng, 0.0003) for each in pixels.flat)
    stem.with_suffix(".ppm").write_bytes(header + b"\n" + body)
    return ".ppm"


def _gap(rng: np.random.Generator, comments: float = 0.5) -> bytes:
    gap = b""
    while not gap or rng.random() < 0.3:
        gap += bytes(rng.choice(list(b" \t\n\v\f\r"), int(rng.integers(1, 40))).tolist())
        if rng.random() < comments:
            text = rng.bytes(int(2 ** rng.uniform(0, 11))).replace(b"\r", b"").replace(b"\n", b"")
            gap += b"#" + text + bytes([rng.choice(list(b"\r\n"))])
    return gap


def _write_jpeg_2000(stem: Path, rng: np.random.Generator) -> str:
    """Write boxes in any order, with sizes that are none among them."""
    n_bits, n_channels = int(rng.integers(1, 17)), int(rng.integers(1, 5))
    pixels = _pixels(rng, "u2", n_channels).squeeze() >> (16 - n_bits)
    content = imagecodecs.jpeg2k_encode(
        pixels.astype("u1" if n_bits <= 8 else "u2"), codecformat="jp2", bitspersample=n_bits
    )
    signature, *boxes = jp2_boxes(content)
    depths = [int(depth) for depth in rng.integers(1, 39, rng.integers(1, 5))]
    sides = [int(side) for side in rng.choice(_FIELD_NUMBERS, 2)]
    decoys = [(b"xml ", siz_bytes(*sides, depths)), (b"uuid", bytes(70_000)), (b"jp2c", b"")]
    for decoy in decoys:
        if rng.random() < 0.3:
            boxes.insert(int(rng.integers(len(boxes) + 1)), decoy)
    if rng.random() < 0.2:
        boxes = [boxes[i] for i in rng.permutation(len(boxes))]
    long = frozenset(kind for kind, _ in boxes if rng.random() < 0.2)
    stem.with_suffix(".jp2").write_bytes(jp2_bytes([signature, *boxes], long))
    return ".jp2"


def _write_stack(stem: Path, rng: np.random.Generator) -> str:
    """Write a stack in one directory, which says how many images follow each other."""
    stack = np.stack([_pixels(rng, str(rng.choice(["u1", "u2", "f4"])))] * int(rng.integers(2, 5)))
    is_imagej, suffix = bool(rng.random() < 0.5), stem.with_suffix(".tif")
    tifffile.imwrite(suffix, stack, imagej=is_imagej, truncate=True, photometric="minisblack")
    if rng.random() < 0.3 and not is_imagej:
        tifffile.imwrite(suffix, stack[0], append=True)
    content = suffix.read_bytes()
    if rng.random() < 0.5:  # another number of images, in as many figures
        claimed = b"%d" % rng.choice([0, 1, 9])
        for mark in (b"images=", b'"shape": ['):
            at = content.find(mark) + len(mark)
            content = content[:at] + claimed + content[at + 1 :] if at >= len(mark) else content
        suffix.write_bytes(content)
    return ".tif"


def _write_microscopy(stem: Path, rng: np.random.Generator) -> str:
    frames = np.stack([_pixels(rng, "u2")] * int(rng.choice([1, 3])))
    suffix = str(rng.choice([".mrc", ".ser", ".dm3", ".dm4"]))
    if suffix == ".mrc":
        frames = frames.astype(str(rng.choice(list(MRC_MODES))))
        flags = rng.choice([None, 0, 1])
        content = mrc_bytes(frames, order=str(rng.choice(["<", ">"])), imod_flags=flags)
    elif suffix == ".ser":
        content = ser_bytes(list(frames), version=int(rng.choice([0x0210, 0x0220])))
    else:
        data_type, dtype = ((10, "u2"), (14, "u1"), (23, "u4"))[rng.integers(3)]
        content = DM(int(suffix[-1])).file(frames.astype(dtype), data_type=data_type)
    stem.with_suffix(suffix).write_bytes(content)
    return suffix


def _write_hdf5(stem: Path, rng: np.random.Generator) -> str:
    frames = np.stack([_pixels(rng, str(rng.choice(["u1", "u2", "f4"])))] * int(rng.choice([1, 3])))
    filters: list[dict[str, Any]]
    filters = [{}, {"compression": "gzip"}, {"compression": "lzf", "shuffle": True}]
    options = filters[rng.integers(len(filters))] | {"fletcher32": bool(rng.random() < 0.3)}
    if rng.random() < 0.5:
        options |= {"titles": ["HAADF"], "version": int(rng.choice([9, 13]))}
        write_velox(stem.with_suffix(".emd"), [(frames, velox_metadata())], **options)
        return ".emd"
    write_dm5(stem.with_suffix(".dm5"), [frames.astype("u2")], **options)
    return ".dm5"


def _tiff_fields(content: bytes) -> list[tuple[int, str]]:
    """Return where the numbers of a TIFF's directories are, with their layouts for `struct`."""
    order = "<" if content[:2] == b"II" else ">"
    is_big = content[2:4] in (b"+\0", b"\0+")
    count, entry, address = ("Q", "HHQQ", "Q") if is_big else ("H", "HHII", "I")
    (position,) = struct.unpack_from(order + address, content, 8 if is_big else 4)
    fields: list[tuple[int, str]] = []
    while position:
        (n_entries,) = struct.unpack_from(order + count, content, position)
        position += struct.calcsize(order + count)
        for _ in range(n_entries):
            (_, kind) = struct.unpack_from(order + "HH", content, position)
            for code in entry:
                is_value = code == entry[-1] and len(fields) % 4 == 3
                short = is_value and kind == 3 and order == ">"
                fields.append((position, order + ("H" if short else code)))
                position += struct.calcsize(order + code)
        (position,) = struct.unpack_from(order + address, content, position)
    return fields


def _with_field(content: bytes, fields: list[tuple[int, str]], rng: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        entry = int(rng.integers(len(fields) // 4))
        part = int(rng.choice(4, p=[0.1, 0.1, 0.1, 0.7]))  # of tag, type, count, value
        position, layout = fields[4 * entry + part]
        number = int(rng.choice(_FIELD_NUMBERS)) % 256 ** struct.calcsize(layout)
        struct.pack_into(layout, changed, position, number)
    return bytes(changed)
