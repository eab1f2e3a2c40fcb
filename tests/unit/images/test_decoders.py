"""Every reader against an independent decoder: the same numbers, for hundreds of kinds of files.

TIFFs are read with tifffile and imagecodecs. What they contain is compared with the numbers that
were written (a lossless file must give them back), with Pillow's libtiff where it keeps them, and
with single codecs for strips that were taken out of the file here. The other formats are written or
decoded by Pillow, imagecodecs, ncempy or the tests, whichever the reader does not use.
"""

from __future__ import annotations

import itertools
import struct

import imagecodecs
import ncempy.io  # starts a process on import, which a unit test must not do
import numpy as np
import pytest
import tifffile
from PIL import Image
from support.microscopy_files import DM, mrc_bytes, ser_bytes
from support.raster_headers import png_bytes

from hypervlad.images import read_micrograph
from hypervlad.images.reading import read_stored

SHAPE = (21, 18)
DTYPES = ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"]
COMPRESSIONS = [None, "lzw", "zlib", "packbits", "zstd"]
LAYOUTS = {
    "one strip": {},
    "strips": {"rowsperstrip": 4},
    "tiles": {"tile": (16, 16)},
    "big": {"bigtiff": True, "rowsperstrip": 7},
}


def values(dtype, *, samples=0, seed=0):
    """Values over the whole range of a type: extremes, noise and a smooth part."""
    rng = np.random.default_rng(seed)
    shape = (*SHAPE, samples) if samples else SHAPE
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return rng.normal(size=shape).astype(dtype)
    info = np.iinfo(dtype)
    out = rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    out[0, :4] = info.min
    out[1, :4] = info.max
    out[8:] //= dtype.type(3)
    return out


def assert_same(stored, expected):
    assert stored.dtype == np.asarray(expected).dtype.newbyteorder("=")
    np.testing.assert_array_equal(stored, expected)


def inverted(pixels):
    """White is zero, by the documented rule."""
    if pixels.dtype.kind == "f":
        return -pixels
    return pixels.dtype.type(0) - pixels - pixels.dtype.type(1)  # wraps round: max - value, ~value


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_tiff_gives_back_every_number(tmp_path, layout, compression):
    path = tmp_path / "a.tif"
    kinds = itertools.product(DTYPES, ("minisblack", "miniswhite", "rgb"))
    for number, (dtype, photometric) in enumerate(kinds):
        pixels = values(dtype, samples=3 * (photometric == "rgb"))
        tifffile.imwrite(
            path,
            pixels,
            photometric=photometric,
            byteorder="<>"[number % 2],
            compression=compression,
            **LAYOUTS[layout],
        )

        with np.errstate(over="ignore"):
            expected = inverted(pixels) if photometric == "miniswhite" else pixels
        assert_same(read_stored(path, "a"), expected)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_tiff_planes_predictors_and_orientations(tmp_path, compression):
    path = tmp_path / "a.tif"
    for dtype, orientation in itertools.product(("u1", "u2", "i2", "f4"), range(1, 9)):
        pixels = values(dtype, samples=3)
        planes = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
        kwargs = {
            "byteorder": "<>"[orientation % 2],
            "compression": compression,
            "extratags": [(274, 3, 1, orientation, True)],
        }
        for data, planar in ((pixels, "contig"), (planes, "separate")):
            predictor = planar == "contig" and compression in ("lzw", "zlib", "zstd")
            tifffile.imwrite(
                path, data, photometric="rgb", planarconfig=planar, predictor=predictor, **kwargs
            )

            assert_same(read_stored(path, "a"), pixels)
            assert read_micrograph(path).metadata.get("orientation", 1) == orientation


PILLOW_MODES = {"1": bool, "L": "u1", "I;16": "u2", "I": "i4", "F": "f4", "RGB": "u1", "CMYK": "u1"}
PILLOW_TIFF = ["raw", "tiff_lzw", "tiff_deflate", "packbits", "zstd", "lzma"]


