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


def test_the_lengths_of_a_diffraction_pattern_are_no_pixel_size(tmp_path):
    """TIA stores reciprocal metres, and nothing that says so."""
    path = write(tmp_path / "a.ser", ser_bytes([GREY], 1e8))
    micrograph = read_micrograph(path)

    assert micrograph.pixel_size is None
    assert micrograph.metadata["implausible_pixel_sides_nm"] == pytest.approx([1e17, 1e17])
    assert read_micrograph(path, pixel_size=2).pixel_size == 2


BYTES = np.array([[0, 127, 128, 255] * 5] * 20, dtype=np.uint8)
WRAPPED = [0.5, 1, 0, 0.5] * 5  # as signed bytes are scaled: -128 is black


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("header", "grey"),
    [
        ({"imod_flags": 0}, BYTES[0] / 255),
        ({"imod_flags": 1}, WRAPPED),
        ({"imod_flags": 1, "limits": (0, 255)}, WRAPPED),
        ({"limits": (0, 255)}, BYTES[0] / 255),
        ({"limits": (-128, 127)}, WRAPPED),
        ({}, WRAPPED),
    ],
)
def test_bytes_of_mrc_have_the_sign_that_the_header_says(tmp_path, order, header, grey):
    path = write(tmp_path / "a.mrc", mrc_bytes(BYTES[None], order=order, **header))

    np.testing.assert_allclose(read_image(path)[0], grey, atol=0.003)


def test_bytes_of_mrc_that_look_unsigned_are_a_warning(tmp_path):
    grey = np.clip(np.random.default_rng(0).normal(120, 30, (1, 40, 50)), 0, 255).astype(np.uint8)
    signed = (grey.astype(int) - 128).astype(np.int8)

    with pytest.warns(UserWarning, match=f"{tmp_path}: MRC files of bytes without a sign flag"):
        read_image(write(tmp_path / "a.mrc", mrc_bytes(grey)))
    read_image(write(tmp_path / "b.mrc", mrc_bytes(signed)))  # no warning
    read_image(write(tmp_path / "c.mrc", mrc_bytes(grey, imod_flags=1)))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    "marks", [b"MAP \x44\0\0\0", b"MAP \x44\x41\0\0", b"MAP \x11\x11\0\0", b"MAP ", bytes(8)]
)
def test_mrc_of_any_machine_stamp(tmp_path, marks, order):
    """The byte order is that of the sizes, as programs write other stamps, or none."""
    path = write(tmp_path / "a.mrc", mrc_bytes(STACK, order=order, marks=marks))

    assert read_micrograph(path, page=1).digest == read_micrograph(STACK[1]).digest


@pytest.mark.parametrize(
    ("mode", "flags", "what"),
    [
        (4, None, "complex"),
        (16, None, "RGB"),
        (101, None, "4 bits"),
        (0, 17, "4 bits"),
        (9, 0, "no MRC"),
    ],
)
def test_mrc_of_another_mode(tmp_path, mode, flags, what):
    content = mrc_bytes(STACK, mode=mode, imod_flags=flags)

    with pytest.raises(ImageReadError, match=f"an MRC file of mode .* \\(.*{what}.*; export it as"):
        read_image(write(tmp_path / "a.mrc", content))


def test_mrc_of_fei_has_its_pixel_size_in_the_extended_header(tmp_path):
    extended = struct.pack("<32f", *[0] * 11, 2e-9, *[0] * 20) + bytes(1023 * 128)
    for numbers, pixel_size in (((0, 32), 2), ((0, 0), 0.25)):
        content = mrc_bytes(STACK, extended=extended, extended_numbers=numbers)
        micrograph = read_micrograph(write(tmp_path / "a.mrc", content), page=0)

        assert micrograph.pixel_size == pytest.approx(pixel_size)
        assert micrograph.digest == read_micrograph(GREY).digest


def test_dm_without_an_image(tmp_path):
    root = DM(3).group(None, DM(3).int("Mode", 1))
    content = struct.pack(">3I", 3, len(root), 1) + root + bytes(8)

    with pytest.raises(ImageReadError, match="a Gatan file without an image, or of spectra only"):
        read_image(write(tmp_path / "a.dm3", content))


@pytest.mark.parametrize(
    ("spectra", "content"),
    [(GREY[0], "Spectrum"), (GREY[:1], ""), (GREY[:, :1], ""), (GREY, "Spectrum image")],
)
def test_spectra_in_dm_are_no_images(tmp_path, spectra, content):
    """One or a line of them, whatever their unit, such as the wavelength of light in nm."""
    dm = DM(4)
    thumbnail = dm.image(np.zeros((4, 5), np.uint32), 1.0, "", 23)
    images = [dm.image(GREY, 0.25, "nm", 10), dm.image(spectra, 0.5, "nm", 10, content)]

    assert read_micrograph(write(tmp_path / "a.dm4", dm.files(*images))).metadata["n_pages"] == 1
    with pytest.raises(ImageReadError, match="spectra only; leave it out"):
        read_image(write(tmp_path / "b.dm4", dm.files(thumbnail, images[1])))


def test_energies_of_a_spectrum_image_are_pages(tmp_path):
    content = DM(3).file(STACK, (0.5, 0.5, 3.0), "nm", content="Spectrum image")

    micrograph = read_micrograph(write(tmp_path / "a.dm3", content), page=1)

    assert micrograph.digest == read_micrograph(STACK[1]).digest


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


@pytest.mark.parametrize("data_type", [8, 23])
def test_dm_of_colours(tmp_path, data_type):
    """Gatan stores them as blue, green, red and alpha."""
    dm = DM(3)
    rgb = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    stored = np.concatenate([rgb[..., ::-1], np.full((30, 40, 1), 7, np.uint8)], axis=2)
    image = dm.image(stored.view("<u4")[..., 0], 0.25, "nm", data_type)
    thumbnail = dm.image(np.zeros((4, 5), np.uint32), 1.0, "", 23)

    for images in ([image], [thumbnail, image]):
        micrograph = read_micrograph(write(tmp_path / "a.dm3", dm.files(*images)))
        assert micrograph.digest == read_micrograph(rgb).digest
        assert micrograph.pixel_size == pytest.approx(0.25)


def test_dm_of_true_and_false(tmp_path):
    mask = GREY > 2000
    path = write(tmp_path / "a.dm3", DM(3).file(mask.astype(np.uint8), data_type=14))

    assert read_micrograph(path).digest == read_micrograph(mask).digest


def test_a_missing_extra_says_what_to_install(tmp_path, monkeypatch):
    for loaded in [m for m in sys.modules if m.split(".")[0] == "ncempy"]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, "ncempy", None)
    path = write(tmp_path / "a.dm3", DM(3).file(GREY))

    with pytest.raises(ImageReadError) as error:
        read_image(path)

    assert str(error.value).startswith(f"{path}: DM3 and DM4 files need ncempy")
    assert str(error.value).endswith('pip install "hypervlad[formats]"')
