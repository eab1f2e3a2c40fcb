"""Invalid input: each kind has a message that names the image and says what to do."""

from __future__ import annotations

import logging
import os
import struct
from pathlib import Path
from unittest.mock import Mock

import h5py  # noqa: F401 - starts a process on import, which a unit test must not do
import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from hypervlad.images import ImageReadError, find_images, read_image, read_micrographs
from hypervlad.images.reading import check_image_list

GREY = np.random.default_rng(0).integers(0, 256, (60, 80), dtype=np.uint8)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def encoded(path: Path, keep: float = 1.0, **kwargs) -> Path:
    """GREY written by Pillow, cut to its first `keep` share of bytes."""
    Image.fromarray(GREY).save(path, **kwargs)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    return path


def tiff(path: Path, keep: float = 1.0, image=GREY, **kwargs) -> Path:
    tifffile.imwrite(path, image, photometric="minisblack", **kwargs)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    return path


class BytesPath:
    def __fspath__(self):
        return b"a.png"


class Stubborn:
    def __array__(self, dtype=None, copy=None):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


def with_nan(dtype="float32"):
    image = np.zeros((4, 5), dtype=dtype)
    image[1, 2] = np.nan
    image[3, 3] = np.inf
    return image


# name: (content, what the message must say)
CONTENTS = {
    "empty": (b"", "the file is empty"),
    "text": (b"Dear reader", "not an image"),
    "web page": (b"<!DOCTYPE html>", "a web page"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "zip": (b"PK\x03\x04" + bytes(90), "a ZIP archive"),
    "pdf": (b"%PDF-1.7\n", "a PDF document; export"),
    "npy": (b"\x93NUMPY\x01\x00", "np.load"),
    "hdf5": (b"\x89HDF\r\n\x1a\n", "damaged or truncated HDF5 file"),
    "emi": (b"JK\x00\x02\x00", "give the .ser file of its name"),
    "bcf": (b"AAMVHFSS\xfe\xff", "tiff, bruker; image = bruker.file_reader('"),
    "jeol": (b"4\0\0\0JED-2200:LibJx", "a file of JEOL (.img, .map); convert it in Python: pip"),
}
# name: (what makes the source, what the message must say)
FILES = {
    "missing": (lambda d: d / "no.png", "no such file; check"),
    "panta rhei": (
        lambda d: written(d / "a.prz", b"PK\x03\x04-\0"),
        "tifffile.imwrite('a.tif', numpy.load('a.prz')['data'])",
    ),
    "folder": (lambda d: d, "a folder, not an image file; hypervlad.images."),
    "flipped png bytes": (
        lambda d: written(d / "b.png", encoded(d / "a.png").read_bytes().replace(b"IDAT", b"IDAZ")),
        "damaged or truncated PNG",
    ),
    "truncated tiff": (lambda d: tiff(d / "a.tif", 0.7), "truncated TIFF"),
    "truncated tiff header": (lambda d: tiff(d / "a.tif", 0.02), "damaged or truncated TIFF"),
    "volumetric tiff page": (
        lambda d: tiff(
            d / "a.tif", image=np.zeros((4, 32, 32), "u1"), volumetric=True, tile=(2, 16, 16)
        ),
        "a TIFF page of 4 planes (ImageDepth), not one image; split",
    ),
    "nul in path": (lambda d: f"{d}/a\0.png", "cannot be opened"),
    "path too long": (lambda d: d / ("a" * 5000), "cannot be opened (File name too long)"),
}

ARRAYS = {
    "none": (None, {}, "image: expected a path or an array, got NoneType"),
    "list": ([[0, 1], [1, 0]], {}, "got list; read_image takes one image, read_micrographs a list"),
    "bytes": (b"a.png", {}, "got bytes"),
    "path of bytes": (BytesPath(), {}, "a path of bytes"),
    "empty path": ("", {}, "'': an empty path"),
    "web address": ("https://example.org/a.png", {}, "https://example.org/a.png: a web address"),
    "zero-sized": (np.zeros((0, 5)), {}, "image: an array of shape (0, 5) has no pixels"),
    "one-dimensional": (np.zeros(5), {}, "an array of 1 dimensions, shape (5,)"),
    "channels first": (np.zeros((3, 40, 50)), {}, "use np.moveaxis(image, 0, -1)"),
    "stack": (np.zeros((9, 40, 50)), {}, "looks like a stack, not one image"),
    "two channels": (np.zeros((40, 50, 2)), {}, "an array of shape (40, 50, 2)"),
    "nan in long double": (with_nan("longdouble"), {}, "1 NaN and 1 infinite"),
    "complex": (np.zeros((4, 4), complex), {}, "image: complex pixels (complex128), as of a F"),
    "object": (np.full((4, 4), None), {}, "an array of type object, not of numbers"),
    "text": (np.full((4, 4), "a"), {}, "an array of text (<U1), not of pixels"),
    "masked": (np.ma.masked_equal(np.eye(3), 1), {}, "a masked array with masked pixels; fill"),
    "tensor on a gpu": (Stubborn(), {}, "does not convert to a NumPy array (can't convert cuda:0"),
    "absurd": (np.broadcast_to(np.uint8(0), (10**6, 10**6)), {}, "1000000 x 1000000 pixels is mor"),
    "page of an array": (GREY, {"page": 1}, "an array has one page: pass stack[page]"),
    "negative page": (GREY, {"page": -1}, "page must be a whole number of at least 0 or None"),
    "page is text": (GREY, {"page": "first"}, "page must be a whole number"),
    "mistyped option": (GREY, {"scalling": "auto"}, "did you mean 'scaling'?"),
    "unknown option": (GREY, {"zoom": 2}, "unknown reading option 'zoom': expected one of 'page'"),
    "scaling of one": (GREY, {"scaling": (1,)}, "low < high: (0, 4095), in a shell 0:4095"),
    "scaling to infinity": (GREY, {"scaling": (0, np.inf)}, "two finite numbers"),
    "scaling is an array": (GREY, {"scaling": np.eye(2)}, "expected one of 'auto'"),
    "percentiles beyond": (GREY, {"percentiles": (1, 101)}, "0 <= lower < upper <= 100"),
    "banner": (GREY, {"banner": True}, "banner must be one of 'keep', 'remove', not True"),
    "too large": (GREY, {"max_pixels": 4799}, "more than max_pixels=4,799; crop or bin"),
    "floats": (2 * np.eye(2), {"scaling": "dtype"}, "but values run from 0 to 2; use"),
    "max_pixels zero": (GREY, {"max_pixels": 0}, "max_pixels must be a whole number of at least 1"),
}

LISTS = {
    "bare path": ("a.png", "a.png: expected a list of images, got one path; wrap it in a list"),
    "bare Path": (Path("a.png"), "wrap it in a list: ['a.png']"),
    "one grey image": (GREY, "got one image of shape (60, 80); wrap it in a list: [image]"),
    "one colour image": (np.zeros((8, 9, 3)), "got one image of shape (8, 9, 3)"),
    "empty": ([], "image list: the list is empty; give at least one image"),
    "empty array": (np.zeros((0, 8, 9)), "the list is empty"),
    "set": ({"a.png"}, "expected a list of paths or arrays, got set"),
    "table": (pd.DataFrame({"path": ["a.png"]}), "got a table; give its column of paths"),
    "generator": ((name for name in "ab"), "got generator; wrap one image in a list, turn a"),
    "bytes": (b"a.png", "got bytes"),
    "numbers": (np.arange(5), "an array of numbers with shape (5,) contains no images"),
    "paths in two columns": (np.array([["a", "b"]]), "expected a flat list of paths"),
}


def check(error: pytest.ExceptionInfo, expected: str) -> None:
    message = str(error.value)
    assert expected in message
    assert "\n" not in message
    assert not message.endswith(" ")


def check_file(path: str | Path, expected: str) -> None:
    with pytest.raises(ImageReadError) as error:
        read_image(path)

    check(error, expected)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize("case", FILES)
def test_bad_files(tmp_path, case):
    if case == "path too long" and os.name == "nt":
        pytest.skip("Windows calls it a missing file")
    make, expected = FILES[case]
    check_file(make(tmp_path), expected)


@pytest.mark.parametrize("case", CONTENTS)
def test_files_that_are_no_images(tmp_path, case):
    content, expected = CONTENTS[case]
    check_file(written(tmp_path / "a.png", content), expected)


@pytest.mark.parametrize("case", ARRAYS)
def test_bad_arrays_and_options(case):
    source, options, expected = ARRAYS[case]

    with pytest.raises(ImageReadError) as error:
        read_image(source, **options)

    check(error, expected)


@pytest.mark.parametrize("case", LISTS)
def test_bad_lists(case):
    images, expected = LISTS[case]

    with pytest.raises(ImageReadError) as error:
        check_image_list(images)

    check(error, expected)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "tif", "pgm", "webp", "jp2"])
