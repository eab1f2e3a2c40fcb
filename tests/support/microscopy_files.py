"""DM3, DM4, MRC and SER files, written byte by byte, as no package writes all of them."""

import struct

import numpy as np

MRC_MODES = {"int8": 0, "uint8": 0, "int16": 1, "float32": 2, "uint16": 6, "float16": 12}


def mrc_bytes(
    data,
    voxel=2.5,
    *,
    order="<",
    mode=None,
    limits=(0, 0),
    imod_flags=None,
    marks=b"MAP \x44\x44\0\0",
    extended=b"",
    extended_numbers=(0, 0),
):
    """An MRC2014 file; `imod_flags` come with the stamp, `marks` are the last before the labels."""
    n_z, n_y, n_x = data.shape
    across, down = voxel if isinstance(voxel, tuple) else (voxel, voxel)
    header = bytearray(1024)
    mode = MRC_MODES[data.dtype.name] if mode is None else mode
    struct.pack_into(f"{order}4i", header, 0, n_x, n_y, n_z, mode)
    struct.pack_into(f"{order}3i", header, 28, n_x, n_y, n_z)
    struct.pack_into(f"{order}6f", header, 40, n_x * across, n_y * down, n_z, 90, 90, 90)
    struct.pack_into(f"{order}3i2f", header, 64, 1, 2, 3, *limits)
    struct.pack_into(f"{order}i", header, 92, len(extended))
    struct.pack_into(f"{order}2h", header, 128, *extended_numbers)
    if imod_flags is not None:
        struct.pack_into(f"{order}2I", header, 152, 1146047817, imod_flags)
    header[208 : 208 + len(marks)] = marks
    return bytes(header) + extended + data.astype(data.dtype.newbyteorder(order)).tobytes()


def ser_bytes(frames, delta=1.5e-9, delta_down=None, version=0x0210):
    """A TIA series file of 2-D uint16 frames."""
    head = struct.pack("<3h4i", 0x4949, 0x0197, version, 0x4122, 0x4152, len(frames), len(frames))
    address = "i" if version == 0x0210 else "q"
    n_bytes = struct.calcsize("<" + address)
    head += struct.pack("<" + address, len(head) + n_bytes + 4) + struct.pack("<i", 0)
    start, bodies = len(head) + 2 * n_bytes * len(frames), []
    for frame in frames:
        deltas = (delta, delta_down or delta)
        calibration = b"".join(struct.pack("<ddi", 0, each, 0) for each in deltas)
        shape = struct.pack("<hii", 2, frame.shape[1], frame.shape[0])
        bodies.append(calibration + shape + np.flipud(frame).astype("<u2").tobytes())
    offsets = [start + sum(map(len, bodies[:i])) for i in range(len(frames))]
    tags = [0] * len(frames)
    return head + struct.pack(f"<{2 * len(frames)}{address}", *offsets, *tags) + b"".join(bodies)


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

    def image(self, data, scale, unit, data_type, content="Image"):
        axes = data.shape[::-1]
        scales = scale if isinstance(scale, tuple) else (scale,) * len(axes)
        each = [
            self.group(
                "", self.float("Origin", 0), self.float("Scale", own), self.text("Units", unit)
            )
            for own in scales
        ]
        calibrations = self.group("Calibrations", self.group("Dimension", *each))
        pixels = self.tag(
            "Data", [20, {1: 8, 2: 4, 4: 5, 8: 12}[data.itemsize], data.size], data.tobytes()
        )
        dimensions = self.group("Dimensions", *[self.int("", n) for n in axes])
        return self.group(
            "",
            self.group(
                "ImageData", calibrations, pixels, self.int("DataType", data_type), dimensions
            ),
            self.group(
                "ImageTags",
                self.group("Meta Data", self.text("Format", content)),
                self.group("Microscope Info", self.float("Voltage", 200000.0)),
            ),
        )

    def file(self, data, scale=0.5, unit="nm", data_type=10, content="Image"):
        return self.files(self.image(data, scale, unit, data_type, content))

    def files(self, *images):
        root = self.group(None, self.group("ImageList", *images))
        head = struct.pack(">I", self.version) + struct.pack(self.long, len(root))
        return head + struct.pack(">I", 1) + root + bytes(8)
