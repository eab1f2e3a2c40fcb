"""EMD and DM5 files: pages, pixel sizes, what is refused."""

from __future__ import annotations

import struct
import sys
import time
import zlib

import h5py
import imagecodecs
import ncempy.io  # starts a process on import, which a unit test must not do
import numpy as np
import pytest
from support.hdf5_files import velox_metadata, write_dm5, write_velox

from hypervlad.images import (
    ImageReadError,
    PartlyReadWarning,
    hdf5,
    read_image,
    read_micrograph,
)

STACK = np.random.default_rng(0).integers(0, 4096, (3, 30, 40)).astype(np.uint16)
GREY = STACK[0]


def digest(source, **options):
    return read_micrograph(source, **options).digest


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
    path = write_velox(tmp_path / "a.emd", [(STACK, velox_metadata())], **options)

    for page, frame in enumerate(STACK):
        micrograph = read_micrograph(path, page=page)
        assert micrograph.digest == digest(frame)
        assert micrograph.pixel_size == pytest.approx(0.5)
        assert micrograph.metadata["detector"] == "HAADF"
        assert micrograph.metadata["velox"]["Instrument"]["InstrumentClass"] == "Titan"
    with pytest.warns(PartlyReadWarning):
        read_image(path)
    with pytest.raises(ImageReadError, match="page 3 was requested, but the file has 3 images"):
        read_image(path, page=3)


def test_velox_is_read_as_by_ncempy(tmp_path):
    path = write_velox(tmp_path / "a.emd", [(STACK, velox_metadata("BF", (2e-9, 2e-9)))])
    with ncempy.io.emdVelox.fileEMDVelox(path) as file:
        pixels = file.get_dataset(0)[0]
        facts = file.metaDataJSON["BinaryResult"]

    micrograph = read_micrograph(path, page=1)

    assert micrograph.digest == digest(pixels[:, :, 1])
    assert micrograph.pixel_size == pytest.approx(1e9 * float(facts["PixelSize"]["width"]))


def test_images_of_velox_are_in_order_of_detector_and_size(tmp_path):
    haadf, survey, bf, unnamed = STACK[0], STACK[0, :9], STACK[1], STACK[2]
    images = [(unnamed, ""), (survey, "HAADF"), (haadf, "HAADF"), (bf, "BF")]
    stored = [(pixels[None], velox_metadata(detector)) for pixels, detector in images]
    del stored[0][1]["BinaryResult"]["DetectorIndex"]
    path = write_velox(tmp_path / "a.emd", stored)

    found = [read_micrograph(path, page=page) for page in range(4)]

    assert [each.metadata["detector"] for each in found] == ["BF", "HAADF", "HAADF", ""]
    assert [each.digest for each in found] == list(map(digest, (bf, haadf, survey, unnamed)))


@pytest.mark.parametrize("version", [9, 13])
def test_images_of_velox_are_in_order_of_title_the_computed_ones_last(tmp_path, version):
    titles = ["Filtered iDPC", "DF4-B", "DF4-A"]
    stacks = [STACK[:1].astype(np.float32), STACK[1:2], STACK[2:]]
    images = [(stack, velox_metadata("DF4")) for stack in stacks]
    path = write_velox(tmp_path / "a.emd", images, titles=titles, version=version)

    found = [read_micrograph(path, page=page) for page in range(3)]

    assert [each.metadata["title"] for each in found] == ["DF4-A", "DF4-B", "Filtered iDPC"]
    assert found[0].digest == digest(STACK[2])


@pytest.mark.parametrize(("number", "length"), [(0, 0), (9, 2**64 - 16)])
def test_a_heap_of_texts_without_an_end_is_refused(tmp_path, number, length):
    path = tmp_path / "a.emd"
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
    started = time.perf_counter()

    with pytest.raises(ImageReadError, match="a heap of texts without an end"):
        read_image(path)
    assert time.perf_counter() - started < 1


def test_metadata_of_many_images_are_not_parsed_for_ever(tmp_path):
    path = write_velox(tmp_path / "a.emd", [(STACK[:1], velox_metadata())])
    with h5py.File(path, "a") as file:
        images = file["Data/Image"]
        (group,) = images.values()
        for number in range(1000):
            images[str(number)] = group

    with pytest.raises(ImageReadError, match="more than 33,554,432 bytes of metadata; export"):
        read_image(path)


def test_each_frame_of_velox_has_its_own_metadata(tmp_path):
    zooms = [velox_metadata(pixel=(side, side)) for side in (1e-9, 2e-9, 3e-9)]
    path = write_velox(tmp_path / "a.emd", [(STACK, zooms)])

    sizes = [read_micrograph(path, page=page).pixel_size for page in range(3)]

    assert sizes == pytest.approx([1, 2, 3])


@pytest.mark.parametrize(
    ("metadata", "pixel_size", "detector"),
    [
        (velox_metadata(detector="", pixel=(1e-10, 1e-10)), 0.1, "Ceta"),
        (velox_metadata(unit="1/m"), None, "HAADF"),
        (velox_metadata(pixel=(1e-9, 3e-9)), None, "HAADF"),
        ({"BinaryResult": ["?"]}, None, ""),
        ("?", None, ""),
    ],
    ids=["detector by number", "diffraction", "not square", "other", "text"],
)
def test_metadata_of_velox(tmp_path, metadata, pixel_size, detector):
    micrograph = read_micrograph(write_velox(tmp_path / "a.emd", [(STACK[:1], metadata)]))

    assert micrograph.pixel_size == pytest.approx(pixel_size)
    assert micrograph.metadata["detector"] == detector


