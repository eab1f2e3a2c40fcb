"""Pixel sizes and heights without the information bar, as instruments and programs state them."""

import os

import numpy as np
import pytest
import tifffile
from PIL import Image
from support import instrument_files as files
from support.commands import run
from support.golden import check_golden, digest
from support.instrument_files import GREY, HITACHI, JEOL, PHENOM, TESCAN_HDR, fei, tescan_tag
from support.microscopy_files import mrc_bytes
from support.ome_zarr_folders import write_ome_zarr
from support.raster_headers import pillow_bytes
from support.tiny import make_tiny_encoder

from hypervlad.images import read_micrograph


@pytest.mark.parametrize("kind", files.TIFFS)
def test_pixel_sizes_in_tiffs(tmp_path, kind):
    write, size, source = files.TIFFS[kind]
    write(tmp_path / "a.tif")
    check_golden(tmp_path / "a.tif", [GREY], size, pixel_size_from=source, cut=[0.4])


def test_metadata_are_kept(tmp_path):
    files.write_tiff(tmp_path / "a.tif", (34682, fei(4) + "x=1\r\n" * 500))
    found = read_micrograph(tmp_path / "a.tif")
    assert found.metadata["fei"]["User"]["Date"] == "01/01/2020"
    assert str(found.source) in repr(found)
    assert len(repr(found)) < 300  # without them


