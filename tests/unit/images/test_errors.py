"""Invalid input: each kind has a message that names the image and says what to do."""

from __future__ import annotations

import logging
import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from hypervlad.images import ImageReadError, ReadOptions, find_images, read_image, read_micrographs
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


class Stubborn:
    def __array__(self, dtype=None, copy=None):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


def with_nan(dtype="float32"):
    image = np.zeros((4, 5), dtype=dtype)
    image[1, 2] = np.nan
    image[3, 3] = np.inf
    return image


# name: (what makes the source, options, what the message must say; {name} is the file's path)
FILES = {
    "missing": (lambda d: d / "no.png", {}, "{name}: no such file; check"),
    "folder": (lambda d: d, {}, "{name}: a folder, not an image file; hypervlad.images."),
    "empty file": (lambda d: written(d / "a.png", b""), {}, "{name}: the file is empty"),
    "text": (lambda d: written(d / "a.txt", b"Dear reader"), {}, "{name}: not an image"),
    "text named png": (lambda d: written(d / "a.png", b"Dear"), {}, "export it as TIFF or PNG"),
    "web page": (lambda d: written(d / "a.png", b"<!DOCTYPE html>"), {}, "{name}: a web page"),
    "git lfs": (
        lambda d: written(d / "a.png", b"version https://git-lfs.github.com/spec/v1\n"),
        {},
        "git lfs pull",
    ),
    "zip": (lambda d: written(d / "a.tif", b"PK\x03\x04" + bytes(90)), {}, "{name}: a ZIP archive"),
    "pdf": (lambda d: written(d / "a.pdf", b"%PDF-1.7\n"), {}, "{name}: a PDF document; export"),
    "npy": (lambda d: written(d / "a.npy", b"\x93NUMPY\x01\x00"), {}, "np.load"),
    "hdf5": (lambda d: written(d / "a.h5", b"\x89HDF\r\n\x1a\n"), {}, "h5py"),
    "only a png header": (
        lambda d: written(d / "a.png", b"\x89PNG\r\n\x1a\n"),
        {},
        "{name}: damaged or truncated PNG file",
    ),
    "flipped png bytes": (
        lambda d: written(d / "b.png", encoded(d / "a.png").read_bytes().replace(b"IDAT", b"IDAZ")),
        {},
        "{name}: damaged or truncated PNG",
    ),
    "truncated tiff": (lambda d: tiff(d / "a.tif", 0.7), {}, "{name}: truncated TIFF"),
    "truncated tiff header": (
        lambda d: tiff(d / "a.tif", 0.02),
        {},
        "{name}: damaged or truncated TIFF",
    ),
    "truncated zlib tiff": (
        lambda d: tiff(d / "a.tif", 0.7, compression="zlib"),
        {},
        "truncated TIFF",
    ),
    "truncated lzw tiff": (
        lambda d: encoded(d / "a.tif", 0.6, compression="tiff_lzw"),
        {},
        "truncated TIFF",
    ),
    "above own limit": (
        lambda d: encoded(d / "a.png"),
        {"max_pixels": 4799},
        "more than max_pixels=4,799; crop or bin",
    ),
    "page beyond": (
        lambda d: tiff(d / "a.tif", image=np.stack([GREY] * 3)),
        {"page": 3},
        "{name}: page 3 was requested, but the file has 3 pages; pages are counted from 0",
    ),
    "page beyond the only one": (
        lambda d: tiff(d / "a.tif"),
        {"page": 1},
        "the file has 1 page;",
    ),
    "page of a png": (lambda d: encoded(d / "a.png"), {"page": 1}, "{name}: page 1 was requested"),
    "complex tiff": (
        lambda d: tiff(d / "a.tif", image=GREY.astype(np.complex64)),
        {},
        "{name}: complex pixels",
    ),
    "nan in tiff": (
        lambda d: tiff(d / "a.tif", image=with_nan()),
        {},
        "{name}: 1 NaN and 1 infinite values among 20",
    ),
    "volumetric tiff page": (
        lambda d: tiff(d / "a.tif", image=np.stack([GREY[:32, :32]] * 4), volumetric=True,
                       tile=(2, 16, 16)),
        {},
        "{name}: a TIFF page of 4 planes (ImageDepth), not one image; split",
    ),
    "nul in path": (lambda d: f"{d}/a\0.png", {}, "cannot be opened"),
    "path too long": (lambda d: d / ("a" * 5000), {}, "cannot be opened (File name too long)"),
    "float scaled by type": (
        lambda d: tiff(d / "a.tif", image=np.float32([[1, 2], [3, 4]])),
        {"scaling": "dtype"},
        "{name}: scaling='dtype' needs floats in [0, 1], but values run from 1 to 4; use",
    ),
}  # fmt: skip

