"""Pixel size and banner height from the metadata of instruments; lengths with units."""

from __future__ import annotations

import time

import numpy as np
import pytest
import tifffile
from PIL import Image
from support.instrument_files import FEI, ZEISS
from support.microscopy_files import mrc_bytes

from hypervlad.images import read_micrograph
from hypervlad.images.metadata import (
    Entries,
    length_in_nm,
    length_in_pixels,
    ome_pixel_sides,
    parse_length,
    square_pixel_size,
)

GREY = np.random.default_rng(0).integers(0, 256, (120, 160), dtype=np.uint8)


def tiff_with(path, code, text, image=GREY):
    extra = [(code, "s", 0, text, True)]
    tifffile.imwrite(path, image, photometric="minisblack", extratags=extra, metadata=None)
    return path


@pytest.mark.parametrize("code", [34682, 34680])
def test_fei_pixel_size_is_in_metres(tmp_path, code):
    path = tiff_with(tmp_path / "a.tif", code, FEI.format(field="", rows="", bar=""))

    micrograph = read_micrograph(path)

    assert micrograph.pixel_size == pytest.approx(4.88281)
    assert micrograph.metadata["fei"]["User"]["Date"] == "01/01/2020"


@pytest.mark.parametrize(
    ("rows", "bar", "field", "expected"),
    [
        (104, "", "", 16),
        ("", 12, "", 12),
        ("", "", 100 * 4.88281e-9, 20),
        (104, 12, "", 16),  # the stored image's own height comes first
        (120, "", "", 0),
        (884, 12, "", 12),  # a resolution that is none of this file's
        (-5, "", "", 0),
        ("nan", "", "", 0),
    ],
)
def test_fei_banner_by_metadata(tmp_path, rows, bar, field, expected):
    text = FEI.format(rows=rows, bar=bar, field=field)
    path = tiff_with(tmp_path / "a.tif", 34682, text)

    micrograph = read_micrograph(path, banner="remove")

    assert micrograph.metadata["banner_rows"] == expected
    np.testing.assert_array_equal(
        micrograph.pixels, np.float32(GREY[: 120 - expected]) / np.float32(255)
    )
    assert read_micrograph(path).pixels.shape == GREY.shape


def test_metadata_overrule_the_detector(tmp_path):
    image = GREY.copy()
    image[90:] = 0
    image[100:110, 20:100:4] = 255
    plain = tmp_path / "plain.tif"
    tifffile.imwrite(plain, image)
    fei = tiff_with(tmp_path / "a.tif", 34682, FEI.format(rows=120, bar="", field=""), image)

    assert read_micrograph(plain, banner="remove").metadata["banner_rows"] == 30
    assert read_micrograph(fei, banner="remove").metadata["banner_rows"] == 0


def test_fei_scan_rows_of_another_beam():
    fei = {"IScan": {"VerFieldsize": 1e-6, "PixelHeight": 1e-8}, "Scan": {}, "System": "text"}

    assert Entries(fei).scan_rows(110) == 100


@pytest.mark.parametrize(
    ("size", "expected"), [("1.235 nm", 1.235), ("2.5 µm", 2500), ("-", 711.04)]
)
def test_zeiss_has_the_pixel_of_the_image_not_of_the_monitor(tmp_path, size, expected):
    text = ZEISS.format(size=size).encode("cp1252")
    path = tiff_with(tmp_path / "a.tif", 34118, text)

    assert read_micrograph(path).pixel_size == pytest.approx(expected)
    unsplit = Entries({"ap_image_pixel_size": ("Image Pixel Size", "3 nm")})
    assert unsplit.pixel_sides("zeiss")[0] == (3, None)


@pytest.mark.parametrize(
    ("unit", "expected"),
    [("nm", 0.25), ("\\u00B5m", 250), ("micron", 250), ("pixel", None)],
)
def test_imagej(tmp_path, unit, expected):
    """On every page."""
    metadata = {"unit": unit, "axes": "ZYX"}
    stack = np.stack([GREY] * 2)
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, resolution=(4, 4), metadata=metadata)

    for page in (0, 1):
        micrograph = read_micrograph(tmp_path / "a.tif", page=page)
        assert micrograph.pixel_size == pytest.approx(expected)