def test_the_preview_of_an_olympus_file_is_no_image(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(np.zeros((9, 8, 3), np.uint8), photometric="rgb", metadata=None)
        file.write(GREY, extratags=[(33471, "s", 0, b"[General]", True)], metadata=None)
    check_golden(tmp_path / "a.tif", [GREY], cut=[0.4])


UNITS = {
    **dict.fromkeys(["nm", "nanometers", "nm/px"], 0.25),
    **dict.fromkeys(["um", "µm", "micrometers", "Micrometre", "$\\mu$m/pixel"], 250),
    **dict.fromkeys(["Å", "angstroms", "Ångström"], 0.025),
    **dict.fromkeys(["m", "meter"], 2.5e8),
    "cm": 2.5e6, "millimeter": 2.5e5, "inches": 6.35e6, "ms": None, "1/nm": None, "": None,
}  # fmt: skip


@pytest.mark.parametrize("unit", UNITS)
def test_units_of_length(tmp_path, unit):
    files.write_gatan(tmp_path / "a.tif", unit)
    found = read_micrograph(tmp_path / "a.tif")
    stated = found.metadata.get("implausible_pixel_sides_nm", [found.pixel_size])[0]
    assert stated == (UNITS[unit] and pytest.approx(UNITS[unit]))


@pytest.mark.parametrize(("unit", "size"), [("nm", 0.25), ("\\u00B5m", 250), ("pixel", None)])
def test_imagej_has_the_size_on_every_page(tmp_path, unit, size):
    metadata, stack = {"unit": unit, "axes": "ZYX"}, np.stack([GREY, GREY // 2])
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, resolution=(4, 4), metadata=metadata)
    check_golden(tmp_path / "a.tif", stack, size, cut=[0.2])


def side(size, unit="nm"):
    return " ".join(f'PhysicalSize{x}="{size}" PhysicalSize{x}Unit="{unit}"' for x in "XY") + ">"


OTHER = '<TiffData IFD="0"><UUID FileName="b.ome.tif">urn:uuid:2</UUID></TiffData>'
OWN = '<TiffData IFD="0"><UUID FileName="a.ome.tif">urn:uuid:1</UUID></TiffData>'
FIRST, SECOND = '<TiffData IFD="0"/>', '<TiffData IFD="1"/>'


@pytest.mark.parametrize(
    ("images", "sizes"),
    [
        (['PhysicalSizeX="0.25" PhysicalSizeY="0.25">'], [250]),  # in micrometres
        (["PhysicalSizeX='2' PhysicalSizeXUnit='&#181;m'>"], [2000]),  # and the same down
        ([side(0.25, "\u03bcm")], [250]),
        ([side(3, "\u212b")], [0.3]),
        *(([side(*each)], [None]) for each in [(1, "pixel"), (0,), ("one",), ("nan",), ("inf",)]),
        (['SizeX="3">'], [None]),
        # Of two images, each page has the size of its own; None if it belongs to neither, or both.
        ([side(2) + FIRST, side(3) + '<TiffData IFD="1" PlaneCount="2"/>'], [2, 3, 3]),
        ([side(2) + FIRST, side(3) + SECOND], [2, 3, None]),
        ([side(2) + "<TiffData/>", side(3) + "<TiffData/>"], [None, None]),
        ([side(2) + "<TiffData/>", side(2) + "<TiffData/>"], [2, 2]),
        ([side(2) + "<MetadataOnly/>", side(3) + '<TiffData IFD="x" PlaneCount="y"/>'], [3]),
        # Planes of another file of the set
        ([side(2) + OTHER, side(3) + OWN], [3]),
        ([side(2) + OTHER, side(3) + OTHER], [None]),
        # These take hours if the time grows with their squares.
        *(([f">{part * 30_000}"], [None]) for part in ("<Pixels ", "<a", "<TiffData><UUID>")),
    ],
)  # fmt: skip
def test_ome(tmp_path, images, sizes):
    files.write_ome(tmp_path / "a.tif", *images, n_pages=len(sizes))
    found = [read_micrograph(tmp_path / "a.tif", page=page) for page in range(len(sizes))]
    assert [each.pixel_size for each in found] == [size and pytest.approx(size) for size in sizes]


def write_sides(path, across, down):
    """Write a pixel of this width and height, nm, by the suffix."""
    if path.suffix == ".mrc":
        path.write_bytes(mrc_bytes(GREY[None], (10 * across, 10 * down), imod_flags=0))
    elif path.suffix == ".fei":
        files.write_tiff(path, (34682, fei(across, down)))
    elif path.suffix == ".imagej":
        options = {"resolution": (1 / across, 1 / down), "metadata": {"unit": "nm"}}
        tifffile.imwrite(path, GREY, imagej=True, **options)
    else:
        sides = f'PhysicalSizeX="{across / 1000}" PhysicalSizeY="{down / 1000}">'
        files.write_ome(path, sides)


@pytest.mark.parametrize("kind", ["mrc", "fei", "imagej", "ome"])
def test_pixels_that_are_not_square_have_no_size(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    for down, is_square in ((5.04, True), (5.06, False), (4.96, True), (4.94, False), (10, False)):
        write_sides(path, 5.0, down)
        found = read_micrograph(path, pixel_size=5.1)
        assert found.pixel_size == (pytest.approx(5, rel=1e-5) if is_square else None)
        stated = None if is_square else pytest.approx([5, down], rel=1e-5)
        assert found.metadata.get("pixel_sides_nm") == stated


# 600, 300, 96 and 2,400 dots per inch are those of pages; 20 um is of a sample.
SIZES = [(9e-4, 0), (2e-3, 1), (2e4, 1), (2e6, 0), *((2.54e7 / n, 0) for n in (96, 300, 600, 2400))]


@pytest.mark.parametrize(("size", "used"), SIZES)
def test_sizes_below_1_pm_above_1_mm_and_of_pages_are_not_used(tmp_path, size, used):
    write_sides(tmp_path / "a.ome", size, size)
    found = read_micrograph(tmp_path / "a.ome", pixel_size=1.02 * size if used else 7)
    assert found.pixel_size == (pytest.approx(size) if used else 7)
    kept = found.metadata.get("implausible_pixel_sides_nm")
    assert kept == (None if used else pytest.approx([size, size]))


# --- files beside an image ----------------------------------------------------------------------

MARKER, VIEW = "SM_MICRON_MARKER / SM_MICRON_BAR", "CM_FIELD_OF_VIEW / CM_FULL_SIZE"
JEOL_VIEW = JEOL + "$CM_FIELD_OF_VIEW 0.040mm 0.0275mm\n"


@pytest.mark.parametrize(
    ("image", "name", "content", "size", "source"),
    [
        ("a.png", "a-png.hdr", TESCAN_HDR.encode(), 41.5, "PixelSizeX"),
        ("a.tif", "a.hdr", TESCAN_HDR.encode(), 41.5, "PixelSizeX"),
        ("a.tif", "a.txt", HITACHI.encode(), 9.921875, "SemImageFile.PixelSize"),
        ("A.TIF", "A.TXT", HITACHI.encode("utf-16"), 9.921875, "SemImageFile.PixelSize"),
        ("a.bmp", "a.txt", HITACHI.encode("cp1252"), 9.921875, "SemImageFile.PixelSize"),
        ("a.Tif", "a.Txt", JEOL.encode(), 125, MARKER),
        ("a.tif", "a.txt", JEOL.replace("10um", "10µm").encode("cp1252"), 125, MARKER),
        ("a.jpg", "a.txt", JEOL_VIEW.encode(), 125, VIEW),
    ],
)
def test_pixel_sizes_beside_an_image(tmp_path, image, name, content, size, source):
    Image.fromarray(GREY).save(tmp_path / image)
    (tmp_path / name).write_bytes(content)
    found = read_micrograph(tmp_path / image)
    assert found.pixel_size == pytest.approx(size)
    assert found.metadata["pixel_size_from"] == f"{name}: {source}"
    assert "ignored" not in run("scale", tmp_path).stderr


HOSTILE = [  # would take hours if the time grew with the square of the length
    *("PixelSizeX=" + "1" * 999_000 + ",", "[a]   " * 150_000 + "x", " " * 999_000 + "="),
    *("<" + "a" * 999_000, "<a unit='" * 100_000, "<a>" * 300_000, '{"a":' * 200_000),
]


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_text(HITACHI.replace("320x240", "640x480")),  # of another image
        lambda path: path.write_text(JEOL.replace("320 220", "640 440")),
        lambda path: path.write_text("Sample 3, PixelSize=9.9\n"),  # of nobody's layout
        lambda path: path.write_bytes(bytes(range(256)) * 99),
        lambda path: path.write_text(HITACHI + " " * (1 << 20)),  # too large
        lambda path: path.symlink_to("nothing.txt"),
        lambda path: path.mkdir(),
        *([lambda path: os.mkfifo(path)] if hasattr(os, "mkfifo") else []),
        *(lambda path, text=text: path.with_suffix(".hdr").write_text(text) for text in HOSTILE),
    ],
)
def test_other_files_beside_an_image_are_not_used(tmp_path, make):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    make(tmp_path / "a.txt")
    found = read_micrograph(tmp_path / "a.png", banner="remove")
    assert (found.pixel_size, found.pixels.shape) == (None, GREY.shape)


@pytest.mark.filterwarnings("ignore:metadata state another pixel size")
@pytest.mark.parametrize("kind", ["a file beside it", "a chunk of a folder"])
def test_what_a_cache_keeps_is_out_of_date_with(tmp_path, kind):
    path = tmp_path / "a.png"
    if kind == "a file beside it":
        Image.fromarray(GREY).save(path)
    else:
        write_ome_zarr(path, [GREY], units={}, compressors=None, chunks=GREY.shape)
    options = {"memory": tmp_path / "cache", "pixel_size": 50, "read_options": {"pixel_size": 50}}
    encode = make_tiny_encoder().set_params(**options).fit([GREY]).transform
    before = encode([path])
    if kind == "a file beside it":
        (tmp_path / "a.txt").write_text(HITACHI)
    else:
        (path / "0" / "c" / "0" / "0").write_bytes(GREY[::-1].tobytes())
    assert not np.allclose(before, encode([path]))


# --- heights without the information bar --------------------------------------------------------

ANOTHER_BEAM = "[IScan]\r\nVerFieldsize=2.2e-6\r\nPixelHeight=1e-8\r\n[Scan]\r\n"


@pytest.mark.parametrize(
    ("tag", "text", "n_rows"),
    [
        (34682, fei(rows=224), 16),
        (34682, fei(bar=12), 12),
        (34682, fei(field=220 * 4.88281e-9), 20),
        (34682, ANOTHER_BEAM, 20),
        (34682, fei(rows=224, bar=12), 16),  # the stored image's own height comes first
        (34682, fei(rows=240), 0),
        (34682, fei(rows=884, bar=12), 12),  # a resolution that is none of this file's
        (34682, fei(rows=-5), 0),
        (34682, fei(rows="nan"), 0),
        (34683, PHENOM, 32),
        (50431, tescan_tag(), 24),
        (".hdr", TESCAN_HDR.replace("=24", "=200"), 0),  # never the larger part
        (".hdr", TESCAN_HDR, 24),
        (".txt", JEOL, 20),
        (".txt", JEOL.replace("320 220", "320 240"), 0),  # a bar may cover rows of the scan
    ],
)
def test_the_bar_that_metadata_state_is_removed(tmp_path, tag, text, n_rows):
    path = tmp_path / "a.tif"
    files.write_tiff(path, *([(tag, text)] if isinstance(tag, int) else []))
    if isinstance(tag, str):
        path.with_suffix(tag).write_text(text)
    found = read_micrograph(path, banner="remove")
    assert (found.metadata["banner_rows"], found.digest) == (n_rows, digest(GREY[: 240 - n_rows]))
    assert digest(path) == digest(GREY)


def test_metadata_overrule_the_detector(tmp_path):
    image = GREY.copy()
    image[200:] = 0
    image[210:220, 20:200:4] = 255
    for tags, n_rows in ((), 40), ([(34682, fei(rows=240))], 0):
        files.write_tiff(tmp_path / "a.tif", *tags, image=image)
        found = read_micrograph(tmp_path / "a.tif", banner="remove")
        assert found.metadata["banner_rows"] == n_rows


@pytest.mark.parametrize("options", [{"comment": PHENOM}, {"extra": PHENOM}])
def test_phenom_describes_a_jpeg_in_its_header(tmp_path, options):
    text = PHENOM.encode()
    if "extra" in options:
        options = {"extra": b"\xff\xe1" + (len(text) + 2).to_bytes(2, "big") + text}
    (tmp_path / "a.jpg").write_bytes(pillow_bytes("JPEG", GREY, **options))
    found = read_micrograph(tmp_path / "a.jpg", banner="remove")
    assert found.pixel_size == pytest.approx(694.952)
    assert (found.metadata["banner_rows"], len(found.pixels)) == (32, 208)
