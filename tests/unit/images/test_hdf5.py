"""EMD files of Velox and of Berkeley, and DM5 files."""

from __future__ import annotations

import struct
import zlib

import h5py
import imagecodecs
import ncempy.io  # starts a process on import, which a unit test must not do
import numpy as np
import pytest
from support.golden import check_golden, digest, values
from support.hdf5_files import velox_metadata, write_dm5, write_velox

from hypervlad.images import ImageReadError, read_image, read_micrograph

STACK = values("u2", shape=(3, 30, 40)) >> 4
GREY = STACK[0]

# --- Velox --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "gzip"},
        {"compression": "lzf", "shuffle": True},
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
    ],
    ids=str,
)
def test_velox_frames_are_pages(tmp_path, options):
    facts = velox_metadata()
    path = write_velox(tmp_path / "a.emd", [(STACK, facts)], **options)
    check_golden(path, STACK, 0.5, detector="HAADF", velox=facts)
    with ncempy.io.emdVelox.fileEMDVelox(path) as file:
        pixels = file.get_dataset(0)[0]
    assert digest(path, page=1) == digest(pixels[:, :, 1])


def test_images_of_velox_are_in_order_of_detector_and_size(tmp_path):
    haadf, survey, bf, unnamed = STACK[0], STACK[0, :9], STACK[1], STACK[2]
    images = [(unnamed, ""), (survey, "HAADF"), (haadf, "HAADF"), (bf, "BF")]
    stored = [(pixels[None], velox_metadata(detector)) for pixels, detector in images]
    del stored[0][1]["BinaryResult"]["DetectorIndex"]
    path = write_velox(tmp_path / "a.emd", stored)
    check_golden(path, [bf, haadf, survey, unnamed], 0.5)
    found = [read_micrograph(path, page=page).metadata["detector"] for page in range(4)]
    assert found == ["BF", "HAADF", "HAADF", ""]


@pytest.mark.parametrize("version", [9, 13])
def test_images_of_velox_are_in_order_of_title_the_computed_ones_last(tmp_path, version):
    titles = ["Filtered iDPC", "DF4-B", "DF4-A"]
    stacks = [STACK[:1].astype(np.float32), STACK[1:2], STACK[2:]]
    images = [(stack, velox_metadata("DF4")) for stack in stacks]
    path = write_velox(tmp_path / "a.emd", images, titles=titles, version=version)
    check_golden(path, [stack[0] for stack in stacks[::-1]], 0.5)
    found = [read_micrograph(path, page=page).metadata["title"] for page in range(3)]
    assert found == ["DF4-A", "DF4-B", "Filtered iDPC"]


def test_each_frame_of_velox_has_its_own_metadata(tmp_path):
    zooms = [velox_metadata(pixel=(side, side)) for side in (1e-9, 2e-9, 3e-9)]
    check_golden(write_velox(tmp_path / "a.emd", [(STACK, zooms)]), STACK, [1, 2, 3])


@pytest.mark.parametrize(
    ("metadata", "size", "detector"),
    [
        (velox_metadata(detector="", pixel=(1e-10, 1e-10)), 0.1, "Ceta"),  # by its number
        (velox_metadata(unit="1/m"), None, "HAADF"),  # diffraction
        (velox_metadata(pixel=(1e-9, 3e-9)), None, "HAADF"),  # not square
        ({"BinaryResult": ["?"]}, None, ""),
        ("?", None, ""),
    ],
)
def test_metadata_of_velox(tmp_path, metadata, size, detector):
    path = write_velox(tmp_path / "a.emd", [(STACK[:1], metadata)])
    check_golden(path, STACK[:1], size, detector=detector)


def test_what_velox_stores_beside_images_is_named(tmp_path):
    complex_type = [("realFloatHalfEven", "<f4"), ("imagFloatHalfEven", "<f4")]
    images = [(GREY[None].astype(complex_type), velox_metadata()), (STACK[:1], velox_metadata())]
    path = write_velox(tmp_path / "a.emd", images, ["SpectrumStream", "Text"])
    check_golden(path, [GREY], 0.5, left_out=["SpectrumStream", "an image of complex values"])


