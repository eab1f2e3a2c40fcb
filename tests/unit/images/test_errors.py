"""Invalid input: each kind has a message that names the image and says what to do."""

import io
import os
import re
import struct
import sys
import tracemalloc
from pathlib import Path
from unittest.mock import Mock

import h5py
import ncempy.io  # noqa: F401 - starts a process on import, which a unit test must not do
import numpy as np
import pytest
import tifffile
from PIL import PngImagePlugin
from support.golden import values
from support.microscopy_files import DM, mrc_bytes, ser_bytes
from support.raster_headers import (
    claiming,
    jp2_boxes,
    jp2_bytes,
    pillow_bytes,
    png_bytes,
    siz_bytes,
)

from hypervlad.images import ImageReadError, find_images, read_image, read_micrographs

GREY, GREY16, RGB = values("u1"), values("u2"), values("u1", samples=3)
LARGE = (65000, 65000)


def tiff_bytes(height, width, *, bits=8, samples=1, depth=1, tile=0):
    """A TIFF of deflated samples, one strip or tile, with any numbers in its header."""
    tags = {256: width, 257: height, 258: bits, 259: 8, 262: 1, 277: samples, 32997: depth}
    tags |= {322: tile, 323: tile, 324: 8, 325: 40} if tile else {278: height, 273: 8, 279: 40}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    head = b"II*\0" + struct.pack("<I", 48) + b"x" * 40
    return head + struct.pack("<H", len(tags)) + entries + bytes(4)


def tiff(tags, pillow="", **options):
    """A sound TIFF with other numbers in tags of its first page; a float is a share of them."""
    stream = io.BytesIO(pillow_bytes("TIFF", GREY, compression=pillow) if pillow else b"")
    if not pillow:
        tifffile.imwrite(stream, GREY, photometric="minisblack", **options)
    content = bytearray(stream.getvalue())
    with tifffile.TiffFile(io.BytesIO(content)) as opened:
        for code, value in tags.items():
            tag = opened.pages[0].tags[code]
            number = int(value * np.ravel(tag.value)[0]) if isinstance(value, float) else value
            struct.pack_into("<H", content, tag.valueoffset, number)
    return bytes(content)


def dm():
    content = (made := DM(3)).file(GREY16)
    for side, claimed in zip(GREY16.shape, LARGE, strict=True):
        content = content.replace(made.int("", side), made.int("", claimed))
    return content


def dm5(shape, chunks):
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        options = {"chunks": chunks, "maxshape": (None, None)}
        file.create_dataset("ImageList/[0]/ImageData/Data", shape, np.uint16, **options)
    return stream.getvalue()


