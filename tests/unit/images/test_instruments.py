"""Pixel sizes and scanned heights of files with the layouts of the instruments that write them."""

from __future__ import annotations

import io
import json
import os
import struct
import time

import numpy as np
import pytest
import tifffile
from PIL import Image
from support.instrument_files import (
    FEI_CAMERA,
    GREY,
    HITACHI,
    JEOL,
    MARKER,
    OLD_ZEISS,
    PHENOM,
    TESCAN_HDR,
    TESCAN_MAIN,
    THERMO,
    tescan_tag,
    tvips_tag,
    write_gatan,
    write_jeol_tem,
    write_odemis,
    write_olympus,
    write_openfibsem,
    write_tiff,
)

from hypervlad.features.cache import Cache, PathIndex
from hypervlad.images import read_micrograph
from hypervlad.images.files import ignored_files
from hypervlad.images.metadata import Entries


def test_the_preview_of_an_olympus_file_is_no_image(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(np.zeros((9, 8, 3), np.uint8), photometric="rgb", metadata=None)
        file.write(GREY, extratags=[(33471, "s", 0, b"[General]", True)], metadata=None)
    image = read_micrograph(path)
    np.testing.assert_array_equal(image.pixels, read_micrograph(GREY).pixels)
    assert image.metadata["n_pages"] == 1


@pytest.mark.parametrize(
    ("write", "expected", "source"),
    [
        (lambda p: write_tiff(p, (50431, tescan_tag())), 41.5, "TIFF tag 50431: PixelSizeX"),
        (lambda p: write_tiff(p, (37706, tvips_tag())), 1.25, "TIFF tag 37706: PixelSizeX"),
        (
            lambda p: write_tiff(
                p, (37706, tvips_tag(1)), resolution=(8e6, 8e6), resolutionunit="CENTIMETER"
            ),
            1.25,
            "TIFF tag 37706: 1/XResolution",
        ),
        (write_olympus, 0.023928, "TIFF tag 33560: pixelsizex"),
        (write_gatan, 250, "TIFF tags 65003 to 65010: 65009"),
        (lambda p: write_gatan(p, "1/nm"), None, None),
        (
            lambda p: write_tiff(p, (34118, OLD_ZEISS)),
            5.825 * 1024 / 320,
            "TIFF tag 34118: ap_pixel_size / columns/1024",
        ),
        (
            lambda p: write_tiff(p, (34683, THERMO.format(unit="m", size="2.5E-10"))),
            0.25,
            "TIFF tag 34683: PixelSize.X",
        ),
        # An empty tag of the other layout beside it; a diffraction pattern.
        (
            lambda p: write_tiff(p, (34682, " "), (34683, THERMO.format(unit="m", size="2.5E-10"))),
            0.25,
            "TIFF tag 34683: PixelSize.X",
        ),
        (lambda p: write_tiff(p, (34683, THERMO.format(unit="1/m", size="7E7"))), None, None),
        (lambda p: write_tiff(p, (34683, PHENOM)), 694.952, "TIFF tag 34683: PixelWidth"),
        (
            lambda p: write_tiff(p, (34682, FEI_CAMERA)),
            250_000,
            "TIFF tag 34682: IRBeam.HFW / Image.ResolutionX",
        ),
        (write_jeol_tem, 2.54e7 / 93 / 150_000, "TIFF description: 1/XResolution / SelectorValue"),
        (lambda p: write_jeol_tem(p, mode="DIFF", value=400, unit="mm"), None, None),
        (lambda p: write_jeol_tem(p, eos="eosASID"), None, None),
        (write_odemis, 5.5, "OME"),
        (lambda p: write_odemis(p, with_size=False), 5.5, "Odemis: 1/XResolution"),
        (write_openfibsem, 5.5, "TIFF description: pixel_size.x"),
        (
            lambda p: write_openfibsem(p, pixel_size=None),
            5.0,
            "TIFF description: image.hfw / image.resolution",
        ),
    ],
)
def test_pixel_sizes_in_tiffs(tmp_path, write, expected, source):
    write(tmp_path / "a.tif")

    micrograph = read_micrograph(tmp_path / "a.tif")

    assert micrograph.pixel_size == (expected and pytest.approx(expected, rel=1e-6))
    assert micrograph.metadata.get("pixel_size_from") == source
    json.dumps(micrograph.metadata)


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("nanometers", 0.25),
        ("micrometers", 250),
        ("Micrometre", 250),
        ("microns", 250),
        ("angstroms", 0.025),
        ("\u00c5ngstr\u00f6m", 0.025),
        ("meter", 2.5e8),
        ("millimeter", 2.5e5),
        ("inches", 6.35e6),
        ("ms", None),
    ],
)
def test_spellings_of_units(unit, expected):
    sides, _ = Entries({"1/XResolution": f"0.25 {unit}"}).pixel_sides("imagej")

    assert sides[0] == (expected and pytest.approx(expected))


def write_png(path):
    Image.fromarray(GREY).save(path)