# --- Berkeley and DM5 ---------------------------------------------------------------------------


def test_berkeley_axes_are_found_by_name(tmp_path):
    y, x = (np.arange(30) * 0.5, "y", "[n_m]"), (np.arange(40) * 0.5, "R_x", "nm")
    t = (np.arange(3.0), "energy", "eV")
    file = ncempy.io.emd.fileEMD(tmp_path / "a.emd", readonly=False)
    file.put_emdgroup("a", STACK, (t, y, x))
    file.put_emdgroup("b", STACK[::-1].T.copy(), (x, y, t))
    del file
    check_golden(tmp_path / "a.emd", [*STACK, *STACK[::-1]], 0.5)


@pytest.mark.parametrize(
    ("units", "size"),
    [
        (b"nm\0\0", 0.5),
        ("µm".encode(), 500),
        ("µm".encode("latin-1"), 500),
        ("μm".encode("gb2312"), 500),
        ("Å".encode("latin-1"), 0.05),
        (b"1/nm", None),
        (b"", None),
    ],
)
def test_dm5(tmp_path, units, size):
    path = write_dm5(tmp_path / "a.dm5", [STACK[1], STACK], units=units)
    check_golden(path, [STACK[1], *STACK], size, gatan={"Voltage": 200000, "Name": "Titan"})


def test_dm5_of_colours_and_of_spectra(tmp_path):
    colours = values("u1", samples=3, shape=(30, 40))
    alpha = np.full((30, 40, 1), 9, np.uint8)
    packed = np.dstack([colours[..., ::-1], alpha]).view("<u4")[..., 0]
    check_golden(write_dm5(tmp_path / "a.dm5", [colours], thumbnail=False), [colours], 0.5)
    check_golden(write_dm5(tmp_path / "b.dm5", [packed]), [colours], 0.5)
    spectra = write_dm5(tmp_path / "c.dm5", [GREY[0], GREY[:1], GREY])
    with h5py.File(spectra, "r+") as file:
        tags = file.create_group("ImageList/[3]/ImageTags/Meta Data")
        tags.attrs["Format"] = np.bytes_("Spectrum image")
    with pytest.raises(ImageReadError, match="a Gatan file without an image, or of spectra"):
        read_image(spectra)


@pytest.mark.parametrize(
    ("number", "encode", "skipped"),
    [
        (32001, imagecodecs.blosc_encode, 0),
        (32015, imagecodecs.zstd_encode, 0),
        (1, zlib.compress, 0),
        (1, bytes, 1),  # a chunk that gzip would lengthen is stored as it is
    ],
)
def test_chunks_are_decoded_by_their_own_filters(tmp_path, number, encode, skipped):
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_chunk((16, 40))
    layout.set_filter(number, h5py.h5z.FLAG_OPTIONAL, (4,) if number == 1 else ())
    with h5py.File(tmp_path / "a.dm5", "w") as file:
        group = file.create_group("ImageList/[0]/ImageData").id
        space = h5py.h5s.create_simple(GREY.shape)
        data = h5py.h5d.create(group, b"Data", h5py.h5t.STD_U16LE, space, layout)
        for start in (0, 16):
            rows = np.zeros((16, 40), np.uint16)
            rows[: len(GREY) - start] = GREY[start : start + 16]
            data.write_direct_chunk((start, 0), encode(rows.tobytes()), skipped)
    check_golden(tmp_path / "a.dm5", [GREY])


# --- files that are refused ---------------------------------------------------------------------


def write_endless(path, number, length):
    """Texts in a heap whose last entry has this number and length."""
    with h5py.File(path, "w") as file:
        group = file.create_group("a")
        group.attrs["emd_group_type"] = 1
        group["data"] = GREY
        group["dim1"] = np.arange(30.0)
        group["dim1"].attrs["name"] = "y" * 5000  # in a heap that the library reads in two parts
        group["dim1"].attrs["units"] = "nm"
    content = bytearray(path.read_bytes())
    last = content.index(b"GCOL\x01\0\0\0") + 16 + 16 + 5000
    content[last : last + 32] = struct.pack("<H6xQ16x", number, length)
    path.write_bytes(content)