def test_no_truncated_file_is_ever_read(tmp_path, suffix):
    for share in (0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97):
        path = encoded(tmp_path / f"a.{suffix}", share)
        with pytest.raises(ImageReadError, match=r"damaged|truncated|not an image"):
            read_image(path)


def test_relative_path_says_where_it_looked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ImageReadError, match=r"^no\.png: no such file \(looked in .+\); check"):
        read_image("no.png")


def test_permission_and_memory(tmp_path, monkeypatch):
    path = encoded(tmp_path / "a.png")
    with monkeypatch.context() as patch:
        patch.setattr("hypervlad.images.reading.decode_raster", Mock(side_effect=MemoryError))
        check_file(path, "not enough memory to decode it; crop")
    monkeypatch.setattr(Path, "open", Mock(side_effect=PermissionError(13, "Permission denied")))
    check_file(path, "permission denied; ask its owner")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    check_file(tmp_path / "a.png", "not a regular file")


def patch_tiff(path: Path, tags: dict[int, int | float]) -> Path:
    """Overwrite tags of the first page; a float is a share of the value."""
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as opened:
        for code, value in tags.items():
            tag = opened.pages[0].tags[code]
            if isinstance(value, float):
                value = int(value * np.ravel(tag.value)[0])
            struct.pack_into("<H", content, tag.valueoffset, value)
    return written(path, bytes(content))


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate", "jpeg"])
def test_no_truncated_strip_is_ever_read(tmp_path, compression):
    for keep in (0.1, 0.5, 0.9, 0.98):
        path = patch_tiff(encoded(tmp_path / "a.tif", compression=compression), {279: keep})
        with pytest.raises(ImageReadError, match=r"damaged or truncated|truncated TIFF"):
            read_image(path)


