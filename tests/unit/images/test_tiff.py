"""TIFF files of every type, layout, compression and depth, and stacks with their pages."""

import itertools
import struct

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from support.golden import check_golden, check_truncated, digest, values

from hypervlad.images import ImageReadError, read_image

DTYPES = ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"]
COMPRESSIONS = [None, "lzw", "zlib", "packbits", "zstd"]
LAYOUTS = {
    "one strip": {},
    "strips": {"rowsperstrip": 8},
    "tiles": {"tile": (16, 16)},
    "big": {"bigtiff": True, "rowsperstrip": 16},
}
GREY, GREY16 = values("u1"), values("u2")


def inverted(pixels):
    """White is zero, by the documented rule."""
    if pixels.dtype.kind == "f":
        return -pixels
    return pixels.dtype.type(0) - pixels - pixels.dtype.type(1)  # wraps round: max - value, ~value


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_number_is_given_back(tmp_path, layout, compression):
    kinds = itertools.product(DTYPES, ("minisblack", "miniswhite", "rgb"))
    for number, (dtype, photometric) in enumerate(kinds):
        pixels = values(dtype, samples=3 * (photometric == "rgb"))
        options = {"compression": compression, "byteorder": "<>"[number % 2], **LAYOUTS[layout]}
        tifffile.imwrite(tmp_path / "a.tif", pixels, photometric=photometric, **options)
        with np.errstate(over="ignore"):
            expected = inverted(pixels) if photometric == "miniswhite" else pixels
        assert digest(tmp_path / "a.tif") == digest(expected)
    unit = np.float32(GREY / 255)
    tifffile.imwrite(tmp_path / "a.tif", unit, photometric="miniswhite", **LAYOUTS[layout])
    check_golden(tmp_path / "a.tif", [1 - unit])


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_planes_predictors_and_orientations(tmp_path, compression, planar):
    for orientation, dtype in enumerate(("u1", "u2", "i2", "f4"), 5):
        pixels = values(dtype, samples=3)
        data = np.moveaxis(pixels, -1, 0) if planar == "separate" else pixels
        options = {"photometric": "rgb", "planarconfig": planar, "compression": compression}
        options["predictor"] = planar == "contig" and compression in ("lzw", "zlib", "zstd")
        tags = [(274, 3, 1, orientation, True)]
        tifffile.imwrite(tmp_path / "a.tif", data.copy(), extratags=tags, **options)
        check_golden(tmp_path / "a.tif", [pixels], orientation=orientation)  # which is not applied


PILLOW_MODES = {"1": "bool", "L": "u1", "I;16": "u2", "I": "i4", "F": "f4", "RGB": "u1"}
FAX = [("1", "group4")]
PILLOW_TIFF = ["raw", "tiff_lzw", "tiff_deflate", "packbits", "zstd", "lzma"]


@pytest.mark.parametrize(
    ("mode", "compression"), [*itertools.product(PILLOW_MODES, PILLOW_TIFF), *FAX]
)
def test_files_of_libtiff(tmp_path, mode, compression):
    pixels = values(PILLOW_MODES[mode], samples=3 * (mode == "RGB"))
    Image.fromarray(pixels).save(tmp_path / "a.tif", compression=compression)
    check_golden(tmp_path / "a.tif", [pixels])


@pytest.mark.parametrize("samples", [0, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_jpeg_in_tiff(tmp_path, layout, samples):
    row = np.linspace(0, 255, GREY.size).reshape(GREY.shape).astype(np.uint8)
    pixels, path = np.dstack([row] * samples) if samples else row, tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, compression="jpeg", **LAYOUTS[layout])
    found = 255 * read_image(path)
    with Image.open(path) as image:
        assert np.abs(found - np.asarray(image)).max() < 2.01  # another colour conversion
    assert np.abs(found - pixels).max() < 12.01
    check_truncated(path, [0.3, 0.6, 0.9])


@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("compression", ["jpeg2000", "png"])
@pytest.mark.parametrize("samples", [0, 3])
def test_lossless_images_in_tiff(tmp_path, dtype, compression, samples):
    pixels = values(dtype, samples=samples)
    options = {"compressionargs": {"level": 0}} if compression == "jpeg2000" else {}
    tifffile.imwrite(tmp_path / "a.tif", pixels, compression=compression, **options)
    check_golden(tmp_path / "a.tif", [pixels])


def packed_tiff(pixels, n_bits, photometric, compression, order):
    """A TIFF of any bit depth, one strip, number by number, the most significant bit first."""
    bits = (pixels[:, :, None] >> np.arange(n_bits - 1, -1, -1)) & 1
    strip = np.packbits(bits.reshape(len(pixels), -1).astype(np.uint8), axis=1).tobytes()
    code, encode = compression
    strip, (height, width) = encode(strip), pixels.shape
    tags = {256: width, 257: height, 258: n_bits, 259: code, 262: photometric}
    tags |= {273: 8, 277: 1, 278: height, 279: len(strip)}
    entries = b"".join(struct.pack(f"{order}HHII", k, 4, 1, tags[k]) for k in sorted(tags))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(strip))
    return head + strip + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize("n_bits", range(1, 16))
