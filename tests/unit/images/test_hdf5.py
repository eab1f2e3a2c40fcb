"""EMD files of Velox and of Berkeley, and DM5 files."""

import zlib

import h5py
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


def test_berkeley_axes_are_found_by_name(tmp_path):
    y, x = (np.arange(30) * 0.5, "y", "[n_m]"), (np.arange(40) * 0.5, "R_x", "nm")
    t = (np.arange(3.0), "energy", "eV")
    file = ncempy.io.emd.fileEMD(tmp_path / "a.emd", readonly=False)
    file.put_emdgroup("a", STACK, (t, y, x))
    file.put_emdgroup("b", STACK[::-1].T.copy(), (x, y, t))
    del file
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


IMAGE = "ImageList/[0]/ImageData"


def write_bomb(path):
    write_dm5(path, [GREY], thumbnail=False, compression="gzip", chunks=(30, 40))
    with h5py.File(path, "r+") as file:
        data = file[f"{IMAGE}/Data"]
        data.id.write_direct_chunk((0, 0), zlib.compress(bytes(4_000_000)))


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
    "other": (write_other, r"EMD \(Velox, Berkeley 0.2\) or DM5 \(with '/entry/data'\).*python -c"),
    "filter": (
        lambda p: write_dm5(p, [GREY.view("i2")], thumbnail=False, scaleoffset=0),
        "the HDF5 filter 6 .*h5repack -f GZIP=1",
    ),
    "bomb": (write_bomb, "damaged or truncated HDF5"),
    **{kind: (with_link(kind), "links are not followed; exp") for kind in ("soft", "external")},
    **{kind: (with_link(kind), NOT_OPENED) for kind in ("virtual", "raw")},
}


@pytest.mark.parametrize("case", REFUSED)
def test_files_that_are_not_read_say_why(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)  # to which links would lead
    write, words = REFUSED[case]
    write(tmp_path / "a.h5")
    with pytest.raises(ImageReadError, match=rf"a\.h5: .*{words}"):
        read_image(tmp_path / "a.h5")
