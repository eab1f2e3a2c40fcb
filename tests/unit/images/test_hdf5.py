"""EMD files of Velox and of Berkeley, and DM5 files."""

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
GREY, FLOATS = STACK[0], STACK[:1].astype(np.float32)
RGB = values("u1", samples=3, shape=(30, 40))
PACKED = np.dstack([RGB[..., ::-1], RGB[..., :1]]).view("<u4")[..., 0]
FACTS = velox_metadata()


def facts_of(path, name, n_pages):
    return [read_micrograph(path, page=page).metadata[name] for page in range(n_pages)]


@pytest.mark.parametrize("compression", [None, "gzip", "lzf"])
@pytest.mark.parametrize("others", [{}, {"shuffle": True}, {"fletcher32": True, "shuffle": True}])
def test_velox_frames_are_pages(tmp_path, compression, others):
    path = write_velox(tmp_path / "a.emd", [(STACK, FACTS)], compression=compression, **others)
    check_golden(path, STACK, 0.5, detector="HAADF", velox=FACTS)
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
    assert facts_of(path, "detector", 4) == ["BF", "HAADF", "HAADF", ""]


@pytest.mark.parametrize("version", [9, 13])
def test_images_of_velox_are_in_order_of_title_the_computed_ones_last(tmp_path, version):
    images = [(stack, velox_metadata("DF4")) for stack in (FLOATS, STACK[1:2], STACK[2:])]
    titles = ["Filtered iDPC", "DF4-B", "DF4-A"]
    path = write_velox(tmp_path / "a.emd", images, titles=titles, version=version)
    check_golden(path, [STACK[2], STACK[1], FLOATS[0]], 0.5)
    assert facts_of(path, "title", 3) == titles[::-1]


@pytest.mark.parametrize(
    ("metadata", "sizes", "detector"),
    [
        ([velox_metadata(pixel=(each, each)) for each in (1e-9, 2e-9, 3e-9)], [1, 2, 3], "HAADF"),
        (velox_metadata(detector="", pixel=(1e-10, 1e-10)), 0.1, "Ceta"),  # by its number
        (velox_metadata(unit="1/m"), None, "HAADF"),  # diffraction
        (velox_metadata(pixel=(1e-9, 3e-9)), None, "HAADF"),  # not square
        ({"BinaryResult": ["?"]}, None, ""),
        ("?", None, ""),
    ],
)
def test_metadata_of_velox(tmp_path, metadata, sizes, detector):
    path = write_velox(tmp_path / "a.emd", [(STACK, metadata)])
    check_golden(path, STACK, sizes, detector=detector)


def test_what_velox_stores_beside_images_is_named(tmp_path):
    complex_type = [("realFloatHalfEven", "<f4"), ("imagFloatHalfEven", "<f4")]
    images = [(GREY[None].astype(complex_type), FACTS), (STACK[:1], FACTS)]
    path = write_velox(tmp_path / "a.emd", images, ["SpectrumStream", "Text"])
    check_golden(path, [GREY], 0.5, left_out=["SpectrumStream", "an image of complex values"])


def test_berkeley_axes_are_found_by_name(tmp_path):
    y, x = (np.arange(30) * 0.5, "y", "[n_m]"), (np.arange(40) * 0.5, "R_x", "nm")
    t = (np.arange(3.0), "energy", "eV")
    file = ncempy.io.emd.fileEMD(tmp_path / "a.emd", readonly=False)
    file.put_emdgroup("a", STACK, (t, y, x))
    file.put_emdgroup("b", STACK[::-1].T.copy(), (x, y, t))
    del file
    with h5py.File(tmp_path / "a.emd", "r+") as root:
        root.move("data/b/data", "data/b/realslice")  # as of Prismatic
    check_golden(tmp_path / "a.emd", [*STACK, *STACK[::-1]], 0.5)


UNITS = {
    b"nm\0\0": 0.5,
    "µm".encode(): 500,
    b"\xb5m": 500,
    "μm".encode("gb2312"): 500,
    b"\xc5": 0.05,
}


@pytest.mark.parametrize("units", [*UNITS, b"1/nm", b""])
def test_dm5(tmp_path, units):
    path = write_dm5(tmp_path / "a.dm5", [STACK[1], STACK], units=units)
    facts = {"gatan": {"Voltage": 200000, "Name": "Titan"}}
    check_golden(path, [STACK[1], *STACK], UNITS.get(units), **facts)


def test_dm5_of_colours(tmp_path):
    check_golden(write_dm5(tmp_path / "a.dm5", [RGB], thumbnail=False), [RGB], 0.5)
    check_golden(write_dm5(tmp_path / "b.dm5", [PACKED]), [RGB], 0.5)


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

