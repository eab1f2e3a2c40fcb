"""Images of every readable format and layout, with wrong numbers in their headers and bytes."""

import re
import shutil
import struct
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from support.hdf5_files import velox_metadata, write_dm5, write_velox
from support.microscopy_files import DM, MRC_MODES, mrc_bytes, ser_bytes
from support.ome_zarr_folders import write_ome_zarr

from hypervlad.images import ImageReadError, PartlyReadWarning, read_micrograph
from tests.campaign.case import Case
from tests.campaign.files import damaged

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

    Each file is replaced by the next. Of an OME-Zarr folder, one file at a time is damaged.
    """
    rng = np.random.default_rng(seed)
    for number in range(_N_SOUND):
        path = folder / f"{number:02d}"
        if number % 6 == 5:
            path = path.with_suffix(".zarr")
            _write_zarr(path, rng)
            files = sorted(each for each in path.rglob("*") if each.is_file())
        else:
            path = path.with_suffix(_write_any(path, rng))
            files = [path]
        for file in files:
            sound, kept = file.read_bytes(), tuple(sorted(folder.glob(f"{path.stem}.*")))
            case = Case(file.name, partial(attack, path), kept)
            yield case
            fields = _tiff_fields(sound) if path.suffix == ".tif" else []
            for change in range(_N_DAMAGED):
                if fields and change % 2 == 0:
                    file.write_bytes(_with_field(sound, fields, rng))
                elif file.name.startswith((".", "zarr")) and change % 3:
                    file.write_bytes(_with_number(sound, rng))
                else:
                    file.write_bytes(damaged(sound, rng))
                yield case
            file.write_bytes(sound)
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _write_zarr(path: Path, rng: np.random.Generator) -> None:
    levels = [_pixels(rng, str(rng.choice(["u1", "u2", "f4", "?"]))) for _ in range(2)]
    if rng.random() < 0.3:
        write_ome_zarr(path, levels, version="0.5", chunks=(16, 16), shards=(32, 32))
    else:
        version = str(rng.choice(["0.4", "0.5"]))
        write_ome_zarr(path, levels, version=version, chunks=(16, 16))


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


def _write_pillow(stem: Path, rng: np.random.Generator) -> str:
    suffix = str(rng.choice(list(_PILLOW)))
    mode = str(rng.choice(_PILLOW[suffix]))
    image = Image.fromarray(_pixels(rng, "u2" if mode == "I;16" else "u1"))
    image = image if mode == "I;16" else image.convert(mode)
    several = {"save_all": True, "append_images": [image] * 2}
    many = rng.random() < 0.2 and suffix in ("png", "gif", "webp")
    image.save(stem.with_suffix(f".{suffix}"), **(several if many else {}))
    return f".{suffix}"


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