SHORT = "truncated TIFF: its header describes pixel data"


@pytest.mark.parametrize(
    ("tags", "options", "message"),
    [
        ({259: 34887}, {}, "a TIFF of compression LERC, which is not read; save"),
        ({279: 0}, {}, "truncated TIFF: its header describes"),
        ({257: 120}, {"rowsperstrip": 20, "compression": "lzw"}, "truncated TIFF"),
        ({257: 8, 278: 8}, {"compression": "jpeg"}, SHORT),
        ({257: 8, 278: 8}, {"compression": "jpeg2000"}, SHORT),
        ({257: 8, 278: 8}, {"compression": "png"}, SHORT),
    ],
    ids=["compression", "no strip", "a strip less", "large jpeg", "large jpeg2000", "large png"],
)
def test_tiff_headers_that_do_not_fit_are_refused(tmp_path, tags, options, message):
    with pytest.raises(ImageReadError, match=message):
        read_image(patch_tiff(tiff(tmp_path / "a.tif", **options), tags))


def test_unreadable_pillow_image(tmp_path):
    image = Image.open(encoded(tmp_path / "a.png", 0.5))

    with image, pytest.raises(ImageReadError, match="this Pillow image does not decode"):
        read_image(image)


def test_arrays_of_a_list_are_named_by_position():
    images = [GREY, GREY, GREY, np.zeros((0, 4))]

    with pytest.raises(ImageReadError, match=r"^image 3 of the list \(counted from 0\): an array"):
        list(read_micrographs(images))


def test_invalid_arguments_are_refused_before_anything_is_read():
    with pytest.raises(ValueError, match="one of 'raise', 'skip'"):
        read_micrographs([GREY], on_error="ignore")
    with pytest.raises(TypeError, match="expected a ReadOptions, got dict"):
        read_micrographs([GREY], options={"page": 0})
    with pytest.raises(ImageReadError, match="wrap it in a list"):
        read_micrographs("a.png")


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        ("", "an empty path"),
        ([], "no paths were given"),
        ("nowhere", "nowhere: no such file or folder; check"),
        ("*.tif", "*.tif: no images here; looked for .bmp"),
        (".", "no images here"),
        ([b"a.png"], "expected a path, got bytes"),
    ],
)
def test_find_images_refuses(tmp_path, monkeypatch, paths, expected):
    (tmp_path / "notes.txt").touch()
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ImageReadError) as error:
        find_images(paths)

    check(error, expected)


def test_the_decoder_of_tiff_files_prints_nothing_of_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(logging.root, "handlers", [])  # those of pytest
    path = written(tmp_path / "bad.tif", struct.pack("<2sHI", b"II", 42, 4000) + bytes(20))
    with pytest.raises(ImageReadError, match=r"bad\.tif"):
        read_image(path)
    assert capsys.readouterr().err == ""