JPEG, JP2 = pillow_bytes("JPEG", GREY), pillow_bytes("JPEG2000", GREY)
WEBP = pillow_bytes("WEBP", RGB, lossless=True)
MRC, SER = mrc_bytes(GREY16[None]), ser_bytes([GREY16])
JP2_HEAD, PPM16 = jp2_boxes(JP2)[:-1], RGB.astype(">u2").tobytes()
REFUSED = r"65000 x 65000 pixels is more than max_pixels=400,000,000; crop or bin"
DAMAGED, SHORT = "damaged or truncated ", "truncated TIFF: its header describes pixel data"
SAMPLES = "400 samples of uint8 per pixel, declared as MINISBLACK, is neither grey nor RGB"
# name: the content of a.png, or of another name, and what the message says
CONTENTS = {
    "empty": (b"", "the file is empty"),
    "web page": (b"<!DOCTYPE html>", "a web page"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\n", "run 'git lfs pull'"),
    "zip": (b"PK\x03\x04" + bytes(90), "a ZIP archive .*; unpack it"),
    "emi": (b"JK\x00\x02\x00", r"give the .ser file of its name"),
    "hdf5": (b"\x89HDF\r\n\x1a\n", f"{DAMAGED}HDF5 file"),
    "spectra": (SER.replace(b"\x22\x41", b"\x20\x41", 1), "a SER file of spectra, .*leave it out"),
    **{
        f"mrc {mode} {flags}": (
            mrc_bytes(GREY16[None], mode=mode, imod_flags=flags),
            rf"an MRC file of mode \d+ \(.*{what}.*\); export it as TIFF",
        )
        for mode, flags, what in [
            *((4, None, "complex"), (16, None, "RGB"), (101, None, "4 bits"), (0, 17, "4 bits")),
            (9, 0, "no MRC"),
        ]
    },
    "ppm of 16 bits": (b"P6 #" + bytes(600) + b"\n18 21 65535\n" + PPM16, "a PPM file of 16 bits"),
    # Pillow takes minutes to remove many of them.
    "ppm of comments": (b"P3 1 1 255\n" + b"#\n" * 300_000 + b"1 2 3", "comments among its pixels"),
    # TIFF headers that do not fit
    "compression": (tiff({259: 34887}), "a TIFF of compression LERC, which is not read; save"),
    "a strip less": (tiff({257: 120}, rowsperstrip=20, compression="lzw"), "truncated TIFF"),
    **{f"larger {c}": (tiff({257: 8, 278: 8}, compression=c), SHORT)
       for c in ("jpeg", "jpeg2000", "png")},
    **{f"{c} {keep}": (tiff({279: keep}, c), "damaged or truncated|truncated TIFF")
       for c in ("tiff_lzw", "packbits", "tiff_adobe_deflate", "jpeg")
       for keep in (0.1, 0.5, 0.9, 0.98)},
    # Headers that claim more than there is
    "png rgb": (png_bytes(19000, 19000, 8, 2), "of 3 bytes, counted as 1,083,000,000 of 4 bytes"),
    "tiff samples": (tiff_bytes(4000, 4000, samples=400), SAMPLES),
    "tiff depth": (tiff_bytes(2000, 2000, depth=1000), "a TIFF page of 1000 planes .*; split it"),
    "tiff tile": (tiff_bytes(16, 16, tile=65536), "tiles: 1 x 4294967296 pixels"),
    "ppm": (b"P6 19000 19000 255\n" + bytes(99), "19000 x 19000 pixels of 3 bytes"),
    "jpeg": (claiming(JPEG, b"\xff\xc0", 5, ">HH", *LARGE), REFUSED),
    "jp2 box": (claiming(JP2, b"ihdr", 4, ">II", *LARGE), REFUSED),
    "jp2 image": (jp2_bytes([*JP2_HEAD, (b"jp2c", siz_bytes(*LARGE, [8]))]), REFUSED),
    # Pillow 13 compares the size with its own limit, earlier ones leave that to libwebp and to us.
    "webp": (claiming(WEBP, b"VP8L", 9, "<I", 2**28 - 1), "exceeds limit|16384 x 16384 pixels of"),
    "dm3": (dm(), REFUSED),
    "mrc": (claiming(MRC, b"MAP ", -208, "<II", *LARGE), REFUSED),
    "ser": (claiming(SER, struct.pack("<II", 18, 21), 0, "<II", *LARGE), REFUSED),
    "dm5": (dm5(LARGE, (100, 100)), REFUSED),
    "dm5 chunk": (dm5((16, 16), (65000, 16000)), "chunks: 1 x 1040000000 pixels"),
}  # fmt: skip


def check(words, read, source):
    """Return the message of an error: one line that contains these words."""
    with pytest.raises(ImageReadError, match=words) as error:
        read(source)
    assert re.search(r"\n|\s$|[a-z]Error", str(error.value)) is None
    return str(error.value)


@pytest.mark.parametrize("case", CONTENTS)
def test_files_that_are_not_read_say_why(tmp_path, case):
    content, words = CONTENTS[case]
    path = tmp_path / (case if case.startswith("a.") else "a.png")
    path.write_bytes(content)
    tracemalloc.start()
    try:
        assert check(words, read_image, path).startswith(f"{path}: ")
        assert tracemalloc.get_traced_memory()[1] < 10e6, "it was decoded, or much was allocated"
    finally:
        tracemalloc.stop()
    with pytest.raises(ImageReadError):
        read_image(path, channel=0)


PATHS = {
    "no.png": "no such file; check the path",
    "": "a folder, not an image file; hypervlad.images.",
    "nul\0.png": "cannot be opened",
    "a" * 5000: r"cannot be opened \(File name too long\)",
    "pipe.png": "not a regular file",
    "link.png": "a link to .*unmounted, which is not there",
}


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.skipif(sys.platform == "win32", reason="links, pipes, long names")
def test_paths_that_are_no_files(tmp_path, name):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "unmounted")
    path = f"{tmp_path}/{name}" if name else str(tmp_path)
    assert check(PATHS[name], read_image, path).startswith(f"{path}: ")
    if name == "link.png":
        check(PATHS[name], find_images, path)


