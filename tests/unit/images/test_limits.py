"""Headers that claim much, and files that contain more than one grey or RGB image."""

from __future__ import annotations

import io
import struct
import sys
import time
import tracemalloc
import warnings

import h5py
import imagecodecs
import ncempy.io  # noqa: F401 - starts a process on import, which a unit test must not do
import numpy as np
import pytest
import tifffile
from PIL import Image
from support.microscopy_files import DM, mrc_bytes, ser_bytes
from support.raster_headers import jp2_boxes, jp2_bytes, png_bytes, siz_bytes

from hypervlad.data import check_image_folder
from hypervlad.images import ImageReadError, PartlyReadWarning, read_image, read_micrograph
from hypervlad.images.reading import read_stored

GREY = np.random.default_rng(0).integers(0, 256, (24, 32), dtype=np.uint8)
GREY16 = np.random.default_rng(1).integers(0, 65536, (24, 32), dtype=np.uint16)
MANY = np.random.default_rng(2).integers(0, 256, (24, 32, 7), dtype=np.uint8)


def tiff_bytes(height, width, *, bits=8, n_samples=1, depth=1, tile=None, strip=b"x" * 40):
    """A TIFF of deflated samples, one strip or tile, with any numbers in its header."""
    tags = {256: width, 257: height, 258: bits, 259: 8, 262: 1, 277: n_samples, 32997: depth}
    tags |= {278: height, 273: 8, 279: len(strip)}
    if tile is not None:
        del tags[278], tags[273], tags[279]
        tags |= {322: tile, 323: tile, 324: 8, 325: len(strip)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip + directory


def claiming(content, mark, offset, layout, *numbers):
    """A sound file with other numbers at an offset from its last mark."""
    changed = bytearray(content)
    struct.pack_into(layout, changed, changed.rindex(mark) + offset, *numbers)
    return bytes(changed)


def pillow_bytes(format, pixels=GREY, **options):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format, **options)
    return stream.getvalue()


def dm_claiming(version, shape):
    dm = DM(version)
    content = dm.file(GREY16)
    for side, claimed in zip(GREY16.shape, shape, strict=True):
        content = content.replace(dm.int("", side), dm.int("", claimed))
    return content


def dm5_claiming(shape, chunks):
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        options = {"chunks": chunks, "maxshape": (None, None)}
        file.create_dataset("ImageList/[0]/ImageData/Data", shape, np.uint16, **options)
    return stream.getvalue()