ARRAYS = {
    "none": (None, {}, "image: expected a path or an array, got NoneType"),
    "int": (7, {}, "got int"),
    "dict": ({"a": 1}, {}, "got dict"),
    "list": ([[0, 1], [1, 0]], {}, "got list; read_image takes one image, read_micrographs a list"),
    "bytes": (b"a.png", {}, "got bytes"),
    "open file": (sys.stdin, {}, "expected a path or an array"),
    "empty path": ("", {}, "'': an empty path"),
    "blank path": ("  ", {}, "an empty path"),
    "web address": ("https://example.org/a.png", {}, "https://example.org/a.png: a web address"),
    "file address": ("file:///a.png", {}, "download it first"),
    "zero-sized": (np.zeros((0, 5)), {}, "image: an array of shape (0, 5) has no pixels"),
    "zero channels": (np.zeros((5, 5, 0)), {}, "has no pixels; expected an array of shape"),
    "scalar": (np.float32(1), {}, "an array of 0 dimensions"),
    "one-dimensional": (np.zeros(5), {}, "an array of 1 dimensions, shape (5,)"),
    "four-dimensional": (np.zeros((2, 3, 4, 3)), {}, "an array of 4 dimensions"),
    "channels first": (np.zeros((3, 40, 50)), {}, "use np.moveaxis(image, 0, -1)"),
    "stack": (np.zeros((9, 40, 50)), {}, "looks like a stack, not one image"),
    "two channels": (np.zeros((40, 50, 2)), {}, "an array of shape (40, 50, 2)"),
    "nan": (with_nan(), {}, "image: 1 NaN and 1 infinite values among 20 pixel values; replace"),
    "nan in half precision": (with_nan("float16"), {}, "1 NaN and 1 infinite"),
    "nan in long double": (with_nan("longdouble"), {}, "1 NaN and 1 infinite"),
    "complex": (np.zeros((4, 4), complex), {}, "image: complex pixels (complex128); give the mod"),
    "object": (np.full((4, 4), None), {}, "an array of type object, not of numbers"),
    "text": (np.full((4, 4), "a"), {}, "an array of text (<U1), not of pixels"),
    "bytes text": (np.full((4, 4), b"a"), {}, "an array of text (|S1)"),
    "dates": (np.zeros((4, 4), "datetime64[s]"), {}, "an array of type datetime64[s]"),
    "records": (np.zeros((4, 4), [("r", "u1")]), {}, "not of numbers"),
    "masked": (np.ma.masked_equal(np.eye(3), 1), {}, "a masked array with masked pixels; fill"),
    "tensor on a gpu": (Stubborn(), {}, "does not convert to a NumPy array (can't convert cuda:0"),
    "absurd": (np.broadcast_to(np.uint8(0), (10**6, 10**6)), {}, "1000000 x 1000000 pixels is mor"),
    "page of an array": (GREY, {"page": 1}, "an array has one page: pass stack[page]"),
    "negative page": (GREY, {"page": -1}, "page=-1: pages are counted from 0"),
    "page is text": (GREY, {"page": "first"}, "page='first': expected an integer"),
    "page is true": (GREY, {"page": True}, "page=True: expected an integer"),
    "page is a float": (GREY, {"page": 1.0}, "page=1.0: expected an integer"),
    "mistyped option": (GREY, {"scalling": "auto"}, "did you mean 'scaling'?"),
    "unknown option": (GREY, {"zoom": 2}, "unknown reading option 'zoom': expected one of 'page'"),
    "unknown scaling": (GREY, {"scaling": "best"}, "scaling='best': expected one of 'auto'"),
    "scaling of one": (
        GREY,
        {"scaling": (1,)},
        r"two finite numbers, low < high: (0, 4095), in a shell 0:4095",
    ),
    "scaling upside down": (GREY, {"scaling": (2, 1)}, "low < high"),
    "scaling to infinity": (GREY, {"scaling": (0, np.inf)}, "two finite numbers"),
    "scaling is none": (GREY, {"scaling": None}, "scaling=None: expected"),
    "scaling is an array": (GREY, {"scaling": np.eye(2)}, "expected one of 'auto'"),
    "percentiles beyond": (GREY, {"percentiles": (1, 101)}, "0 <= lower < upper <= 100"),
    "percentiles equal": (GREY, {"percentiles": (50, 50)}, "percentiles=(50, 50): expected two"),
    "percentiles of text": (GREY, {"percentiles": ("1", "99")}, "expected two numbers"),
    "banner": (GREY, {"banner": True}, "banner=True: expected one of 'keep', 'remove'"),
    "max_pixels zero": (GREY, {"max_pixels": 0}, "max_pixels=0: expected a positive number"),
    "max_pixels text": (GREY, {"max_pixels": "1e9"}, "or None for no limit"),
}

