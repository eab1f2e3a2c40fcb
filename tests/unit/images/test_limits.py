"""Headers that claim much, and files that contain more than one grey or RGB image."""

from __future__ import annotations

import struct
import time
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from hypervlad.datasets import check_image_folder
from hypervlad.images import ImageReadError, PartlyReadWarning, read_image, read_micrograph

GREY = np.random.default_rng(0).integers(0, 256, (24, 32), dtype=np.uint8)
GREY16 = np.random.default_rng(1).integers(0, 65536, (24, 32), dtype=np.uint16)
MANY = np.random.default_rng(2).integers(0, 256, (24, 32, 7), dtype=np.uint8)


def png_bytes(height, width, bits, colour, rows=b""):
    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(*each) for each in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    )


def tiff_bytes(height, width, *, bits=8, n_samples=1, depth=1, tile=None, strip=b"x" * 40):
    """A TIFF of deflated samples, one strip or tile, with any numbers in its header."""
    tags = {256: width, 257: height, 258: bits, 259: 8, 262: 1, 277: n_samples, 32997: depth}
    tags |= {278: height, 273: 8, 279: len(strip)}
    if tile is not None:
        del tags[278], tags[273], tags[279]
        tags |= {322: tile, 323: tile, 324: 8, 325: len(strip)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip + directory


BOMBS = {
    "png rgb": (png_bytes(19000, 19000, 8, 2), "19000 x 19000 pixels of 3 bytes, counted as 1,083"),
    "png 16-bit rgba": (png_bytes(12000, 12000, 16, 6), "pixels of 8 bytes, counted as 576"),
    "tiff samples": (tiff_bytes(4000, 4000, n_samples=400), "neither grey nor RGB"),
    "tiff depth": (tiff_bytes(2000, 2000, depth=1000), "a TIFF page of 1000 planes"),
    "tiff 64-bit": (tiff_bytes(20000, 15000, bits=64), "20000 x 15000 pixels of 8 bytes"),
    "tiff tile": (tiff_bytes(16, 16, tile=65536), "tiles: 1 x 4294967296 pixels"),
    "ppm": (b"P6 19000 19000 255\n" + bytes(99), "19000 x 19000 pixels of 3 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("case", BOMBS)
def test_a_header_that_claims_much_is_refused_before_decoding(tmp_path, case):
    content, expected = BOMBS[case]
    (tmp_path / "a").write_bytes(content)
    read_some(tmp_path)
    tracemalloc.start()
    started = time.perf_counter()

    with pytest.raises(ImageReadError) as error:
        read_image(tmp_path / "a")

    seconds, (_, peak) = time.perf_counter() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert expected in str(error.value)
    assert peak < 10e6
    assert seconds < 2


def read_some(folder):
    """Import the decoders."""
    tifffile.imwrite(folder / "some.tif", GREY, compression="zlib")
    read_image(folder / "some.tif")


def test_a_chosen_channel_is_limited_as_well(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff_bytes(4000, 4000, n_samples=400))

    with pytest.raises(ImageReadError, match="4000 x 4000 pixels of 400 bytes, counted as 6,400"):
        read_image(tmp_path / "a.tif", channel=0)


@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000", "png"])
def test_a_strip_larger_than_its_page_is_refused(tmp_path, compression):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, compression=compression)
    with tifffile.TiffFile(path) as opened:
        tags = opened.pages[0].tags
        offsets = [tags[code].valueoffset for code in (257, 278)]
    content = bytearray(path.read_bytes())
    for offset in offsets:
        struct.pack_into("<H", content, offset, 8)
    path.write_bytes(content)

    with pytest.raises(ImageReadError, match="truncated TIFF: its header describes pixel data"):
        read_image(path)


@pytest.mark.parametrize(
    "layout",
    [
        {"data": MANY, "photometric": "rgb"},
        {"data": MANY, "photometric": "minisblack", "planarconfig": "contig"},
        {"data": MANY[..., :4], "photometric": "minisblack", "planarconfig": "contig"},
        {"data": MANY[..., :2], "photometric": "minisblack", "planarconfig": "contig"},
        {"data": MANY[..., :4], "photometric": "rgb", "extrasamples": ["unspecified"]},
        {"data": MANY[..., :5], "photometric": "separated", "extrasamples": ["unspecified"]},
    ],
    ids=["rgb of 7", "grey of 7", "grey of 4", "grey of 2", "undeclared fourth", "five inks"],
)
@pytest.mark.parametrize("compression", [None, "lzw"])
def test_samples_that_would_be_dropped_are_refused_and_can_be_chosen(tmp_path, layout, compression):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, compression=compression, **layout)
    data = layout["data"]

    with pytest.raises(ImageReadError) as error:
        read_image(path)

    n_samples = data.shape[2]
    assert f"a TIFF page of {n_samples} samples of uint8 per pixel" in str(error.value)
    assert f"(0 to {n_samples - 1})" in str(error.value)
    for channel in range(n_samples):
        chosen = read_micrograph(path, channel=channel)
        assert chosen.digest == read_micrograph(data[..., channel]).digest
    with pytest.raises(ImageReadError, match=f"channel {n_samples} was requested, but the image"):
        read_image(path, channel=n_samples)


def test_channel_of_other_images(tmp_path):
    Image.fromarray(MANY[..., :3]).save(tmp_path / "a.png")
    Image.fromarray(GREY).save(tmp_path / "grey.png")

    for source in (tmp_path / "a.png", MANY):
        digest = read_micrograph(source, channel=2).digest
        assert digest == read_micrograph(MANY[..., 2]).digest
    assert read_image(tmp_path / "grey.png", channel=0).shape == GREY.shape
    with pytest.raises(ImageReadError, match="channel 1 was requested, but the image has 1 chan"):
        read_image(tmp_path / "grey.png", channel=1)
    with pytest.raises(ImageReadError, match="channel=-1: channels are counted from 0"):
        read_image(GREY, channel=-1)


@pytest.mark.parametrize(("colour", "n_channels"), [(2, 3), (4, 2), (6, 4)])
def test_png_keeps_16_bits(tmp_path, colour, n_channels):
    pixels = np.dstack([GREY16 // (1 + i) for i in range(n_channels)])
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    content = png_bytes(*GREY16.shape, 16, colour, rows)
    path = tmp_path / "a.png"
    path.write_bytes(content)

    expected = pixels[..., 0] if n_channels == 2 else pixels[..., :3]
    assert read_micrograph(path).metadata["dtype"] == "uint16"
    assert read_micrograph(path).digest == read_micrograph(expected).digest
    for share in (0.1, 0.5, 0.9, 0.98):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(ImageReadError):
            read_image(path)


def test_a_ppm_of_16_bits_is_refused(tmp_path):
    content = b"P6\n# by a camera\n32 24\n65535\n" + np.dstack([GREY16] * 3).tobytes()
    (tmp_path / "a.ppm").write_bytes(content)

    with pytest.raises(ImageReadError, match="a PPM file of 16 bits per channel"):
        read_image(tmp_path / "a.ppm")


def test_a_missing_strip_is_not_filled(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY, rowsperstrip=8, compression="lzw")
    with tifffile.TiffFile(path) as opened:
        tag = opened.pages[0].tags[257]
        assert tag.value == 24
    content = bytearray(path.read_bytes())
    struct.pack_into("<H", content, tag.valueoffset, 48)
    path.write_bytes(content)

    with pytest.raises(ImageReadError, match="truncated TIFF"):
        read_image(path)


def test_the_warning_of_pages_comes_once_for_each_folder(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for name in "123":
            stack = np.stack([GREY, GREY])
            tifffile.imwrite(tmp_path / folder / f"{name}.tif", stack, photometric="minisblack")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for path in sorted(tmp_path.glob("*/*.tif")):
            read_image(path)
            read_image(path, page=0)

    assert [each.category for each in caught] == [PartlyReadWarning] * 2
    assert str(caught[0].message).startswith(f"{tmp_path / 'a'}: files of several pages")


def test_check_lists_files_of_several_pages(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(GREY + len(name)).save(tmp_path / name / "1.png")
    tifffile.imwrite(tmp_path / "a" / "2.tif", np.stack([GREY] * 3), photometric="minisblack")
    tifffile.imwrite(tmp_path / "b" / "2.tif", MANY, photometric="rgb")

    report = check_image_folder(tmp_path)

    assert report.page_counts == {"a/2.tif": 3}
    assert "1 file has several pages, sections or frames, of which only page 0" in report.notes[0]
    assert "a/2.tif: 3 pages" in str(report)
    assert [bad.path for bad in report.bad_files] == ["b/2.tif"]
