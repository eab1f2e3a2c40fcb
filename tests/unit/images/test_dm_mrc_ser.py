"""DM3, DM4, MRC and SER files, written byte by byte where no package writes them."""

from __future__ import annotations

import struct
import sys

import ncempy.io  # noqa: F401 - starts a process on import, which a unit test must not do
import numpy as np
import pytest

from hypervlad.images import ImageReadError, read_image, read_micrograph

GREY = np.random.default_rng(0).integers(0, 4096, (30, 40)).astype(np.uint16)


def mrc_bytes(data, voxel=2.5):
    """An MRC2014 file of mode 1 or 6 (int16, uint16) or 2 (float32)."""
    mode = {"int16": 1, "float32": 2, "uint16": 6}[data.dtype.name]
    n_z, n_y, n_x = data.shape
    header = bytearray(1024)
    struct.pack_into("<4i", header, 0, n_x, n_y, n_z, mode)
    struct.pack_into("<3i", header, 28, n_x, n_y, n_z)
    struct.pack_into("<6f", header, 40, n_x * voxel, n_y * voxel, n_z * voxel, 90, 90, 90)
    struct.pack_into("<3i", header, 64, 1, 2, 3)
    struct.pack_into("<i", header, 88, 0)
    header[208:212] = b"MAP "
    header[212:216] = bytes([0x44, 0x44, 0, 0])
    return bytes(header) + data.tobytes()


def ser_bytes(frames, delta=1.5e-9, delta_down=None):
    """A TIA series file of 2-D uint16 frames."""
    head = struct.pack("<3h4i", 0x4949, 0x0197, 0x0210, 0x4122, 0x4152, len(frames), len(frames))
    head += struct.pack("<i", len(head) + 8) + struct.pack("<i", 0)
    start = len(head) + 8 * len(frames)
    bodies = []
    for frame in frames:
        deltas = (delta, delta_down or delta)
        calibration = b"".join(struct.pack("<ddi", 0, each, 0) for each in deltas)
        shape = struct.pack("<hii", 2, frame.shape[1], frame.shape[0])
        bodies.append(calibration + shape + np.flipud(frame).astype("<u2").tobytes())
    offsets = [start + sum(map(len, bodies[:i])) for i in range(len(frames))]
    tags = [0] * len(frames)
    return head + struct.pack(f"<{2 * len(frames)}i", *offsets, *tags) + b"".join(bodies)


class DM:
    """The part of the tag tree of Gatan's files that an image needs."""

    def __init__(self, version):
        self.long = ">I" if version == 3 else ">Q"
        self.version = version

    def entry(self, kind, label, body):
        size = struct.pack(self.long, len(body)) if self.version == 4 else b""
        return struct.pack(">BH", kind, len(label)) + label.encode() + size + body

    def group(self, label, *entries):
        body = b"\1\0" + struct.pack(self.long, len(entries)) + b"".join(entries)
        return body if label is None else self.entry(20, label, body)

    def tag(self, label, info, data):
        numbers = b"".join(struct.pack(self.long, n) for n in info)
        return self.entry(21, label, b"%%%%" + struct.pack(self.long, len(info)) + numbers + data)

    def int(self, label, value):
        return self.tag(label, [5], struct.pack("<I", value))

    def float(self, label, value):
        return self.tag(label, [6], struct.pack("<f", value))

    def text(self, label, value):
        return self.tag(label, [20, 4, len(value)], value.encode("utf-16-le"))

    def image(self, data, scale, unit, data_type):
        axes = data.shape[::-1]
        scales = scale if isinstance(scale, tuple) else (scale,) * len(axes)
        each = [
            self.group(
                "", self.float("Origin", 0), self.float("Scale", own), self.text("Units", unit)
            )
            for own in scales
        ]
        calibrations = self.group("Calibrations", self.group("Dimension", *each))
        pixels = self.tag("Data", [20, 12 if data.itemsize == 8 else 4, data.size], data.tobytes())
        dimensions = self.group("Dimensions", *[self.int("", n) for n in axes])
        return self.group(
            "",
            self.group(
                "ImageData", calibrations, pixels, self.int("DataType", data_type), dimensions
            ),
            self.group("ImageTags", self.group("Microscope Info", self.float("Voltage", 200000.0))),
        )

    def file(self, data, scale=0.5, unit="nm", data_type=10):
        root = self.group(None, self.group("ImageList", self.image(data, scale, unit, data_type)))
        head = struct.pack(">I", self.version) + struct.pack(self.long, len(root))
        return head + struct.pack(">I", 1) + root + bytes(8)


def write(path, content):
    path.write_bytes(content)
    return path


def test_mrc(tmp_path):
    pytest.importorskip("mrcfile")
    path = write(tmp_path / "a.mrc", mrc_bytes(GREY[None]))

    micrograph = read_micrograph(path)

    assert micrograph.digest == read_micrograph(GREY).digest
    assert micrograph.pixel_size == pytest.approx(0.25)
    assert micrograph.metadata["format"] == "MRC"
    assert read_image(write(tmp_path / "no_suffix", mrc_bytes(GREY[None]))).shape == (30, 40)