@pytest.mark.parametrize(
    ("image", "name", "content", "expected", "source"),
    [
        ("a.png", "a-png.hdr", TESCAN_HDR, 41.5, "PixelSizeX"),
        ("a.tif", "a.hdr", TESCAN_HDR, 41.5, "PixelSizeX"),
        ("a.tif", "a.txt", HITACHI, 9.921875, "SemImageFile.PixelSize"),
        ("A.TIF", "A.TXT", HITACHI.encode("utf-16"), 9.921875, "SemImageFile.PixelSize"),
        ("a.bmp", "a.txt", HITACHI.encode("cp1252"), 9.921875, "SemImageFile.PixelSize"),
        ("a.Tif", "a.Txt", JEOL, 125, MARKER),
        ("a.tif", "a.txt", JEOL.replace("10um", "10\u00b5m").encode("cp1252"), 125, MARKER),
        (
            "a.jpg",
            "a.txt",
            JEOL + "$CM_FIELD_OF_VIEW 0.040mm 0.0275mm\n",
            125,
            "CM_FIELD_OF_VIEW / CM_FULL_SIZE",
        ),
    ],
)
def test_pixel_sizes_beside_an_image(tmp_path, image, name, content, expected, source):
    write_png(tmp_path / image)
    content = content.encode() if isinstance(content, str) else content
    (tmp_path / name).write_bytes(content)

    micrograph = read_micrograph(tmp_path / image)

    assert micrograph.pixel_size == pytest.approx(expected)
    assert micrograph.metadata["pixel_size_from"] == f"{name}: {source}"
    assert not ignored_files([tmp_path])


def make_folder(path):
    path.mkdir()


def make_pipe(path):
    os.mkfifo(path)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_text(HITACHI.replace("320x240", "640x480")),  # of another image
        lambda path: path.write_text(JEOL.replace("320 220", "640 440")),
        lambda path: path.write_text("Sample 3, PixelSize=9.9\n"),  # of nobody's layout
        lambda path: path.write_bytes(bytes(range(256)) * 99),
        lambda path: path.write_text(HITACHI + " " * (1 << 20)),  # too large
        lambda path: path.symlink_to("nothing.txt"),
        make_folder,
        pytest.param(
            make_pipe, marks=pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
        ),
    ],
)
def test_other_files_beside_an_image_are_not_used(tmp_path, make):
    write_png(tmp_path / "a.png")
    make(tmp_path / "a.txt")

    micrograph = read_micrograph(tmp_path / "a.png")

    assert micrograph.pixel_size is None
    assert set(micrograph.metadata) <= {"format", "mode", "n_pages", "dtype", "banner_rows"}


def test_the_file_itself_precedes_what_is_beside_it(tmp_path):
    write_tiff(tmp_path / "a.tif", (50431, tescan_tag()))
    (tmp_path / "a.txt").write_text(HITACHI)

    assert read_micrograph(tmp_path / "a.tif").pixel_size == pytest.approx(41.5)


@pytest.mark.parametrize("segment", ["COM", "APP1"])
def test_phenom_describes_a_jpeg_in_its_header(tmp_path, segment):
    stream = io.BytesIO()
    marker = {"COM": 0xFE, "APP1": 0xE1}[segment]
    Image.fromarray(GREY).save(stream, "JPEG", quality=95)
    head = struct.pack(">BBH", 0xFF, marker, len(PHENOM) + 2) + PHENOM.encode()
    (tmp_path / "a.jpg").write_bytes(stream.getvalue()[:2] + head + stream.getvalue()[2:])

    micrograph = read_micrograph(tmp_path / "a.jpg", banner="remove")

    assert micrograph.pixel_size == pytest.approx(694.952)
    assert micrograph.metadata["banner_rows"] == 32


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        (tescan_tag(), 24),
        (TESCAN_MAIN.replace("=24", "=200"), None),  # never the larger part
        (JEOL, 20),
        (JEOL.replace("320 220", "320 240"), None),  # a bar may cover rows of the scan
        (PHENOM, 32),
    ],
)
def test_heights_without_the_bar(stated, expected):
    rows = Entries(stated).scan_rows(240)

    assert rows == (expected and 240 - expected)


def test_facts_kept_about_an_image_are_out_of_date_with_a_new_file_beside_it(tmp_path):
    write_png(tmp_path / "a.png")
    index = PathIndex(Cache(tmp_path / "cache"), {})
    index.entry(tmp_path / "a.png").keep("facts")
    assert index.entry(tmp_path / "a.png").facts == "facts"

    (tmp_path / "a.txt").write_text(HITACHI)

    assert index.entry(tmp_path / "a.png").facts is None


@pytest.mark.parametrize(
    "text",
    [
        "PixelSizeX=" + "1" * 999_000 + ",",
        "[" * 999_000,
        "[a]   " * 150_000 + "x",
        " " * 999_000 + "=",
        "<" + "a" * 999_000,
        "<a" * 400_000,
        "<a:" * 300_000,
        "<a unit='" * 100_000,
        "<a>" * 300_000,
        '{"a":' * 200_000,
        "{" + "[" * 999_000,
    ],
)
def test_hostile_metadata_take_no_more_time_than_their_length(text):
    started = time.perf_counter()

    entries = Entries(text)
    found = [entries.pixel_sides(instrument)[0] for instrument in ("tescan", "fei", "jeol")]

    assert found == [(None, None)] * 3
    assert entries.scan_rows(100) is None
    assert time.perf_counter() - started < 3