@pytest.mark.parametrize("compression", PILLOW_TIFF)
@pytest.mark.parametrize("mode", PILLOW_MODES)
def test_tiff_of_libtiff(tmp_path, mode, compression):
    n_samples = {"RGB": 3, "CMYK": 4}.get(mode, 0)
    dtype = PILLOW_MODES[mode]
    pixels = values("u1") > 99 if dtype is bool else values(dtype, samples=n_samples)
    image = Image.frombytes("CMYK", SHAPE[::-1], pixels.tobytes()) if mode == "CMYK" else None
    image = image or Image.fromarray(pixels)
    assert image.mode == mode
    image.save(tmp_path / "a.tif", compression=compression)

    expected = np.asarray(image.convert("RGB")) if mode == "CMYK" else pixels
    stored = read_stored(tmp_path / "a.tif", "a")
    if mode == "CMYK":  # products of inks are rounded differently
        assert np.abs(stored.astype(int) - expected).max() <= 1
    else:
        assert_same(stored, expected)


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_fax_tiff_of_libtiff(tmp_path, compression):
    pixels = values("u1") > 99
    Image.fromarray(pixels).save(tmp_path / "a.tif", compression=compression)

    assert_same(read_stored(tmp_path / "a.tif", "a"), pixels)


@pytest.mark.parametrize("samples", [0, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_jpeg_in_tiff(tmp_path, layout, samples):
    row = np.linspace(0, 255, SHAPE[0] * SHAPE[1]).reshape(SHAPE).astype(np.uint8)
    pixels = np.dstack([row] * samples) if samples else row
    layout = dict(LAYOUTS[layout])
    if "rowsperstrip" in layout:
        layout["rowsperstrip"] = 8
    tifffile.imwrite(tmp_path / "a.tif", pixels, compression="jpeg", **layout)

    with Image.open(tmp_path / "a.tif") as image:
        by_libtiff = np.asarray(image)
    stored = read_stored(tmp_path / "a.tif", "a")
    assert np.abs(stored.astype(int) - by_libtiff).max() <= 2  # another colour conversion
    assert np.abs(stored.astype(int) - pixels).max() <= 12


@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("compression", ["jpeg2000", "png"])
@pytest.mark.parametrize("samples", [0, 3])
def test_lossless_images_in_tiff(tmp_path, dtype, compression, samples):
    pixels = values(dtype, samples=samples)
    kwargs = {"compressionargs": {"level": 0}} if compression == "jpeg2000" else {}
    tifffile.imwrite(tmp_path / "a.tif", pixels, compression=compression, **kwargs)

    assert_same(read_stored(tmp_path / "a.tif", "a"), pixels)


def packed(pixels, n_bits):
    """Rows of `n_bits` a value, the most significant first, padded to bytes."""
    bits = (pixels[:, :, None] >> np.arange(n_bits - 1, -1, -1)) & 1
    return np.packbits(bits.reshape(len(pixels), -1).astype(np.uint8), axis=1).tobytes()


def packed_tiff(pixels, n_bits, photometric, compression, byteorder="<"):
    """A TIFF of any bit depth, with one strip, written number by number."""
    strip = packed(pixels, n_bits)
    if compression != "none":
        strip = getattr(imagecodecs, f"{compression}_encode")(strip)
    height, width = pixels.shape
    code = {"none": 1, "lzw": 5, "zlib": 8}[compression]
    tags = {256: width, 257: height, 258: n_bits, 259: code, 262: photometric}
    tags |= {273: 8, 277: 1, 278: height, 279: len(strip)}
    entries = b"".join(struct.pack(byteorder + "HHII", k, 4, 1, tags[k]) for k in sorted(tags))
    mark = b"II*\0" if byteorder == "<" else b"MM\0*"
    head = mark + struct.pack(byteorder + "I", 8 + len(strip))
    return head + strip + struct.pack(byteorder + "H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize("n_bits", range(1, 16))
@pytest.mark.parametrize("compression", ["none", "lzw", "zlib"])
def test_every_bit_depth(tmp_path, n_bits, compression):
    rng = np.random.default_rng(n_bits)
    pixels = rng.integers(0, 2**n_bits, (9, 16))
    for byteorder, photometric in itertools.product("<>", (0, 1)):
        content = packed_tiff(pixels, n_bits, photometric, compression, byteorder)
        (tmp_path / "a.tif").write_bytes(content)

        levels = pixels if photometric else 2**n_bits - 1 - pixels.astype(int)
        if n_bits == 1:
            expected = levels.astype(bool)
        elif n_bits < 8:
            expected = np.array([round(level * 255 / (2**n_bits - 1)) for level in levels.flat])
            expected = expected.reshape(levels.shape).astype("u1")
        else:
            expected = levels.astype("u1" if n_bits == 8 else "u2")
        assert_same(read_stored(tmp_path / "a.tif", "a"), expected)


def test_palette_of_one_bit(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 2, (9, 16))
    palette = (320, "H", 6, (0, 65535, 0, 0, 32768, 0), True)  # red, green, blue of both
    tifffile.imwrite(tmp_path / "a.tif", pixels.astype(bool), extratags=[palette], metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        file.pages.first.tags[262].overwrite(3)  # as tifffile does not write such files

    colours = np.array([[0, 0, 128], [255, 0, 0]], dtype="u1")
    assert_same(read_stored(tmp_path / "a.tif", "a"), colours[pixels])


@pytest.mark.parametrize("n_bits", range(1, 17))
def test_every_bit_depth_of_jpeg_2000(tmp_path, n_bits):
    levels = values("u1" if n_bits <= 8 else "u2") >> (-n_bits % 8)
    white = 2**n_bits - 1
    stretched = levels > 0 if n_bits == 1 else np.rint(levels * (255 / white)).astype("u1")
    for codec in ("jp2", "j2k"):
        encoded = imagecodecs.jpeg2k_encode(
            levels, level=0, reversible=True, codecformat=codec, bitspersample=n_bits
        )
        (tmp_path / f"a.{codec}").write_bytes(encoded)

        stored = read_stored(tmp_path / f"a.{codec}", "a")
        assert_same(stored, stretched if n_bits < 8 else levels)


PILLOW_FORMATS = {
    **dict.fromkeys(("png", "webp", "jp2", "gif"), ("L", "RGB", "RGBA", "LA", "I;16")),
    "bmp": ("L", "RGB", "RGBA"),
    "jpg": ("L", "RGB"),
}


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [(suffix, mode) for suffix, modes in PILLOW_FORMATS.items() for mode in modes],
)
def test_pillows_formats_by_imagecodecs(tmp_path, suffix, mode):
    n_samples = {"RGB": 3, "RGBA": 4, "LA": 2}.get(mode, 0)
    image = Image.fromarray(values("u2" if mode == "I;16" else "u1", samples=n_samples))
    path = tmp_path / f"a.{suffix}"
    options = {"webp": {"lossless": True, "exact": True}}.get(suffix, {})
    image.save(path, **options)
    codec = {"jp2": "jpeg2k", "jpg": "jpeg"}.get(suffix, suffix)
    expected = getattr(imagecodecs, f"{codec}_decode")(path.read_bytes())

    if expected.ndim == 3 and suffix == "gif":
        expected = expected[..., 0] if mode in ("L", "LA", "I;16") else expected
    if expected.ndim == 3:
        expected = expected[..., 0] if expected.shape[2] == 2 else expected[..., :3]
    assert_same(read_stored(path, "a"), expected)


@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize(("samples", "colour"), [(0, 0), (2, 4), (3, 2), (4, 6)])
def test_png_of_rows(tmp_path, dtype, samples, colour):
    pixels = values(dtype, samples=samples)
    rows = b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in pixels)
    path = tmp_path / "a.png"
    path.write_bytes(png_bytes(*SHAPE, 8 * pixels.itemsize, colour, rows))

    colours = pixels[..., 0] if samples == 2 else pixels[..., :3] if samples else pixels
    assert_same(read_stored(path, "a"), colours)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "f4", "f2"])
