"""DM3, DM4, MRC and SER files: pages, pixel sizes, errors."""

from __future__ import annotations

import struct
import sys

import ncempy.io  # noqa: F401 - starts a process on import, which a unit test must not do
import numpy as np
import pytest
from support.microscopy_files import DM, mrc_bytes, ser_bytes

from hypervlad.images import ImageReadError, PartlyReadWarning, read_image, read_micrograph

GREY = np.random.default_rng(0).integers(0, 4096, (30, 40)).astype(np.uint16)


def write(path, content):
    path.write_bytes(content)
    return path


STACK = np.stack([GREY, GREY // 2])


@pytest.mark.parametrize(
    ("name", "content", "pixel_size"),
    [
        ("a.mrc", mrc_bytes(STACK), 0.25),
        ("no_suffix", mrc_bytes(STACK), 0.25),
        ("b.mrc", mrc_bytes(STACK, voxel=0), None),
        ("a.ser", ser_bytes(list(STACK)), 1.5),
        ("a.dm3", DM(3).file(STACK), 0.5),
        ("a.dm4", DM(4).file(STACK), 0.5),
        ("micrometres.dm3", DM(3).file(STACK, 0.002, "µm"), 2),
        ("diffraction.dm3", DM(3).file(STACK, 0.1, "1/nm"), None),
    ],
)
def test_pages_have_their_pixels_and_the_pixel_size(tmp_path, capsys, name, content, pixel_size):
    path = write(tmp_path / name, content)

    for page, expected in enumerate(STACK):
        micrograph = read_micrograph(path, page=page)
        assert micrograph.digest == read_micrograph(expected).digest
        assert micrograph.pixel_size == pytest.approx(pixel_size)
    with pytest.raises(ImageReadError, match="page 2 was requested, but the file has 2 images"):
        read_image(path, page=2)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "content", "lengths"),
    [
        ("MRC", mrc_bytes(GREY[None]), (500, -100)),
        ("SER", ser_bytes([GREY]), (20, 60, 500)),
        ("DM", DM(3).file(GREY), (10, 100, -500)),
    ],
)
def test_truncated_files_are_refused(tmp_path, name, content, lengths):
    path = tmp_path / f"a.{name.lower()}"
    for keep in lengths:
        with pytest.raises(ImageReadError, match=f"damaged or truncated {name}"):
            read_image(write(path, content[:keep]))


def test_a_ser_is_read_whatever_lies_beside_it(tmp_path):
    write(tmp_path / "a.emi", b"JL" + b"\xff<ObjectInfo" * 40)
    path = write(tmp_path / "a_1.ser", ser_bytes([GREY]))

    assert read_micrograph(path).digest == read_micrograph(GREY).digest


def test_ser_of_spectra(tmp_path):
    content = ser_bytes([GREY]).replace(struct.pack("<i", 0x4122), struct.pack("<i", 0x4120), 1)

    with pytest.raises(ImageReadError, match="a SER file of spectra, not of images; leave it out"):
        read_image(write(tmp_path / "a.ser", content))


def test_dm_without_an_image(tmp_path):
    root = DM(3).group(None, DM(3).int("Mode", 1))
    content = struct.pack(">3I", 3, len(root), 1) + root + bytes(8)

    with pytest.raises(ImageReadError, match="a Gatan file without an image; export it as TIFF"):
        read_image(write(tmp_path / "a.dm3", content))


def test_the_microscopes_tags_are_metadata(tmp_path):
    path = write(tmp_path / "a.dm3", DM(3).file(GREY))

    assert read_micrograph(path).metadata["gatan"]["Voltage"] == 200000


@pytest.mark.parametrize("name", ["a.dm3", "a.ser"])
def test_pixels_that_are_not_square_have_no_size(tmp_path, name):
    content = DM(3).file(GREY, (0.5, 1.5)) if name == "a.dm3" else ser_bytes([GREY], 0.5e-9, 1.5e-9)

    micrograph = read_micrograph(write(tmp_path / name, content))

    assert micrograph.pixel_size is None
    assert micrograph.metadata["pixel_sides_nm"] == pytest.approx([0.5, 1.5])


def test_dm_of_two_images_gives_the_first_with_a_warning(tmp_path):
    dm = DM(3)
    images = [dm.image(each, 0.5, "nm", 10) for each in (GREY, GREY[:9] // 2)]
    path = write(tmp_path / "a.dm3", dm.files(*images))

    with pytest.warns(PartlyReadWarning, match="several pages, sections or frames"):
        assert read_micrograph(path).digest == read_micrograph(GREY).digest
    assert read_micrograph(path, page=1).digest == read_micrograph(GREY[:9] // 2).digest


def test_dm_thumbnail_is_no_image(tmp_path):
    dm = DM(3)
    thumbnail = dm.image(np.zeros((4, 5), np.uint32), 1.0, "", 23)
    path = write(tmp_path / "a.dm3", dm.files(thumbnail, dm.image(GREY, 0.25, "nm", 10)))

    micrograph = read_micrograph(path)

    assert micrograph.digest == read_micrograph(GREY).digest
    assert micrograph.pixel_size == pytest.approx(0.25)
    with pytest.raises(ImageReadError, match="a Gatan image of RGB pixels; export it as TIFF"):
        read_image(write(tmp_path / "b.dm3", dm.files(thumbnail)))


@pytest.mark.parametrize(
    ("name", "content", "module", "kind"),
    [
        ("a.mrc", mrc_bytes(GREY[None]), "mrcfile", "MRC"),
        ("a.dm3", DM(3).file(GREY), "ncempy", "DM3 and DM4"),
    ],
)
def test_a_missing_extra_says_what_to_install(tmp_path, monkeypatch, name, content, module, kind):
    for loaded in [m for m in sys.modules if m.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    path = write(tmp_path / name, content)

    with pytest.raises(ImageReadError) as error:
        read_image(path)

    assert str(error.value).startswith(f"{path}: {kind} files need {module}")
    assert str(error.value).endswith('pip install "hypervlad[formats]"')