def write_many(path, place, n):
    with h5py.File(path, "w") as file:
        group = file.create_group(f"{place}/0")
        for number in range(1, n):
            file[f"{place}/{number}"] = group if place == "ImageList" else file.create_group(None)


def write_wordy(path):
    write_velox(path, [(STACK[:1], velox_metadata())])
    with h5py.File(path, "a") as file:
        images = file["Data/Image"]
        (group,) = images.values()
        for number in range(1000):
            images[str(number)] = group


def write_other(path):
    with h5py.File(path, "w") as file:
        file["entry/data"] = GREY


def write_bomb(path):
    write_dm5(path, [GREY], thumbnail=False, compression="gzip", chunks=(30, 40))
    with h5py.File(path, "r+") as file:
        data = file["ImageList/[0]/ImageData/Data"]
        data.id.write_direct_chunk((0, 0), zlib.compress(bytes(30_000_000)))
        data.id.write_direct_chunk((0, 0), zlib.compress(bytes(4_000_000)))


def write_linked(path, kind):
    """Make the image of a DM5 file a link."""
    write_dm5(path.with_name("target.h5"), [GREY], thumbnail=False)
    links = {
        "soft": h5py.SoftLink("/elsewhere"),
        "external": h5py.ExternalLink("target.h5", "/ImageList/[0]/ImageData"),
    }
    with h5py.File(path, "w") as file:
        file["elsewhere/Data"] = GREY
        if kind in links:
            file["ImageList/[0]/ImageData"] = links[kind]
        elif kind == "virtual":
            layout = h5py.VirtualLayout(GREY.shape, GREY.dtype)
            layout[:] = h5py.VirtualSource("target.h5", "/ImageList/[0]/ImageData/Data", GREY.shape)
            file.create_virtual_dataset("ImageList/[0]/ImageData/Data", layout)
        else:
            path.with_name("a.raw").write_bytes(GREY.tobytes())
            group = file.create_group("ImageList/[0]/ImageData")
            options = {"external": [("a.raw", 0, GREY.nbytes)]}
            group.create_dataset("Data", GREY.shape, GREY.dtype, **options)


REFUSED = {
    "endless texts": (lambda p: write_endless(p, 0, 0), "a heap of texts without an end"),
    "long text": (lambda p: write_endless(p, 9, 2**64 - 16), "a heap of texts without an end"),
    "wordy": (write_wordy, "more than 33,554,432 bytes of metadata; export"),
    "many images": (lambda p: write_many(p, "ImageList", 10_001), "more than 10,000 groups and"),
    "many groups": (lambda p: write_many(p, "entry", 10_001), "more than 10,000 groups and arrays"),
    "other": (write_other, r"EMD \(Velox, Berkeley 0.2\) or DM5 \(with '/entry/data'\).*python -c"),
    "spectra": (
        lambda p: write_velox(p, [], ["Spectrum", "SpectrumStream"]),
        r"image that is read \(Spectrum, SpectrumStream\)",
    ),
    "filter": (
        lambda p: write_dm5(p, [GREY.view("i2")], thumbnail=False, scaleoffset=0),
        "the HDF5 filter 6 .*h5repack -f GZIP=1",
    ),
    "bomb": (write_bomb, "damaged or truncated HDF5"),
    "soft link": (lambda p: write_linked(p, "soft"), "links are not followed"),
    "external link": (lambda p: write_linked(p, "external"), "links are not followed"),
    "virtual": (lambda p: write_linked(p, "virtual"), "in other files, which are not opened"),
    "raw": (lambda p: write_linked(p, "raw"), "in other files, which are not opened"),
}


@pytest.mark.parametrize(
    "case",
    # Writing 10,001 groups takes seconds.
    [pytest.param(case, marks=[pytest.mark.full] * (case == "many groups")) for case in REFUSED],
)
def test_files_that_are_not_read_say_why(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)  # to which links would lead
    write, words = REFUSED[case]
    write(tmp_path / "a.h5")
    with pytest.raises(ImageReadError, match=rf"a\.h5: .*{words}"):
        read_image(tmp_path / "a.h5")
