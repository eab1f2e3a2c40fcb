"""PNG and JPEG 2000 files with headers of any layout, which no package writes."""

import io
import struct
import zlib

from PIL import Image


def pillow_bytes(kind, pixels, **options):
    """Return what Pillow writes."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def claiming(content, mark, offset, layout, *numbers):
    """Return a sound file with other numbers at an offset from its last mark."""
    changed = bytearray(content)
    struct.pack_into(layout, changed, changed.rindex(mark) + offset, *numbers)
    return bytes(changed)


def jp2_boxes(content):
    """Return the boxes of a JP2 file: their kinds and what they hold."""
    boxes, start = [], 0
    while start < len(content):
        length, kind = struct.unpack_from(">I4s", content, start)
        end = start + length if length else len(content)
        boxes.append((kind, content[start + 8 : end]))
        start = end
    return boxes


def jp2_bytes(boxes, long=frozenset()):
    """Return the JP2 file of some boxes; those of a kind in `long` have lengths of 64 bits."""
    return b"".join(
        struct.pack(">I4sQ", 1, kind, 16 + len(body)) + body
        if kind in long
        else struct.pack(">I4s", 8 + len(body), kind) + body
        for kind, body in boxes
    )


def siz_bytes(height, width, depths):
    """Return the beginning of a JPEG 2000 codestream: its mark and its size, one tile."""
    channels = b"".join(bytes([depth - 1, 1, 1]) for depth in depths)
    numbers = (38 + len(channels), 0, width, height, 0, 0, width, height, 0, 0, len(depths))
    return b"\xff\x4f\xff\x51" + struct.pack(">HH8IH", *numbers) + channels


def png_bytes(height, width, bits, colour, rows=b""):
    """A PNG whose header has any numbers; each of the rows begins with its filter."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)