JPEG, GIF, BMP = (pillow_bytes(each) for each in ("JPEG", "GIF", "BMP"))
LOSSLESS = pillow_bytes("WEBP", MANY[..., :3], lossless=True)
SIDES, LARGE = struct.pack("<II", 32, 24), (65000, 65000)
REFUSED = "65000 x 65000 pixels is more than max_pixels"
JP2_HEAD = jp2_boxes(pillow_bytes("JPEG2000"))[:-1]
BOMBS = {
    "png rgb": (png_bytes(19000, 19000, 8, 2), "19000 x 19000 pixels of 3 bytes, counted as 1,083"),
    "png 16-bit rgba": (png_bytes(12000, 12000, 16, 6), "pixels of 8 bytes, counted as 576"),
    "tiff samples": (tiff_bytes(4000, 4000, n_samples=400), "neither grey nor RGB"),
    "tiff depth": (tiff_bytes(2000, 2000, depth=1000), "a TIFF page of 1000 planes"),
    "tiff 64-bit": (tiff_bytes(20000, 15000, bits=64), "20000 x 15000 pixels of 8 bytes"),
    "tiff tile": (tiff_bytes(16, 16, tile=65536), "tiles: 1 x 4294967296 pixels"),
    "ppm": (b"P6 19000 19000 255\n" + bytes(99), "19000 x 19000 pixels of 3 bytes"),
    "ppm in figures": (b"P3 19000 19000 255\n" + bytes(99), "19000 x 19000 pixels of 3 bytes"),
    "jpeg": (claiming(JPEG, b"\xff\xc0", 5, ">HH", *LARGE), REFUSED),
    "progressive jpeg": (
        claiming(pillow_bytes("JPEG", progressive=True), b"\xff\xc2", 5, ">HH", *LARGE), REFUSED
    ),
    "j2k": (siz_bytes(*LARGE, [8]), REFUSED),
    "jp2 box": (claiming(pillow_bytes("JPEG2000"), b"ihdr", 4, ">II", *LARGE), REFUSED),
    "jp2 image": (jp2_bytes([*JP2_HEAD, (b"jp2c", siz_bytes(*LARGE, [8]))]), REFUSED),
    "jp2 16-bit image": (
        jp2_bytes([*JP2_HEAD, (b"jp2c", siz_bytes(*LARGE, [16] * 3))]),
        "65000 x 65000 pixels of 6 bytes",
    ),
    "gif": (claiming(GIF, b"GIF8", 6, "<HH", *LARGE), REFUSED),
    "gif frame": (claiming(GIF, b"," + bytes(4), 5, "<HH", *LARGE), "exceeds limit of"),
    "bmp": (claiming(BMP, b"BM", 18, "<ii", *LARGE), REFUSED),
    "bmp from the top": (claiming(BMP, b"BM", 18, "<ii", 65000, -65000), REFUSED),
    # Pillow 13 compares the size with its own limit, earlier ones leave that to libwebp and to us.
    "webp": (
        claiming(LOSSLESS, b"VP8L", 9, "<I", 2**28 - 1),
        ("exceeds limit of", "16384 x 16384 pixels of 3 bytes, counted as 805"),
    ),
    "webp canvas": (
        b"RIFF" + struct.pack("<I", len(LOSSLESS) + 10) + b"WEBPVP8X"
        + struct.pack("<II", 10, 2) + b"\xff\xff\0\xff\xff\0" + LOSSLESS[12:],
        ("exceeds limit of", "could not create decoder object"),
    ),
    "dm3": (dm_claiming(3, LARGE), REFUSED),
    "dm4": (dm_claiming(4, LARGE), REFUSED),
    "mrc": (claiming(mrc_bytes(GREY16[None]), b"MAP ", -208, "<II", *LARGE), REFUSED),
    "mrc extension": (
        claiming(mrc_bytes(GREY16[None]), b"MAP ", 92 - 208, "<i", 2**31 - 1),
        "damaged or truncated MRC file",
    ),
    "ser": (claiming(ser_bytes([GREY16]), SIDES, 0, "<II", *LARGE), REFUSED),
    "hdf5": (dm5_claiming(LARGE, (100, 100)), REFUSED),
    "hdf5 chunk": (dm5_claiming((16, 16), (65000, 16000)), "chunks: 1 x 1040000000 pixels"),
    "hdf5 chunks": (dm5_claiming((9000, 9000), (1, 1)), "stored in 81,000,000 chunks"),
    "hdf5 without pixels": (dm5_claiming((16, 16), (16, 16)), "none of the pixels that it describ"),
}  # fmt: skip


def peak_memory():
    """The largest memory that the process has ever taken, in bytes; 0 where it is not known."""
    try:
        import resource
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize("case", BOMBS)
def test_a_header_that_claims_much_is_refused_before_decoding(tmp_path, case):
    content, expected = BOMBS[case]
    (tmp_path / "a").write_bytes(content)
    tifffile.imwrite(tmp_path / "some.tif", GREY, compression="zlib")
    read_image(tmp_path / "some.tif")  # which imports the decoders
    before = peak_memory()
    tracemalloc.start()
    started = time.perf_counter()

    with pytest.raises(ImageReadError) as error:
        read_image(tmp_path / "a")

    seconds, (_, peak) = time.perf_counter() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    alternatives = (expected,) if isinstance(expected, str) else expected
    assert any(text in str(error.value) for text in alternatives)
    assert peak < 10e6
    assert peak_memory() - before < 100e6
    assert seconds < 2


def test_a_chosen_channel_is_limited_as_well(tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff_bytes(4000, 4000, n_samples=400))

    with pytest.raises(ImageReadError, match="4000 x 4000 pixels of 400 bytes, counted as 6,400"):
        read_image(tmp_path / "a.tif", channel=0)