LISTS = {
    "bare path": ("a.png", "a.png: expected a list of images, got one path; wrap it in a list"),
    "bare Path": (Path("a.png"), "wrap it in a list: ['a.png']"),
    "one grey image": (GREY, "got one image of shape (60, 80); wrap it in a list: [image]"),
    "one colour image": (np.zeros((8, 9, 3)), "got one image of shape (8, 9, 3)"),
    "empty": ([], "image list: the list is empty; give at least one image"),
    "empty tuple": ((), "the list is empty"),
    "empty array": (np.zeros((0, 8, 9)), "the list is empty"),
    "none": (None, "expected a list of paths or arrays, got NoneType"),
    "int": (3, "got int"),
    "dict": ({"a.png": 1}, "got dict"),
    "set": ({"a.png"}, "got set"),
    "generator": ((name for name in "ab"), "got generator; wrap one image in a list, turn a"),
    "bytes": (b"a.png", "got bytes"),
    "numbers": (np.arange(5), "an array of numbers with shape (5,) contains no images"),
    "scalar": (np.array(5), "contains no images"),
    "paths in two columns": (np.array([["a", "b"]]), "expected a flat list of paths"),
}


def check(error: pytest.ExceptionInfo, expected: str) -> None:
    message = str(error.value)
    assert expected in message
    assert "\n" not in message
    assert not message.endswith(" ")


@pytest.mark.parametrize("case", FILES)
def test_bad_files(tmp_path, case):
    if case == "path too long" and os.name == "nt":
        pytest.skip("Windows calls it a missing file")
    make, options, expected = FILES[case]
    path = make(tmp_path)

    with pytest.raises(ImageReadError) as error:
        read_image(path, **options)

    check(error, expected.replace("{name}", str(path)))
    assert str(error.value).startswith(str(path))


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


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97])
@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "tif", "pgm", "webp", "jp2"])
def test_no_truncated_file_is_ever_read(tmp_path, suffix, share):
    path = encoded(tmp_path / f"a.{suffix}", share)

    with pytest.raises(ImageReadError, match=r"damaged|truncated|not an image"):
        read_image(path)


def test_relative_path_says_where_it_looked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ImageReadError, match=r"^no\.png: no such file \(looked in .+\); check"):
        read_image("no.png")


def test_permission_denied(tmp_path, monkeypatch):
    path = encoded(tmp_path / "a.png")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ImageReadError, match="permission denied; ask its owner"):
        read_image(path)