@pytest.mark.parametrize("order", "<>")
def test_mrc_gives_back_every_number(tmp_path, dtype, order):
    pixels = values(dtype)
    path = tmp_path / "a.mrc"
    path.write_bytes(mrc_bytes(pixels[None], order=order, limits=(pixels.min(), pixels.max())))

    assert_same(read_stored(path, "a"), pixels)
    if order == "<" and dtype in ("i2", "u2", "f4"):
        with ncempy.io.mrc.fileMRC(path) as file:
            assert_same(file.getDataset()["data"][0], pixels)


@pytest.mark.parametrize("version", [0x0210, 0x0220])
def test_ser_of_ncempy(tmp_path, version):
    frames = [values("u2", seed=seed) for seed in range(3)]
    path = tmp_path / "a.ser"
    path.write_bytes(ser_bytes(frames, version=version))

    with ncempy.io.ser.fileSER(path) as file:
        for page in range(3):
            expected = read_micrograph(file.getDataset(page)[0]).digest
            assert read_micrograph(path, page=page).digest == expected


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("shape", [(7, 9), (3, 7, 9), (2, 3, 7, 9)], ids=str)
def test_dm_of_ncempy(tmp_path, shape, version):
    data = np.random.default_rng(0).integers(0, 4096, shape).astype("u2")
    path = tmp_path / "a.dm4"
    path.write_bytes(DM(version).file(data))

    with ncempy.io.dm.fileDM(path) as file:
        expected = np.array(file.getDataset(0)["data"]).reshape(-1, 7, 9)
    for page, image in enumerate(expected):
        assert read_micrograph(path, page=page).digest == read_micrograph(image).digest