@pytest.mark.parametrize(
    ("unit", "expected"), [(None, 250), ("µm", 250), ("Å", 0.025), ("pixel", None)]
)
def test_ome(tmp_path, unit, expected):
    metadata = {"axes": "YX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
    if unit:
        metadata |= {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
    tifffile.imwrite(tmp_path / "a.ome.tif", GREY, ome=True, metadata=metadata)

    assert read_micrograph(tmp_path / "a.ome.tif").pixel_size == pytest.approx(expected)


def test_ome_without_a_size():
    assert ome_pixel_sides("<OME/>", 0) == (None, None)
    assert ome_pixel_sides('<OME><Image><Pixels SizeX="3"/></Image></OME>', 0) == (None, None)
    assert ome_pixel_sides("<Pixels PhysicalSizeX='2' PhysicalSizeXUnit='&#181;m'>", 0)[0] == 2000


def test_each_page_of_ome_has_the_size_of_its_own_image(tmp_path):
    """An overview of 100 nm per pixel, and two images of a stack of 5 nm."""
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        for images, size in ((GREY, 0.1), (np.stack([GREY, GREY]), 0.005)):
            sizes = {"PhysicalSizeX": size, "PhysicalSizeY": size}
            writer.write(images, metadata={"axes": "ZYX"[3 - images.ndim :], **sizes})

    sizes = [read_micrograph(tmp_path / "a.ome.tif", page=page).pixel_size for page in range(3)]

    assert sizes == pytest.approx([100, 5, 5])


def ome(*planes, sizes=(2, 3)):
    """The text of two images with these elements `TiffData`, as Bio-Formats and others write it."""
    images = (
        f'<Image><Pixels PhysicalSizeX="{size}" PhysicalSizeXUnit="nm">{plane}</Pixels></Image>'
        for size, plane in zip(sizes, planes, strict=True)
    )
    return f'<OME UUID="urn:uuid:1">{"".join(images)}</OME>'


OTHER = '<TiffData IFD="0"><UUID FileName="b.ome.tif">urn:uuid:2</UUID></TiffData>'
OWN = '<TiffData IFD="0"><UUID FileName="a.ome.tif">urn:uuid:1</UUID></TiffData>'


@pytest.mark.parametrize(
    ("xml", "directory", "expected"),
    [
        (ome('<TiffData IFD="0"/>', '<TiffData IFD="1" PlaneCount="2"/>'), 2, 3),
        (ome('<TiffData IFD="0"/>', '<TiffData IFD="1"/>'), 2, None),  # it belongs to neither
        (ome("<TiffData/>", "<TiffData/>"), 1, None),  # or to both
        (ome("<TiffData/>", "<TiffData/>", sizes=(2, 2)), 1, 2),
        (ome(OTHER, OWN), 0, 3),
        (ome(OTHER, OTHER), 0, None),
        (ome(OTHER, OWN).replace("<", "<OME:").replace("<OME:/", "</OME:"), 0, 3),
        (ome("<MetadataOnly/>", '<TiffData IFD="x" PlaneCount="y"/>'), 0, 3),
    ],
)
def test_the_image_of_an_ome_page(xml, directory, expected):
    assert ome_pixel_sides(xml, directory)[0] == expected


def test_dots_per_inch_are_not_a_pixel_size(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GREY, resolution=(300, 300), resolutionunit="INCH")
    Image.fromarray(GREY).save(tmp_path / "a.png", dpi=(300, 300))

    assert read_micrograph(tmp_path / "a.tif").pixel_size is None
    assert read_micrograph(tmp_path / "a.png").pixel_size is None


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (1, "m", 1e9),
        ("2", " nm ", 2),
        (3, "Å", 0.3),
        (3, "\u212b", 0.3),
        (1, "\u03bcm", 1e3),
        (0, "nm", None),
        (float("nan"), "nm", None),
        (float("inf"), "nm", None),
        (1, "1/nm", None),
        (1, None, None),
        (None, "nm", None),
        ("one", "nm", None),
    ],
)
def test_lengths(value, unit, expected):
    assert length_in_nm(value, unit) == (None if expected is None else pytest.approx(expected))