IMAGE = "ImageList/[0]/ImageData"


def write_endless(path):
    """Texts in a heap whose last entry has no length."""
    with h5py.File(path, "w") as file:
        file["a/data"], file["a/dim1"] = GREY, np.arange(30.0)
        file["a"].attrs["emd_group_type"] = 1
        # In a heap that the library reads in two parts
        file["a/dim1"].attrs["name"], file["a/dim1"].attrs["units"] = "y" * 5000, "nm"
    content = bytearray(path.read_bytes())
    last = content.index(b"GCOL\x01\0\0\0") + 16 + 16 + 5000
    content[last : last + 32] = bytes(32)
    path.write_bytes(content)


def write_many(path, place, n):
    with h5py.File(path, "w") as file:
        group = file.create_group(f"{place}/0")
        for number in range(1, n):
            file[f"{place}/{number}"] = group if place == "ImageList" else file.create_group(None)


def write_wordy(path):
    write_velox(path, [(STACK[:1], FACTS)])
    with h5py.File(path, "a") as file:
        (group,) = file["Data/Image"].values()
        for number in range(1000):
            file[f"Data/Image/{number}"] = group


def write_spectra(path):
    write_dm5(path, [GREY[0], GREY[:1], GREY])
    with h5py.File(path, "r+") as file:
        tags = file.create_group("ImageList/[3]/ImageTags/Meta Data")
        tags.attrs["Format"] = np.bytes_("Spectrum image")


def write_bomb(path):
    write_dm5(path, [GREY], thumbnail=False, compression="gzip", chunks=(30, 40))
    with h5py.File(path, "r+") as file:
        file[f"{IMAGE}/Data"].id.write_direct_chunk((0, 0), zlib.compress(bytes(4_000_000)))


def with_link(kind):
    def write(path):
        write_dm5(path.with_name("target.h5"), [GREY], thumbnail=False)
        path.with_name("a.raw").write_bytes(GREY.tobytes())
        with h5py.File(path, "w") as file:
            file["elsewhere/Data"] = GREY
            if kind == "soft":
                file[IMAGE] = h5py.SoftLink("/elsewhere")
            elif kind == "external":
                file[IMAGE] = h5py.ExternalLink("target.h5", f"/{IMAGE}")
            elif kind == "virtual":
                layout = h5py.VirtualLayout(GREY.shape, GREY.dtype)
                layout[:] = h5py.VirtualSource("target.h5", f"/{IMAGE}/Data", GREY.shape)
                file.create_virtual_dataset(f"{IMAGE}/Data", layout)
            else:
                options = {"external": [("a.raw", 0, GREY.nbytes)]}
                file.create_dataset(f"{IMAGE}/Data", GREY.shape, GREY.dtype, **options)

    return write


def write_other(path):
    with h5py.File(path, "w") as file:
        file["entry/data"] = GREY


NOT_OPENED = "in other files, which are not opened; export the image as TIFF"
REFUSED = {
    "endless texts": (write_endless, "a heap of texts without an end"),
    "wordy": (write_wordy, "more than 33,554,432 bytes of metadata; export"),
    "many images": (lambda p: write_many(p, "ImageList", 10_001), "more than 10,000 groups and"),
    "many groups": (lambda p: write_many(p, "entry", 10_001), "more than 10,000 groups and arrays"),
    "other": (write_other, r"EMD \(Velox, Berkeley 0.2\) or DM5 \(with '/entry/data'\).*python -c"),
    "spectra": (write_spectra, "a Gatan file without an image, or of spectra only; leave it out"),
    "velox of spectra": (
        lambda p: write_velox(p, [], ["Spectrum", "SpectrumStream"]),
        r"image that is read \(Spectrum, SpectrumStream\)",
    ),
    "filter": (
        lambda p: write_dm5(p, [GREY.view("i2")], thumbnail=False, scaleoffset=0),
        "the HDF5 filter 6 .*h5repack -f GZIP=1",
    ),
    "bomb": (write_bomb, "damaged or truncated HDF5"),
    **{kind: (with_link(kind), "links are not followed; exp") for kind in ("soft", "external")},
    **{kind: (with_link(kind), NOT_OPENED) for kind in ("virtual", "raw")},
}
SLOW = ("many groups", "many images", "wordy")  # writing or parsing thousands of them takes seconds


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.full] * (case in SLOW)) for case in REFUSED]
)
def test_files_that_are_not_read_say_why(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)  # to which links would lead
    write, words = REFUSED[case]
    write(tmp_path / "a.h5")
    with pytest.raises(ImageReadError, match=rf"a\.h5: .*{words}"):
        read_image(tmp_path / "a.h5")