def test_every_bit_depth(tmp_path, n_bits):
    pixels = np.random.default_rng(n_bits).integers(0, 2**n_bits, (9, 16))
    encoders = [(1, bytes), (5, imagecodecs.lzw_encode), (8, imagecodecs.zlib_encode)]
    for order, photometric, compression in itertools.product("<>", (0, 1), encoders):
        content = packed_tiff(pixels, n_bits, photometric, compression, order)
        (tmp_path / "a.tif").write_bytes(content)
        levels = pixels if photometric else 2**n_bits - 1 - pixels
        stretched = np.rint(levels * (255 / (2**n_bits - 1))) if n_bits < 8 else levels
        kind = bool if n_bits == 1 else "u1" if n_bits <= 8 else "u2"
        assert digest(tmp_path / "a.tif") == digest(stretched.astype(kind))


MANY = values("u1", samples=7, shape=(24, 32))


@pytest.mark.parametrize(
    ("n_samples", "photometric"),
    [(7, "rgb"), (7, ""), (4, ""), (2, ""), (4, "rgb"), (5, "separated")],
)
def test_samples_that_would_be_dropped_are_refused_or_chosen(tmp_path, n_samples, photometric):
    data, options = MANY[..., :n_samples], {"photometric": photometric, "extrasamples": [0]}
    if not photometric or n_samples == 7:
        options = {"photometric": photometric or "minisblack"}
    tifffile.imwrite(tmp_path / "a.tif", data, planarconfig="contig", **options)
    words = rf"a TIFF page of {n_samples} samples of uint8 per pixel.*\(0 to {n_samples - 1}\)"
    with pytest.raises(ImageReadError, match=words):
        read_image(tmp_path / "a.tif")
    for channel in range(n_samples):
        assert digest(tmp_path / "a.tif", channel=channel) == digest(data[..., channel])
    with pytest.raises(ImageReadError):
        read_image(tmp_path / "a.tif", channel=n_samples)


def test_channels_and_alpha(tmp_path):
    """Declared alpha is dropped, not blended."""
    Image.fromarray(MANY[..., :3]).save(tmp_path / "a.png")
    for source in (tmp_path / "a.png", MANY):
        assert digest(source, channel=2) == digest(MANY[..., 2])
    assert digest(GREY, channel=0) == digest(GREY)
    assert digest(MANY[..., :4]) == digest(MANY[..., :3])
    for n, kept, photometric in ((4, slice(3), "rgb"), (2, 0, "minisblack")):
        kinds = {"photometric": photometric, "extrasamples": ["unassalpha"]}
        tifffile.imwrite(tmp_path / "a.tif", MANY[..., :n], planarconfig="contig", **kinds)
        check_golden(tmp_path / "a.tif", [MANY[..., kept]])


STACK = np.stack([GREY16 // n for n in range(1, 6)])


def write_stk(path):
    """A MetaMorph stack: one directory, whose UIC2 tag has a value for each plane."""
    n = len(STACK)
    # Each of the values has six numbers.
    uic1, uic2 = (33628, 5, 1, (0, 1), True), (33629, 5, 3 * n, (1, 1) * 3 * n, True)
    tifffile.imwrite(path, STACK[0], metadata=None, rowsperstrip=5, extratags=[uic1, uic2])
    with tifffile.TiffFile(path) as file:
        tag = file.pages[0].tags[33629]
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, tag.offset + 4, n)
    path.write_bytes(content + STACK[1:].tobytes())


STACKS = {
    "imagej": {"imagej": True, "truncate": True},
    "imagej, big-endian": {"imagej": True, "byteorder": ">", "truncate": True},
    "imagej, slices": {"imagej": True, "metadata": {"axes": "ZYX"}, "truncate": True},
    "tifffile": {"truncate": True},
    "directories": {"photometric": "minisblack"},
}


@pytest.mark.parametrize("kind", [*STACKS, "tifffile and another", "metamorph"])
def test_a_stack_has_pages(tmp_path, kind):
    path, options = tmp_path / "a.tif", STACKS.get(kind, {"truncate": True})
    write_stk(path) if kind == "metamorph" else tifffile.imwrite(path, STACK, **options)
    with tifffile.TiffFile(path) as file:
        assert len(file.pages) == (5 if kind == "directories" else 1)
    others = [GREY] if kind == "tifffile and another" else []
    for other in others:
        tifffile.imwrite(path, other, append=True)
    # Cut within its first image: a stack of which less is there is one image.
    check_golden(path, [*STACK, *others], cut=[0.1, 0.15])