def write_imagej(path, across, down):
    resolution = (1 / across, 1 / down)
    tifffile.imwrite(path, GREY, imagej=True, resolution=resolution, metadata={"unit": "nm"})


def write_ome(path, across, down):
    sides = {"PhysicalSizeX": across, "PhysicalSizeY": down}
    units = dict.fromkeys(("PhysicalSizeXUnit", "PhysicalSizeYUnit"), "nm")
    tifffile.imwrite(path, GREY, ome=True, metadata={"axes": "YX", **sides, **units})


def write_fei(path, across, down):
    text = FEI.replace("PixelWidth=4.88281e-009", f"PixelWidth={across * 1e-9}")
    text = text.replace("PixelHeight=4.88281e-009", f"PixelHeight={down * 1e-9}")
    tiff_with(path, 34682, text.format(field="", rows="", bar=""))


def write_mrc(path, across, down):
    path.write_bytes(mrc_bytes(GREY[None], (10 * across, 10 * down), imod_flags=0))


@pytest.mark.parametrize("write", [write_imagej, write_ome, write_fei, write_mrc])
def test_pixels_that_are_not_square_have_no_size(tmp_path, write):
    """One pixel size would be wrong along one of the axes."""
    name = "a.mrc" if write is write_mrc else "a.ome.tif" if write is write_ome else "a.tif"
    write(tmp_path / name, 5.0, 10.0)
    oblong = read_micrograph(tmp_path / name)
    write(tmp_path / f"square.{name}", 5.0, 5.03)
    square = read_micrograph(tmp_path / f"square.{name}")

    assert oblong.pixel_size is None
    assert oblong.metadata["pixel_sides_nm"] == pytest.approx([5, 10], rel=1e-5)
    assert square.pixel_size == pytest.approx(5, rel=1e-5)
    assert "pixel_sides_nm" not in square.metadata


@pytest.mark.parametrize(
    ("side", "is_used"), [(9e-4, False), (2e-3, True), (9e5, True), (2e6, False)]
)
def test_sizes_below_1_pm_and_above_1_mm_are_not_used(tmp_path, side, is_used):
    write_ome(tmp_path / "a.ome.tif", side, side)
    micrograph = read_micrograph(tmp_path / "a.ome.tif")

    kept = micrograph.metadata.get("implausible_pixel_sides_nm")
    assert micrograph.pixel_size == (pytest.approx(side) if is_used else None)
    assert kept == (None if is_used else pytest.approx([side, side]))


def test_a_pixel_with_one_known_side_is_assumed_square():
    assert square_pixel_size((None, 3.0)) == square_pixel_size((3.0, None)) == 3.0


@pytest.mark.parametrize(
    ("text", "pixels"),
    [
        (1.75, 1.75),
        (" 32 px ", 32),
        ("500nm", 125),
        (".5um", 125),
        ("5e-4 mm", 125),
    ],
)
def test_lengths_become_pixels(text: str | float, pixels: float) -> None:
    assert length_in_pixels(text, pixel_size=4.0) == pytest.approx(pixels)


@pytest.mark.parametrize("text", ["", "nm", "0", "nan", "3 apples", "1e999", "3 4"])
def test_invalid_lengths_are_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="is not a length; give a number of pixels"):
        parse_length(text)


def test_a_unit_needs_a_pixel_size() -> None:
    with pytest.raises(ValueError, match="500nm cannot be converted to pixels, as the pixel size"):
        length_in_pixels("500nm")


@pytest.mark.parametrize(
    "parse",
    [
        lambda: ome_pixel_sides("<Pixels " * 50_000, 0),
        lambda: ome_pixel_sides('<Pixels PhysicalSizeX="' * 50_000, 0),
        lambda: ome_pixel_sides("<Pixels" + " PhysicalSizeX = " * 50_000 + ">", 0),
        lambda: ome_pixel_sides("<Pixels " + "x" * 50_000 + ">", 0),
        lambda: ome_pixel_sides("<Pixels>" + "<TiffData><UUID></UUID>" * 50_000, 0),
    ],
)
def test_hostile_metadata_take_no_more_time_than_their_length(parse):
    started = time.perf_counter()
    assert parse() in (None, (None, None))
    assert time.perf_counter() - started < 1