@pytest.mark.parametrize(
    "layout",
    [
        {"data": MANY, "photometric": "rgb"},
        {"data": MANY, "photometric": "minisblack", "planarconfig": "contig"},
        {"data": MANY[..., :4], "photometric": "minisblack", "planarconfig": "contig"},
        {"data": MANY[..., :2], "photometric": "minisblack", "planarconfig": "contig"},
        {"data": MANY[..., :4], "photometric": "rgb", "extrasamples": ["unspecified"]},
        {"data": MANY[..., :5], "photometric": "separated", "extrasamples": ["unspecified"]},
    ],
    ids=["rgb of 7", "grey of 7", "grey of 4", "grey of 2", "undeclared fourth", "five inks"],
)
def test_samples_that_would_be_dropped_are_refused_and_can_be_chosen(tmp_path, layout):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, compression="lzw", **layout)
    data = layout["data"]

    with pytest.raises(ImageReadError) as error:
        read_image(path)

    n_samples = data.shape[2]
    assert f"a TIFF page of {n_samples} samples of uint8 per pixel" in str(error.value)
    assert f"(0 to {n_samples - 1})" in str(error.value)
    for channel in range(n_samples):
        chosen = read_micrograph(path, channel=channel)
        assert chosen.digest == read_micrograph(data[..., channel]).digest
    with pytest.raises(ImageReadError, match=f"channel {n_samples} was requested, but the image"):
        read_image(path, channel=n_samples)


def test_channel_of_other_images(tmp_path):
    Image.fromarray(MANY[..., :3]).save(tmp_path / "a.png")
    Image.fromarray(GREY).save(tmp_path / "grey.png")

    for source in (tmp_path / "a.png", MANY):
        digest = read_micrograph(source, channel=2).digest
        assert digest == read_micrograph(MANY[..., 2]).digest
    with pytest.raises(ImageReadError, match="channel 1 was requested, but the image has 1 chan"):
        read_image(tmp_path / "grey.png", channel=1)


@pytest.mark.parametrize(("colour", "n_channels"), [(2, 3), (4, 2), (6, 4)])
def test_a_truncated_png_of_16_bits_is_refused(tmp_path, colour, n_channels):
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in np.dstack([GREY16] * n_channels))
    content = png_bytes(*GREY16.shape, 16, colour, rows)
    for share in (0.1, 0.5, 0.9, 0.98):
        (tmp_path / "a.png").write_bytes(content[: int(share * len(content))])
        with pytest.raises(ImageReadError):
            read_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    "header",
    [
        b"P6 #" + bytes(600) + b"\n32 24 65535\n",
        b"P6 #a\r#b\r\n3#c\n2\t24\v\f65535\r",
        b"P6 32 24 256\n",
    ],
    ids=["long comment", "carriage returns", "nine bits"],
)
def test_a_ppm_of_more_than_8_bits_is_refused(tmp_path, header):
    (tmp_path / "a.ppm").write_bytes(header + np.dstack([GREY16] * 3).astype(">u2").tobytes())

    with pytest.raises(ImageReadError, match=r"a PPM file of (16|9) bits per channel"):
        read_image(tmp_path / "a.ppm")


@pytest.mark.parametrize("comment", [b"", b"#" + bytes(600) + b"\n", b"#\r" * 300])
def test_a_ppm_with_any_header_is_read(tmp_path, comment):
    header = b"P6 " + comment + b" 32\n" + comment + b"24 255\n"
    (tmp_path / "a.ppm").write_bytes(header + MANY[..., :3].tobytes())

    np.testing.assert_array_equal(read_stored(tmp_path / "a.ppm", "a"), MANY[..., :3])


@pytest.mark.parametrize(
    "content",
    [
        b"P6" + b" " * 200 + b"#c\r1 1 255\n" + bytes(3),
        b"P3 1 1 255\n" + b"#\n" * 300_000 + b"1 2 3",
    ],
    ids=["blanks", "comments among pixels"],
)
def test_a_ppm_takes_no_more_time_than_its_length(tmp_path, content):
    (tmp_path / "a.ppm").write_bytes(content)
    started = time.perf_counter()
    try:
        read_image(tmp_path / "a.ppm")
    except ImageReadError as error:
        assert "comments among its pixels" in str(error)  # noqa: PT017 - the other one is read
    assert time.perf_counter() - started < 1