def test_what_velox_stores_beside_images_is_named(tmp_path):
    complex_type = [("realFloatHalfEven", "<f4"), ("imagFloatHalfEven", "<f4")]
    images = [(GREY[None].astype(complex_type), velox_metadata()), (STACK[:1], velox_metadata())]
    both = write_velox(tmp_path / "a.emd", images, ["SpectrumStream", "Text"])
    spectra = write_velox(tmp_path / "b.emd", [], ["Spectrum", "SpectrumStream"])

    micrograph = read_micrograph(both)

    assert micrograph.digest == digest(GREY)
    assert micrograph.metadata["left_out"] == ["SpectrumStream", "an image of complex values"]
    with pytest.raises(ImageReadError, match=r"image that is read \(Spectrum, SpectrumStream\)"):
        read_image(spectra)


def test_berkeley_axes_are_found_by_name(tmp_path):
    path = tmp_path / "a.emd"
    rows, columns = np.arange(30) * 0.5, np.arange(40) * 0.5
    axes = {
        "y": (rows, "y", "[n_m]"),
        "x": (columns, "R_x", "nm"),
        "t": (np.arange(3.0), "energy", "eV"),
    }
    file = ncempy.io.emd.fileEMD(path, readonly=False)
    file.put_emdgroup("a", STACK, (axes["t"], axes["y"], axes["x"]))
    file.put_emdgroup("b", STACK[::-1].T.copy(), (axes["x"], axes["y"], axes["t"]))
    del file

    found = [read_micrograph(path, page=page) for page in range(6)]

    assert [each.digest for each in found] == list(map(digest, [*STACK, *STACK[::-1]]))
    assert [each.pixel_size for each in found] == pytest.approx([0.5] * 6)


@pytest.mark.parametrize(
    ("units", "pixel_size"),
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
def test_dm5(tmp_path, units, pixel_size):
    path = write_dm5(tmp_path / "a.dm5", [STACK[1], STACK], units=units)

    found = [read_micrograph(path, page=page) for page in range(4)]

    assert [each.digest for each in found] == [digest(pixels) for pixels in (STACK[1], *STACK)]
    assert found[3].pixel_size == pytest.approx(pixel_size)
    assert found[0].metadata["gatan"] == {"Voltage": 200000, "Name": "Titan"}


def test_dm5_of_colours_and_of_spectra(tmp_path):
    colours = np.random.default_rng(1).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    path = write_dm5(tmp_path / "a.dm5", [colours], thumbnail=False)
    alpha = np.full((30, 40, 1), 9, np.uint8)
    packed = np.dstack([colours[..., ::-1], alpha]).view("<u4")[..., 0]
    also = write_dm5(tmp_path / "also.dm5", [packed])
    spectra = write_dm5(tmp_path / "b.dm5", [GREY[0], GREY[:1], GREY])
    with h5py.File(spectra, "r+") as file:
        tags = file.create_group("ImageList/[3]/ImageTags/Meta Data")
        tags.attrs["Format"] = np.bytes_("Spectrum image")

    assert digest(path) == digest(also) == digest(colours)
    with pytest.raises(ImageReadError, match="a Gatan file without an image, or of spectra"):
        read_image(spectra)


def test_other_hdf5_files_say_what_is_in_them(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["entry/data"] = GREY

    with pytest.raises(ImageReadError) as error:
        read_image(tmp_path / "a.h5")

    assert "EMD (Velox, Berkeley 0.2) or DM5 (with '/entry/data')" in str(error.value)
    assert "python -c" in str(error.value)


@pytest.mark.parametrize("path", ["ImageList", "entry"])
def test_files_of_many_groups_are_not_searched(tmp_path, monkeypatch, path):
    monkeypatch.setattr(hdf5, "_MAX_OBJECTS", 5)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for number in range(6):
            file.create_group(f"{path}/[{number}]")

    with pytest.raises(ImageReadError, match="more than 5 groups and arrays"):
        read_image(tmp_path / "a.h5")


def linked(path, kind):
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


@pytest.mark.parametrize("kind", ["soft", "external", "virtual", "raw"])
def test_nothing_outside_the_file_is_read(tmp_path, monkeypatch, kind):
    path = tmp_path / "a.dm5"
    linked(path, kind)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ImageReadError, match=r"not followed|not opened"):
        read_image(path)


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

    assert digest(tmp_path / "a.dm5") == digest(GREY)


def test_a_filter_that_is_not_read_is_named(tmp_path):
    path = write_dm5(tmp_path / "a.dm5", [GREY.astype(np.int16)], thumbnail=False, scaleoffset=0)

    with pytest.raises(ImageReadError, match=r"the HDF5 filter 6 .*h5repack -f GZIP=1"):
        read_image(path)


def test_a_chunk_that_expands_is_refused(tmp_path):
    path = write_dm5(
        tmp_path / "a.dm5", [GREY], thumbnail=False, compression="gzip", chunks=(30, 40)
    )
    with h5py.File(path, "r+") as file:
        data = file["ImageList/[0]/ImageData/Data"]
        data.id.write_direct_chunk((0, 0), zlib.compress(bytes(30_000_000)))
        data.id.write_direct_chunk((0, 0), zlib.compress(bytes(4_000_000)))

    with pytest.raises(ImageReadError, match="damaged or truncated HDF5"):
        read_image(path)


def test_a_missing_extra_says_what_to_install(tmp_path, monkeypatch):
    path = write_velox(tmp_path / "a.emd", [(STACK, velox_metadata())])
    monkeypatch.setitem(sys.modules, "h5py", None)

    with pytest.raises(ImageReadError, match=r'HDF5 files need h5py .*"hypervlad\[formats\]"'):
        read_image(path)