def test_permission_and_memory(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(pillow_bytes("PNG", GREY))
    with monkeypatch.context() as patch:
        patch.setattr(PngImagePlugin, "PngImageFile", Mock(side_effect=MemoryError))
        check(rf"^{path}: not enough memory to decode it; crop", read_image, path)
    monkeypatch.setattr(Path, "open", Mock(side_effect=PermissionError(13, "Permission denied")))
    check(rf"^{path}: permission denied; ask for read access", read_image, path)


class Stubborn:
    def __array__(self, dtype=None, copy=None):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


NOT_FINITE = np.array([[0, np.nan], [np.inf, 1]], "longdouble")
ARRAYS = {
    "none": (None, {}, "image: expected a path or an array, got NoneType"),
    "list": ([[0, 1], [1, 0]], {}, "got list; read_image takes one image, read_micrographs a list"),
    "bytes": (b"a.png", {}, "got bytes"),
    "address": ("https://example.org/a.png", {}, "^https://example.org/a.png: a web address"),
    "no pixels": (np.zeros((0, 5)), {}, r"image: an array of shape \(0, 5\) has no pixels"),
    "two channels": (np.zeros((40, 50, 2)), {}, r"an array of shape \(40, 50, 2\)"),
    "not finite": (NOT_FINITE, {}, "1 NaN and 1 infinite values among 4 pixel values; replace"),
    "complex": (np.zeros((4, 4), complex), {}, r"complex pixels \(complex128\), as of a Fourier"),
    "text": (np.full((4, 4), "a"), {}, r"an array of text \(<U1\), not of pixels"),
    "on a gpu": (Stubborn(), {}, r"does not convert to a NumPy array \(can't convert cuda:0"),
    "absurd": (np.broadcast_to(np.uint8(0), (10**6, 10**6)), {}, "1000000 x 1000000 pixels is mor"),
    "page of an array": (GREY, {"page": 1}, r"an array has one page: pass stack\[page\]"),
    "negative page": (GREY, {"page": -1}, "page must be a whole number of at least 0 or None"),
    "mistyped option": (GREY, {"scalling": "auto"}, r"did you mean 'scaling'\?"),
    "banner": (GREY, {"banner": True}, "banner must be one of 'keep', 'remove', not True"),
    "too large": (GREY, {"max_pixels": 377}, "more than max_pixels=377; crop or bin"),
    "pixel_size zero": (GREY, {"pixel_size": 0}, "pixel_size must be .* above 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", ARRAYS)
def test_bad_arrays_and_options(case):
    source, options, words = ARRAYS[case]
    check(words, lambda each: read_image(each, **options), source)


def test_an_image_of_the_largest_size_is_read():
    """In grey pixels of up to 32 bits."""
    for image, n in ((GREY, 378), (GREY16, 378), (RGB, 3 * 378), (GREY.astype("f8"), 2 * 378)):
        assert read_image(image, max_pixels=n).shape == image.shape
        with pytest.raises(ImageReadError):
            read_image(image, max_pixels=n - 1)


LISTS = {
    "bare path": ("a.png", "a.png: expected a list of images, got one path; wrap it in a list"),
    "one grey image": (GREY, r"got one image of shape \(21, 18\); wrap it in a list: \[image\]"),
    "empty": ([], "image list: the list is empty; give at least one image"),
    "set": ({"a.png"}, "expected a list of paths or arrays, got set"),
    "generator": ((name for name in "ab"), "got generator; wrap one image in a list, turn a"),
    "fourth": ([GREY] * 3 + [GREY[:0]], r"^image 3 of the list \(counted from 0\): an array"),
}  # fmt: skip


@pytest.mark.parametrize("case", LISTS)
def test_bad_lists(case):
    images, words = LISTS[case]
    check(words, lambda each: list(read_micrographs(each)), images)
