"""DM3, DM4, MRC and SER files: pages, pixel sizes, signs, spectra."""

import struct

import ncempy.io  # starts a process on import, which a unit test must not do
import numpy as np
import pytest
from support.golden import check_golden, digest, values
from support.microscopy_files import DM, MRC_MODES, mrc_bytes, ser_bytes

from hypervlad.images import ImageReadError, read_image, read_micrograph

GREY = values("u2", shape=(30, 40)) >> 4
STACK = np.stack([GREY, GREY // 2])
RGB = values("u1", samples=3, shape=(30, 40))
FEI_HEAD = struct.pack("<32f", *[0] * 11, 2e-9, *[0] * 20) + bytes(1023 * 128)


def dm(version, *images):
    """A file of images (pixels, scale, unit, data type), or of what else the list contains."""
    made = DM(version)
    return made.files(*(i if isinstance(i, bytes) else made.image(*i) for i in images))


def packed(rgb):
    """Colours as Gatan stores them: blue, green, red and alpha."""
    alpha = np.full((*rgb.shape[:2], 1), 7, np.uint8)
    return np.concatenate([rgb[..., ::-1], alpha], axis=2).view("<u4")[..., 0]


UNSIGNED = np.array([[0, 127, 128, 255] * 5] * 20, np.uint8)
SIGNED = UNSIGNED.view(np.int8)
SIGNS = [
    *(({"imod_flags": 0}, UNSIGNED), ({"limits": (0, 255)}, UNSIGNED)),
    *(({"imod_flags": 1}, SIGNED), ({"imod_flags": 1, "limits": (0, 255)}, SIGNED)),
    *(({"limits": (-128, 127)}, SIGNED), ({}, SIGNED)),
]
# The byte order is that of the sizes, as programs write other stamps, or none.
STAMPS = [b"MAP \x44\0\0\0", b"MAP \x44\x41\0\0", b"MAP \x11\x11\0\0", b"MAP ", bytes(8)]


THUMBNAIL = (np.zeros((4, 5), np.uint32), 1.0, "", 23)
DEEP = values("u2", shape=(2, 3, 7, 9))
# name: content, pages, pixel size in nm
GOLDEN = {
    "mrc": (mrc_bytes(STACK), STACK, 0.25),
    "mrc without a size": (mrc_bytes(STACK, voxel=0), STACK, None),
    "mrc of fei": (mrc_bytes(STACK, extended=FEI_HEAD, extended_numbers=(0, 32)), STACK, 2),
    "mrc like fei": (mrc_bytes(STACK, extended=FEI_HEAD), STACK, 0.25),
    **{
        f"mrc, {dtype} {order}": (
            mrc_bytes(values(dtype)[None], order=order, limits=(values(dtype).min(), 255)),
            [values(dtype)], 0.25,
        )
        for dtype in MRC_MODES for order in "<>"
    },
    **{
        f"mrc, sign {number} {order}": (
            mrc_bytes(UNSIGNED[None], order=order, **header), [pixels], 0.25
        )
        for number, (header, pixels) in enumerate(SIGNS) for order in "<>"
    },
    **{
        f"mrc, stamp {marks} {order}": (mrc_bytes(STACK, order=order, marks=marks), STACK, 0.25)
        for marks in STAMPS for order in "<>"
    },
    "ser": (ser_bytes(list(STACK)), STACK, 1.5),
    "ser, 64 bits": (ser_bytes(list(STACK), version=0x0220), STACK, 1.5),
    "ser, oblong": (ser_bytes([GREY], 0.5e-9, 1.5e-9), [GREY], None),
    "dm3": (dm(3, (STACK, 0.5, "nm", 10)), STACK, 0.5),
    "dm4": (dm(4, (STACK, 0.5, "nm", 10)), STACK, 0.5),
    "dm3 in um": (dm(3, (STACK, 0.002, "µm", 10)), STACK, 2),
    "dm4, four dimensions": (dm(4, (DEEP, 0.5, "nm", 10)), DEEP.reshape(6, 7, 9), 0.5),
    "dm3, diffraction": (dm(3, (STACK, 0.1, "1/nm", 10)), STACK, None),
    "dm3, oblong": (dm(3, (GREY, (0.5, 1.5), "nm", 10)), [GREY], None),
    "dm3, two images": (dm(3, (GREY, 0.5, "nm", 10), (GREY[:9], 2, "nm", 10)), [GREY, GREY[:9]],
                        [0.5, 2]),
    "dm3, thumbnail": (dm(3, THUMBNAIL, (GREY, 0.5, "nm", 10)), [GREY], 0.5),
    "dm3, colours": (dm(3, THUMBNAIL, (packed(RGB), 0.5, "nm", 8)), [RGB], 0.5),
    "dm3, colours only": (dm(3, (packed(RGB), 0.5, "nm", 23)), [RGB], 0.5),
    "dm3, true and false": (dm(3, ((GREY > 2000).astype("u1"), 0.5, "nm", 14)), [GREY > 2000], 0.5),
    "dm3, signed": (dm(3, (STACK.view("i2"), 0.5, "nm", 1)), STACK.view("i2"), 0.5),
    "dm3, floats": (dm(3, (STACK.astype("f4"), 0.5, "nm", 2)), STACK.astype("f4"), 0.5),
    "dm3, energies": (
        DM(3).file(STACK, (0.5, 0.5, 3.0), content="Spectrum image"), STACK, 0.5
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", GOLDEN)
def test_pages_have_their_pixels_and_the_pixel_size(tmp_path, case, capsys):
    content, pages, size = GOLDEN[case]
    path = tmp_path / ("a.mrc" if "stamp" in case else "a")  # known by its name, without a mark
    path.write_bytes(content)
    check_golden(path, pages, size, cut=[0.002, 0.3])
    metadata = read_micrograph(path, page=0).metadata
    assert metadata.get("pixel_sides_nm", [0.5, 1.5]) == pytest.approx([0.5, 1.5])
    assert ("pixel_sides_nm" in metadata) is ("oblong" in case)
    assert metadata.get("gatan") == ({"Voltage": 200000} if case.startswith("dm") else None)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("case", ["ser", "ser, 64 bits", "dm3", "dm4, four dimensions"])
def test_pages_are_those_of_ncempy(tmp_path, case):
    path = tmp_path / "a"
    path.write_bytes(GOLDEN[case][0])
    if case.startswith("ser"):
        with ncempy.io.ser.fileSER(path) as file:
            pages = [file.getDataset(page)[0] for page in range(2)]
    else:
        with ncempy.io.dm.fileDM(path) as file:
            found = np.array(file.getDataset(0)["data"])
            pages = list(found.reshape(-1, *found.shape[-2:]))
    assert [digest(path, page=page) for page in range(len(pages))] == list(map(digest, pages))


def test_bytes_of_mrc_that_look_unsigned_are_a_warning(tmp_path):
    grey = np.clip(np.random.default_rng(0).normal(120, 30, (1, 40, 50)), 0, 255).astype(np.uint8)
    signed, path = (grey.astype(int) - 128).astype(np.int8), tmp_path / "a.mrc"
    path.write_bytes(mrc_bytes(grey))
    with pytest.warns(UserWarning, match=f"{tmp_path}: MRC files of bytes without a sign flag"):
        read_image(path)
    for content in (mrc_bytes(signed), mrc_bytes(grey, imod_flags=1)):
        path.write_bytes(content)
        read_image(path)  # no warning


def test_a_ser_is_read_whatever_lies_beside_it(tmp_path):
    (tmp_path / "a.emi").write_bytes(b"JL" + b"\xff<ObjectInfo" * 40)
    (tmp_path / "a_1.ser").write_bytes(ser_bytes([GREY]))
    check_golden(tmp_path / "a_1.ser", [GREY], 1.5)


def test_the_lengths_of_a_diffraction_pattern_are_no_pixel_size(tmp_path):
    """TIA stores reciprocal metres, and nothing that says so."""
    (tmp_path / "a.ser").write_bytes(ser_bytes([GREY], 1e8))
    found = read_micrograph(tmp_path / "a.ser", pixel_size=2)
    assert found.pixel_size == 2
    assert found.metadata["implausible_pixel_sides_nm"] == pytest.approx([1e17, 1e17])


@pytest.mark.parametrize(
    ("spectra", "content"),
    [(GREY[0], "Spectrum"), (GREY[:1], ""), (GREY[:, :1], ""), (GREY, "Spectrum image")],
)
def test_spectra_in_dm_are_no_images(tmp_path, spectra, content):
    """One or a line of them, whatever their unit, such as the wavelength of light in nm."""
    spectrum, path = DM(4).image(spectra, 0.5, "nm", 10, content), tmp_path / "a.dm4"
    path.write_bytes(dm(4, (GREY, 0.25, "nm", 10), spectrum))
    check_golden(path, [GREY], 0.25, cut=[0.3])
    path.write_bytes(dm(4, THUMBNAIL, spectrum))
    with pytest.raises(ImageReadError, match="spectra only; leave it out"):
        read_image(path)