def encode_jp2(pixels, **options):
    return imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="jp2", reversible=True, **options)


def jp2_variants():
    """The same image of 16 bits in boxes of any order and size, with decoys of 8 bits."""
    pixels = np.dstack([GREY16] * 3)
    content = encode_jp2(pixels)
    *head, image = jp2_boxes(content)
    decoy = (b"xml ", siz_bytes(*GREY16.shape, [8] * 3))
    yield "large box", jp2_bytes([*head, (b"xml ", bytes(70_000)), image])
    yield "decoy", jp2_bytes([*head, decoy, image])
    yield "early decoy", jp2_bytes([*head[:2], decoy, *head[2:], image])
    yield "long lengths", jp2_bytes([*head, decoy, image], frozenset([b"xml ", b"jp2c"]))
    yield "to the end", jp2_bytes(head) + struct.pack(">I4s", 0, b"jp2c") + image[1]
    yield "header of 8 bits", claiming(content, b"ihdr", 14, "B", 7)
    yield "no boxes", image[1]


@pytest.mark.parametrize("content", [pytest.param(c, id=name) for name, c in jp2_variants()])
def test_jpeg_2000_keeps_16_bits_in_any_boxes(tmp_path, content):
    (tmp_path / "a.jp2").write_bytes(content)

    np.testing.assert_array_equal(read_stored(tmp_path / "a.jp2", "a"), np.dstack([GREY16] * 3))


@pytest.mark.parametrize(("n_bits", "n_channels"), [(9, 1), (12, 3)])
def test_jpeg_2000_of_other_depths_has_its_values(tmp_path, n_bits, n_channels):
    pixels = np.dstack([GREY16 >> (16 - n_bits)] * n_channels).squeeze()
    (tmp_path / "a.jp2").write_bytes(encode_jp2(pixels, bitspersample=n_bits))

    np.testing.assert_array_equal(read_stored(tmp_path / "a.jp2", "a"), pixels)


@pytest.mark.parametrize("image", [[], [(b"jp2c", b"x" * 99)]])
def test_jpeg_2000_without_a_size_is_refused(tmp_path, image):
    (tmp_path / "a.jp2").write_bytes(jp2_bytes([*JP2_HEAD, *image]))

    with pytest.raises(ImageReadError, match="damaged JPEG 2000 file: it has no image"):
        read_image(tmp_path / "a.jp2")