def test_out_of_memory(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr("hypervlad.images.micrograph.decode_raster", refuse)
    with pytest.raises(ImageReadError, match="not enough memory to decode it; crop"):
        read_image(encoded(tmp_path / "a.png"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "a.png")

    with pytest.raises(ImageReadError, match="not a regular file"):
        read_image(tmp_path / "a.png")


def test_path_of_bytes_object(tmp_path):
    class BytesPath:
        def __fspath__(self):
            return b"a.png"

    with pytest.raises(ImageReadError, match="a path of bytes"):
        read_image(BytesPath())


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate", "jpeg"])
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.98])
def test_no_truncated_strip_is_ever_read(tmp_path, compression, keep):
    path = encoded(tmp_path / "a.tif", compression=compression)
    with tifffile.TiffFile(path) as opened:
        (n_bytes,) = opened.pages[0].databytecounts
        offset = opened.pages[0].tags[279].valueoffset
    content = bytearray(path.read_bytes())
    struct.pack_into("<H", content, offset, int(n_bytes * keep))
    path.write_bytes(content)

    with pytest.raises(ImageReadError, match=r"damaged or truncated|truncated TIFF"):
        read_image(path)


def patched_tiff(path: Path, tag: int, value: int, **kwargs) -> Path:
    """A TIFF by tifffile with the value of one tag overwritten in its first page."""
    tifffile.imwrite(path, **kwargs)
    with tifffile.TiffFile(path) as opened:
        offset = opened.pages[0].tags[tag].valueoffset
    content = bytearray(path.read_bytes())
    struct.pack_into("<H", content, offset, value)
    return written(path, bytes(content))


def test_unsupported_tiff_compression(tmp_path):
    image = np.zeros((20, 30, 3), np.uint16)
    path = patched_tiff(tmp_path / "a.tif", 259, 34887, data=image, photometric="rgb")

    with pytest.raises(ImageReadError, match="a TIFF of compression LERC, which is not read; save"):
        read_image(path)


def test_tiff_with_a_strip_left_out(tmp_path):
    path = patched_tiff(tmp_path / "a.tif", 279, 0, data=GREY, photometric="minisblack")

    with pytest.raises(ImageReadError, match="truncated TIFF: its header describes"):
        read_image(path)


def test_unreadable_pillow_image(tmp_path):
    image = Image.open(encoded(tmp_path / "a.png", 0.5))

    with image, pytest.raises(ImageReadError, match="this Pillow image does not decode"):
        read_image(image)


def test_arrays_of_a_list_are_named_by_position():
    images = [GREY, GREY, GREY, np.zeros((0, 4))]

    with pytest.raises(ImageReadError, match=r"^image 3 of the list \(counted from 0\): an array"):
        list(read_micrographs(images))


@pytest.mark.parametrize("bad", ["ignore", None, True, "RAISE"])
def test_invalid_on_error_is_a_value_error_at_once(bad):
    with pytest.raises(ValueError, match="expected 'raise' or 'skip'"):
        read_micrographs([GREY], on_error=bad)


def test_options_must_be_read_options():
    with pytest.raises(TypeError, match="expected a ReadOptions, got dict"):
        read_micrographs([GREY], options={"page": 0})


def test_a_bad_list_is_refused_before_anything_is_read():
    with pytest.raises(ImageReadError, match="wrap it in a list"):
        read_micrographs("a.png", options=ReadOptions())


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        ("", "an empty path"),
        ([], "no paths were given"),
        ("nowhere", "nowhere: no such file or folder; check"),
        ("*.tif", "*.tif: no images here; looked for .bmp"),
        ([b"a.png"], "expected a path, got bytes"),
        ([None], "None: expected a path, got NoneType"),
    ],
)
def test_find_images_refuses(tmp_path, monkeypatch, paths, expected):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ImageReadError) as error:
        find_images(paths)

    check(error, expected)


def test_find_images_in_a_folder_without_images(tmp_path):
    (tmp_path / "notes.txt").touch()

    with pytest.raises(ImageReadError, match="no images here"):
        find_images(tmp_path)


def test_the_decoder_of_tiff_files_prints_nothing_of_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(logging.root, "handlers", [])  # those of pytest
    path = written(tmp_path / "bad.tif", struct.pack("<2sHI", b"II", 42, 4000) + bytes(20))
    with pytest.raises(ImageReadError, match=r"bad\.tif"):
        read_image(path)
    assert capsys.readouterr().err == ""