def test_mrc_sections_are_pages(tmp_path):
    pytest.importorskip("mrcfile")
    stack = np.stack([GREY, GREY // 2, GREY // 3]).astype(np.float32)
    path = write(tmp_path / "a.mrc", mrc_bytes(stack, voxel=0))

    for page, expected in enumerate(stack):
        assert read_micrograph(path, page=page).digest == read_micrograph(expected).digest
    assert read_micrograph(path).pixel_size is None
    with pytest.raises(ImageReadError, match="page 3 was requested, but the file has 3 images"):
        read_image(path, page=3)


def test_mrc_truncated_or_absurd(tmp_path):
    pytest.importorskip("mrcfile")
    content = mrc_bytes(GREY[None])

    with pytest.raises(ImageReadError, match="damaged or truncated MRC"):
        read_image(write(tmp_path / "a.mrc", content[:-100]))
    with pytest.raises(ImageReadError, match="damaged or truncated MRC"):
        read_image(write(tmp_path / "b.mrc", content[:500]))
    with pytest.raises(ImageReadError, match="30 x 40 pixels is more than max_pixels=1,000"):
        read_image(write(tmp_path / "c.mrc", content), max_pixels=1000)


def test_ser(tmp_path, capsys):
    pytest.importorskip("ncempy")
    path = write(tmp_path / "a.ser", ser_bytes([GREY, GREY // 2]))

    first, second = read_micrograph(path), read_micrograph(path, page=1)

    assert first.digest == read_micrograph(GREY).digest
    assert second.digest == read_micrograph(GREY // 2).digest
    assert first.pixel_size == pytest.approx(1.5)
    with pytest.raises(ImageReadError, match="page 2 was requested, but the file has 2 images"):
        read_image(path, page=2)
    with pytest.raises(ImageReadError, match="30 x 40 pixels is more"):
        read_image(path, max_pixels=100)
    assert capsys.readouterr().out == ""


def test_ser_truncated(tmp_path):
    pytest.importorskip("ncempy")

    for keep in (20, 60, 500):
        with pytest.raises(ImageReadError, match="damaged or truncated SER"):
            read_image(write(tmp_path / "a.ser", ser_bytes([GREY])[:keep]))


def test_ser_of_spectra(tmp_path):
    pytest.importorskip("ncempy")
    content = ser_bytes([GREY]).replace(struct.pack("<i", 0x4122), struct.pack("<i", 0x4120), 1)

    with pytest.raises(ImageReadError, match="a SER file of spectra, not of images; leave it out"):
        read_image(write(tmp_path / "a.ser", content))


def test_dm_without_an_image(tmp_path):
    pytest.importorskip("ncempy")
    root = DM(3).group(None, DM(3).int("Mode", 1))
    content = struct.pack(">3I", 3, len(root), 1) + root + bytes(8)

    with pytest.raises(ImageReadError, match="a Gatan file without an image; export it as TIFF"):
        read_image(write(tmp_path / "a.dm3", content))


@pytest.mark.parametrize("version", [3, 4])
def test_dm(tmp_path, version, capsys):
    pytest.importorskip("ncempy")
    path = write(tmp_path / f"a.dm{version}", DM(version).file(GREY))

    micrograph = read_micrograph(path)

    assert micrograph.digest == read_micrograph(GREY).digest
    assert micrograph.pixel_size == pytest.approx(0.5)
    assert micrograph.metadata["gatan"]["Voltage"] == 200000
    with pytest.raises(ImageReadError, match="page 1 was requested, but the file has 1 image;"):
        read_image(path, page=1)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("scale", "unit", "expected"), [(0.002, "µm", 2), (0.1, "1/nm", None), (1, "", None)]
)
def test_dm_units(tmp_path, scale, unit, expected):
    pytest.importorskip("ncempy")
    path = write(tmp_path / "a.dm3", DM(3).file(GREY, scale, unit))

    assert read_micrograph(path).pixel_size == pytest.approx(expected)


@pytest.mark.parametrize("name", ["a.dm3", "a.ser"])
def test_pixels_that_are_not_square_have_no_size(tmp_path, name):
    pytest.importorskip("ncempy")
    content = DM(3).file(GREY, (0.5, 1.5)) if name == "a.dm3" else ser_bytes([GREY], 0.5e-9, 1.5e-9)

    micrograph = read_micrograph(write(tmp_path / name, content))

    assert micrograph.pixel_size is None
    assert micrograph.metadata["pixel_sides_nm"] == pytest.approx([0.5, 1.5])


def test_dm_stack(tmp_path):
    pytest.importorskip("ncempy")
    stack = np.stack([GREY, GREY // 2])
    path = write(tmp_path / "a.dm4", DM(4).file(stack))

    for page in (0, 1):
        assert read_micrograph(path, page=page).digest == read_micrograph(stack[page]).digest
        assert read_micrograph(path, page=page).pixel_size == pytest.approx(0.5)


def test_dm_complex_and_truncated(tmp_path):
    pytest.importorskip("ncempy")
    complex_data = GREY[:4, :4].astype(np.complex64)
    content = DM(3).file(GREY)

    with pytest.raises(ImageReadError, match="complex pixels"):
        read_image(write(tmp_path / "fft.dm3", DM(3).file(complex_data, data_type=3)))
    for keep in (10, 100, len(content) - 500):
        with pytest.raises(ImageReadError, match="damaged or truncated DM"):
            read_image(write(tmp_path / "a.dm3", content[:keep]))


@pytest.mark.parametrize(
    ("name", "content", "module", "kind"),
    [
        ("a.mrc", mrc_bytes(GREY[None]), "mrcfile", "MRC"),
        ("a.ser", ser_bytes([GREY]), "ncempy", "SER"),
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