STACK = np.stack([GREY16, GREY16 // 2, GREY16 // 3, GREY16 // 4, GREY16 // 5])


def write_stk(path, planes):
    """A MetaMorph stack: one directory, whose UIC2 tag has a value for each plane."""
    n = len(planes)
    # Each of the values has six numbers.
    uic1, uic2 = (33628, 5, 1, (0, 1), True), (33629, 5, 3 * n, (1, 1) * 3 * n, True)
    tifffile.imwrite(path, planes[0], metadata=None, rowsperstrip=5, extratags=[uic1, uic2])
    with tifffile.TiffFile(path) as file:
        tag, counts = file.pages[0].tags[33629], file.pages[0].databytecounts
        assert file.pages[0].dataoffsets[0] + sum(counts) == path.stat().st_size
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, tag.offset + 4, n)
    path.write_bytes(content + b"".join(plane.tobytes() for plane in planes[1:]))


STACKS = {
    "imagej": {"imagej": True},
    "imagej, big-endian": {"imagej": True, "byteorder": ">"},
    "imagej, slices": {"imagej": True, "metadata": {"axes": "ZYX"}},
    "tifffile": {},
}


@pytest.mark.parametrize("kind", [*STACKS, "metamorph", "directories"])
def test_a_stack_has_pages(tmp_path, kind):
    path = tmp_path / "a.tif"
    if kind == "metamorph":
        write_stk(path, STACK)
    elif kind == "directories":
        tifffile.imwrite(path, STACK, photometric="minisblack")
    else:
        tifffile.imwrite(path, STACK, truncate=True, **STACKS[kind])
    with tifffile.TiffFile(path) as file:
        assert len(file.pages) == (5 if kind == "directories" else 1)

    with pytest.warns(PartlyReadWarning, match="1 reads the second"):
        first = read_micrograph(path)
    assert first.digest == read_micrograph(STACK[0]).digest
    for page, expected in enumerate(STACK):
        found = read_micrograph(path, page=page)
        assert found.digest == read_micrograph(expected).digest
        assert (found.metadata["page"], found.metadata["n_pages"]) == (page, 5)
    with pytest.raises(ImageReadError, match="page 5 was requested, but the file has 5 pages"):
        read_image(path, page=5)


def test_pages_after_a_stack_in_one_directory_are_counted_after_it(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK, truncate=True)
    tifffile.imwrite(path, GREY, append=True)

    assert read_micrograph(path, page=4).digest == read_micrograph(STACK[4]).digest
    assert read_micrograph(path, page=5).digest == read_micrograph(GREY).digest


@pytest.mark.parametrize(
    "description",
    [
        '{"shape": [5, 24, 32]}',
        '{"shape": [5.5, null]}',
        '{"shape":',
        "ImageJ=1.53\nimages=5\n",
        "ImageJ=1.53\nimages=many\nslices=-3\n",
        "ImageJ=1.53\nimages=1e999\nframes=99999999999\n",
        # Their product would have millions of digits, and take minutes.
        f'{{"shape": [{", ".join(["9" * 18] * 100_000)}]}}',
    ],
    ids=lambda description: description[:30],
)
def test_one_image_with_the_description_of_a_stack_is_one_page(tmp_path, description):
    tifffile.imwrite(tmp_path / "a.tif", GREY16, description=description, metadata=None)
    with open(tmp_path / "a.tif", "ab") as stream:
        stream.write(bytes(2 * GREY16.nbytes))  # not enough for five images

    assert read_micrograph(tmp_path / "a.tif").metadata["n_pages"] == 1


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
def test_the_first_frame_is_read_where_no_page_can_be_chosen(tmp_path, format):
    others = [Image.fromarray(255 - GREY)]
    Image.fromarray(GREY).save(
        tmp_path / "a", format, save_all=True, append_images=others, duration=50, lossless=True
    )
    first = read_image(tmp_path / "a", page=0).reshape(*GREY.shape, -1)[..., 0]
    np.testing.assert_array_equal(first, np.float32(GREY / 255))

    with pytest.warns(PartlyReadWarning, match="--image-page 0, where a model is tr") as caught:
        read_image(tmp_path / "a")
    assert '"page": 1' not in str(caught[0].message)
    assert f"export others of a {format} file as images" in str(caught[0].message)
    with pytest.raises(ImageReadError, match="page 1 was requested, but only the first"):
        read_image(tmp_path / "a", page=1)


def test_the_warning_of_pages_comes_once_for_each_folder(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for name in "123":
            stack = np.stack([GREY, GREY])
            tifffile.imwrite(tmp_path / folder / f"{name}.tif", stack, photometric="minisblack")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for path in sorted(tmp_path.glob("*/*.tif")):
            read_image(path)
            read_image(path, page=0)

    assert [each.category for each in caught] == [PartlyReadWarning] * 2
    assert str(caught[0].message).startswith(f"{tmp_path / 'a'}: files of several pages")


def test_check_lists_files_of_several_pages(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(GREY + len(name)).save(tmp_path / name / "1.png")
    tifffile.imwrite(tmp_path / "a" / "2.tif", np.stack([GREY] * 3), photometric="minisblack")
    tifffile.imwrite(tmp_path / "b" / "2.tif", MANY, photometric="rgb")
    tifffile.imwrite(tmp_path / "b" / "3.tif", STACK, imagej=True, truncate=True)

    report = check_image_folder(tmp_path)

    assert report.page_counts == {"a/2.tif": 3, "b/3.tif": 5}
    assert "2 files have several pages, sections or frames, of which only page 0" in report.notes[0]
    assert "a/2.tif: 3 pages" in str(report)
    assert [bad.path for bad in report.bad_files] == ["b/2.tif"]
